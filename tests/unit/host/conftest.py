"""A GPU host of stand-ins, in this process: NVML by a module, `ollama` and `nvidia-smi` by PATH."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.gpu_support import StandIns, cards
from tests.standins import pynvml


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Return four cards that NVML knows; nvidia-smi is not here."""
    made = StandIns(tmp_path / "stand-ins", cards(4), has_smi=False)
    monkeypatch.setenv("STANDIN_FOLDER", str(made.folder))
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    return made


@pytest.fixture
def no_nvml(stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the package nvidia-ml-py away."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
