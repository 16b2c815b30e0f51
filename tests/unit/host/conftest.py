"""A GPU host of stand-ins, in this process: NVML by a module, `ollama` by PATH."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.gpu_support import StandIns, cards
from tests.standins import pynvml


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Return four cards that NVML knows."""
    made = StandIns(tmp_path / "stand-ins", cards(4))
    monkeypatch.setenv("STANDIN_FOLDER", str(made.folder))
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    return made
