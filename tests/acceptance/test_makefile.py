"""`make` on machines that cannot run obcd: one clear sentence, and nothing installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine"),
]


def _make(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", folder)
    return subprocess.run(
        ["make", f"PYTHON={python}", "demo"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def _fake_python(folder: Path, script: str) -> str:
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


def test_missing_python_gets_one_sentence(tmp_path: Path) -> None:
    made = _make(tmp_path, str(tmp_path / "nowhere"))

    assert made.returncode != 0
    assert "obcd needs Python 3.11 or newer" in made.stdout
    assert not (tmp_path / ".venv").exists()


def test_old_python_gets_one_sentence_with_its_version(tmp_path: Path) -> None:
    old = _fake_python(tmp_path, 'if [ "$1" = -V ]; then echo Python 3.9.2; exit 0; fi; exit 1')

    made = _make(tmp_path, old)

    assert made.returncode != 0
    assert "obcd needs Python 3.11 or newer" in made.stdout
    assert "Python 3.9.2" in made.stdout
    assert not (tmp_path / ".venv").exists()


def test_python_without_venv_gets_one_sentence(tmp_path: Path) -> None:
    bare = _fake_python(tmp_path, 'case "$2" in *ensurepip*) exit 1;; esac; exit 0')

    made = _make(tmp_path, bare)

    assert made.returncode != 0
    assert "obcd needs Python's venv module" in made.stdout
    assert not (tmp_path / ".venv").exists()
