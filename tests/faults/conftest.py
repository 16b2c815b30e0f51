"""What the tests of faults share: a quick scratch folder, small filesystems, the counts printed at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from obcd.spool.folders.layout import Layout
from tests.unit.spool.spools import make_layout

#: `mount(path, "size=64k")`: a tmpfs there until the end of the test.
Mount = Callable[..., Path]
#: Lines for the end of the run: what was tried how often.
COUNTS = pytest.StashKey[list[str]]()


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder for many small spools, with a short path; it is also where runtime folders are made."""
    path = Path(tempfile.mkdtemp(prefix="obcd-faults-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def layout(scratch: Path) -> Layout:
    return make_layout(scratch / "root")


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what takes a line for the end of the run."""
    config = request.config

    def note(line: str) -> None:
        config.stash.setdefault(COUNTS, []).append(line)

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = terminalreporter.config.stash.get(COUNTS, [])
    if lines:
        terminalreporter.section("faults tried")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Return what mounts a tmpfs, or another kind, on a folder: `mount(path, "size=64k")`; unmounted after the test."""
    mounted: list[Path] = []

    def act(path: Path, options: str = "size=1m", source: Path | None = None, kind: str = "tmpfs") -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        path.mkdir(parents=True, exist_ok=True)
        words = ["--bind", str(source)] if source is not None else ["-t", kind, "-o", options, kind]
        run_mount(*words, str(path))
        mounted.append(path)
        return path

    yield act
    for path in reversed(mounted):
        if os.path.ismount(path):
            subprocess.run(["umount", str(path)], check=True, timeout=30)


def run_mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
