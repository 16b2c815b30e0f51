"""What unit tests share: nothing waits for a disk."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: that syncs come where they must is shown by the power cuts of tests/faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
