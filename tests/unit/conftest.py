"""What unit tests share: a spool in a temporary folder, and nothing waits for a disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from obcd.spool.folders.layout import Layout
from tests.unit.spool.spools import make_layout


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: that syncs come where they must is shown by the power cuts of tests/faults."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return a spool with the profile `clinical`; its runtime folder is not the machine's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return make_layout(tmp_path / "root", "clinical")
