"""What the browser tests fetch is what was recorded."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.web.npm_packages import PACKAGES, fetch

pytestmark = [pytest.mark.web, pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on PATH")]


def test_package_with_another_checksum_is_refused(tmp_path: Path) -> None:
    changed = dataclasses.replace(PACKAGES[1], sha512="A" * 86 + "==")

    reason = fetch(changed, tmp_path)

    if "cannot fetch" in reason:
        pytest.skip(reason)
    assert "another checksum" in reason
    assert not (tmp_path / "node_modules").exists()
