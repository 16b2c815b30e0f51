"""Two clerks for one kind of work, as real processes: what is large holds up nothing small."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.coordinator.clerk.clerk_pair import LARGE_BYTES, LARGE_REQUESTS, ClerkPair, is_large_file, is_large_job
from obcd.coordinator.clerk.clerk_process import CallDone, CallFailed
from obcd.spool.job.job_folder import JobHeader
from tests.unit.spool.spools import SETTINGS, make_layout

pytestmark = pytest.mark.integration


@pytest.fixture
def clerks(tmp_path: Path) -> Iterator[ClerkPair]:
    clerks = ClerkPair("intake", make_layout(tmp_path))
    yield clerks
    clerks.stop()


def tick(clerks: ClerkPair) -> None:
    """Wait until one of them says something, and take it."""
    readable, _, _ = select.select(clerks.filenos(), [], [], 30)
    clerks.tick(readable)


def test_small_call_is_done_while_the_clerk_for_large_ones_stands_still(clerks: ClerkPair) -> None:
    done: list[str] = []

    def note(name: str) -> None:
        clerks.ask(lambda outcome: done.append(name), "acquit", "gone", is_large=name.startswith("large"))

    note("large one")
    tick(clerks)
    pid = clerks.pids()["clerk intake large"]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    note("large two")
    note("small")
    tick(clerks)

    assert done == ["large one", "small"]
    assert clerks.pending == 1

    os.kill(pid, signal.SIGCONT)
    tick(clerks)
    assert done == ["large one", "small", "large two"]


def test_second_clerk_runs_only_when_something_large_has_come(clerks: ClerkPair) -> None:
    outcomes: list[CallDone | CallFailed] = []
    assert clerks.pids() == {"clerk intake": None}

    clerks.ask(outcomes.append, "acquit", "gone")
    tick(clerks)

    assert len(outcomes) == 1
    assert list(clerks.pids()) == ["clerk intake"]


def test_what_is_large() -> None:
    assert not is_large_file(LARGE_BYTES)
    assert is_large_file(LARGE_BYTES + 1)
    usual = JobHeader(id="job", name="a.jsonl", requests=LARGE_REQUESTS, size=LARGE_BYTES, settings=SETTINGS)
    assert not is_large_job(usual)
    assert is_large_job(usual.evolve(requests=LARGE_REQUESTS + 1))
    assert is_large_job(usual.evolve(size=LARGE_BYTES + 1))


def test_clerk_ends_in_the_middle_of_a_call_when_its_coordinator_has_gone() -> None:
    ours, theirs = socket.socketpair()
    code = (
        "import socket, sys, threading; from obcd.coordinator.clerk.clerk_process import _end_with_the_coordinator; "
        "from obcd.workers.channel import Channel; "
        "channel = Channel(socket.socket(fileno=int(sys.argv[1]))); "
        "threading.Thread(target=_end_with_the_coordinator, args=(channel,), daemon=True).start(); print(flush=True)\n"
        "while True: pass"  # as a call that never ends
    )
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()]) as clerk, ours:
        theirs.close()
        assert clerk.stdout is not None
        clerk.stdout.readline()
        ours.sendall(b"a call that waits")
        assert clerk.poll() is None

        ours.close()

        try:
            assert clerk.wait(20) == 1
        finally:
            clerk.kill()
