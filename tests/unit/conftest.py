"""What unit tests share: nothing waits for a disk, and no command that runs here leaves a log level behind."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: that syncs come where they must is shown by the power cuts of tests/faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def _own_log_level() -> Iterator[None]:
    """Set the level back that a command sets at its start; else the next test's caplog has more records than alone."""
    logger = logging.getLogger("obcd")
    before = logger.level
    yield
    logger.setLevel(before)
