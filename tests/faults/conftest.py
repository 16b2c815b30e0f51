"""What the tests of faults share: a quick scratch folder, and the counts that are printed at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

#: Lines for the end of the run: what was tried how often.
COUNTS = pytest.StashKey[list[str]]()
#: Memory, where there is such a folder: nothing here depends on a real disk but what says so.
MEMORY = Path("/dev/shm")


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder for many small spools, in memory where possible."""
    path = Path(tempfile.mkdtemp(prefix="obcd-faults-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path)


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
