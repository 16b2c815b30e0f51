from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.spool.spools import THREE


@pytest.fixture(autouse=True)
def _own_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the runtime folders of the spools made here out of the machine's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file of three prompts, to be dropped."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(THREE)
    return path
