"""The demo as a new user sees it: with real inference where it can be had, interrupted, and taken up again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from obcd.standins.embedded.toy_model import find_weights
from tests.golden.wording import wording
from tests.support import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.engine]

#: The environment variable that all processes of one demo inherit.
MARK = "OBCD_TEST_FOLDER"


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "obcd", "demo", "--dir", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**{key: value for key, value in os.environ.items() if key != "MAKELEVEL"}, MARK: str(folder)},
    )


def _finish(process: subprocess.Popen[str], seconds: float = 100) -> str:
    output, _ = process.communicate(timeout=seconds)
    return output


def _processes_of(folder: Path) -> list[psutil.Process]:
    """Return all living processes that descend from a demo on this folder: they inherit its mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give the demo a folder, and end what a failed test leaves behind."""
    place = tmp_path / "demo"
    yield place
    for process in _processes_of(place):
        process.kill()


@pytest.mark.skipif(find_weights() is None, reason="no inference engine or model package is installed")
@pytest.mark.timeout(240)
def test_demo_answers_both_jobs_with_real_inference(folder: Path) -> None:
    demo = _start(folder)

    output = _finish(demo, 280)

    assert demo.returncode == 0, output
    assert "30 answered, 0 failed" in output
    assert "12 answered, 0 failed" in output
    assert wording("this-shows-the-plumbing") in output
    matched = re.search(r"(\d+) of 120 fields match the key", output)
    assert matched is not None
    assert int(matched[1]) >= 84, "fewer than 70 % of the fields: the schema or the prompt went wrong"
    assert re.search(wording("d-s-of-server-work-in"), output)
    assert len(json.loads((folder / "visits.json").read_text("utf-8"))) == 30
    assert _processes_of(folder) == []


def test_demo_without_an_engine_says_so_simulates_and_asks_nothing_twice(folder: Path) -> None:
    demo = _start(folder, "--simulate")

    output = _finish(demo)

    assert demo.returncode == 0, output
    assert wording("simulated-servers-answer") in output
    assert "cp your-prompts.jsonl" in output
    assert wording("match-the-key") not in output
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("responses.jsonl")}
    again = _finish(_start(folder, "--simulate"))
    assert "answered already" in again
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("responses.jsonl")} == before


def test_interrupted_demo_leaves_no_process_and_goes_on_where_it_was(folder: Path) -> None:
    first = _start(folder, "--simulate")
    ledgers = folder / "jobs"
    wait_until(lambda: any(_size(path) for path in ledgers.glob("*/ledger.log")), 120)

    first.send_signal(signal.SIGINT)
    stopped = _finish(first, 120)

    assert first.returncode == 130, stopped
    assert wording("goes-on-where-it-was") in stopped
    assert _processes_of(folder) == []
    recorded = sum(len(path.read_bytes().splitlines()) for path in ledgers.glob("*/ledger.log"))
    assert recorded > 0
    again = _start(folder, "--simulate")
    output = _finish(again)
    assert again.returncode == 0, output
    assert wording("going-on-with") in output
    for stem, lines in (("clinical/clinical-visits", 30), ("questions", 12)):
        responses = (folder / "outbox" / stem / "responses.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line)["line"] for line in responses] == list(range(1, lines + 1))


def _size(path: Path) -> int:
    """Return the bytes of a file, 0 where it is gone: a job's folder gets another name once it is accepted."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_killed_demo_leaves_no_process(folder: Path) -> None:
    demo = _start(folder, "--simulate")
    wait_until(lambda: len(_processes_of(folder)) >= 8, 120)

    demo.kill()
    _finish(demo, 120)

    wait_until(lambda: _processes_of(folder) == [], 120, lambda: str(_processes_of(folder)))
