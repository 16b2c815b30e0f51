from __future__ import annotations

import pytest

from obcd.spool.folders.layout import Layout
from tests.unit.api.api_spool import ApiSpool


@pytest.fixture
def spool(layout: Layout) -> ApiSpool:
    return ApiSpool(layout)
