"""The wheel, as somebody without a checkout installs it: built, put into a fresh environment, and run elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.golden.wording import wording

pytestmark = [pytest.mark.acceptance, pytest.mark.engine]

SOURCES = Path(__file__).parents[2]
#: What a build reads, beside the packages.
MANIFEST = ("LICENSE", "README.md", "pyproject.toml", "setup.cfg")


def run(*command: str | Path, folder: Path, seconds: float = 120) -> str:
    """Run a program as in a login of somebody who has no checkout, and return what it printed."""
    taken = ("PYTHONPATH", "MAKELEVEL", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in taken}
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: a build leaves folders beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "sources"
    for name in ("obcd", "etc", "systemd"):
        shutil.copytree(SOURCES / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.whl"))
    for name in MANIFEST:
        shutil.copy(SOURCES / name, copy / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, copy, folder=folder, seconds=200)
    return next(folder.glob("obcd-*.whl"))


def test_wheel_holds_all_of_etc_and_systemd(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())

    packed = {
        f"obcd/{path.relative_to(SOURCES)}"
        for name in ("etc", "systemd")
        for path in (SOURCES / name).rglob("*")
        if path.is_file() and path.suffix != ".whl"
    }
    modules = {str(path.relative_to(SOURCES)) for path in (SOURCES / "obcd").rglob("*.py")}
    assert len(packed) > 15
    assert packed | modules <= held


@pytest.mark.timeout(600)
def test_installed_wheel_works_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "venv", folder=tmp_path)
    pip = tmp_path / "venv/bin/pip"
    run(pip, "install", "--quiet", "--disable-pip-version-check", wheel, folder=tmp_path, seconds=300)
    obcd = tmp_path / "venv/bin/obcd"

    assert run(obcd, "--version", folder=tmp_path).startswith("obcd, version ")
    assert '"$schema"' in run(obcd, "check", "--schema", folder=tmp_path)
    assert "COMPREPLY" in run(obcd, "completion", "bash", folder=tmp_path)
    assert "/etc/obcd/obcd.schema.json" in run(obcd, "install", "--root", tmp_path / "staged", folder=tmp_path)
    said = run(obcd, "demo", "--simulate", folder=tmp_path, seconds=200)
    assert wording("simulated-servers-answer") in said
    assert (tmp_path / "obcd-demo/visits.json").exists()
