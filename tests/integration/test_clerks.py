"""Two clerks for one kind of work, as real processes: what is large holds up nothing small."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.coordinator.clerk import clerk_process
from obcd.coordinator.clerk.calls import (
    LARGE_BYTES,
    LARGE_REQUESTS,
    CallFailed,
    ClearCrashes,
    Release,
    is_large_file,
    is_large_job,
)
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.core.tables.unpacking import MAX_RATIO
from obcd.spool.job.job_folder import Converted, JobHeader
from obcd.workers.pool import REFUSED_SECONDS
from tests.unit.spool.spools import SETTINGS, make_layout

pytestmark = pytest.mark.integration


class LargeCall(ClearCrashes):
    """A call that takes no time, and would not be large by itself."""

    is_large = True


@pytest.fixture
def clerks(tmp_path: Path) -> Iterator[ClerkPair]:
    clerks = ClerkPair("intake", make_layout(tmp_path))
    yield clerks
    clerks.stop()


def tick(clerks: ClerkPair) -> None:
    """Wait until one of them says something, and take it."""
    readable, _, _ = select.select(clerks.filenos(), [], [], 30)
    clerks.tick(0.0, readable)


def test_small_call_is_done_while_the_clerk_for_large_ones_stands_still(clerks: ClerkPair) -> None:
    done: list[str] = []

    def note(name: str) -> None:
        call = LargeCall("gone") if name.startswith("large") else ClearCrashes("gone")
        clerks.submit(call, lambda outcome: done.append(name))

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
    outcomes: list[CallFailed | None] = []
    assert clerks.pids() == {"clerk intake": None}

    clerks.submit(ClearCrashes("gone"), outcomes.append)
    tick(clerks)

    assert outcomes == [None]
    assert list(clerks.pids()) == ["clerk intake"]


def test_what_the_disk_refuses_comes_back_as_such(clerks: ClerkPair) -> None:
    outcomes: list[CallFailed | None] = []

    clerks.submit(Release("a\0b"), outcomes.append)
    clerks.submit(Release("gone"), outcomes.append)
    while clerks.pending:
        tick(clerks)

    bug, refused = outcomes
    assert isinstance(bug, CallFailed)
    assert not bug.is_disk
    assert isinstance(refused, CallFailed)
    assert refused.is_disk


def test_clerk_that_the_machine_refuses_is_tried_again_after_a_pause(
    clerks: ClerkPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[str] = []

    def refuse(name: str, *_: object) -> None:
        starts.append(name)

    monkeypatch.setattr(clerk_process, "try_to_start", refuse)
    clerks.submit(ClearCrashes("gone"), print)

    for now in (100.0, 100.0 + REFUSED_SECONDS - 0.1):
        clerks.tick(now, ())
        assert len(starts) == 1
    clerks.tick(100.0 + REFUSED_SECONDS, ())

    assert starts == ["clerk intake", "clerk intake"]
    assert clerks.pending == 1


def test_what_is_large() -> None:
    assert not is_large_file(LARGE_BYTES)
    assert is_large_file(LARGE_BYTES + 1)
    usual = JobHeader(id="job", name="a.jsonl", requests=LARGE_REQUESTS, size=LARGE_BYTES, settings=SETTINGS)
    assert not is_large_job(usual)
    assert is_large_job(replace(usual, requests=LARGE_REQUESTS + 1))
    assert is_large_job(replace(usual, size=LARGE_BYTES + 1))
    assert is_large_job(replace(usual, size=1, converted=Converted("", LARGE_BYTES + 1)))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.xz", "a.json.zst", "a.parquet"])
def test_what_may_grow_is_large_earlier(name: str) -> None:
    assert not is_large_file(LARGE_BYTES // MAX_RATIO, name)
    assert is_large_file(LARGE_BYTES // MAX_RATIO + 1, name)
    assert not is_large_file(LARGE_BYTES, "a.csv")


def test_clerk_ends_in_the_middle_of_a_call_when_its_coordinator_has_gone() -> None:
    ours, theirs = socket.socketpair()
    code = (
        "import socket, sys; from obcd.workers.channel import Channel, exit_at_the_end_of; "
        "exit_at_the_end_of(Channel(socket.socket(fileno=int(sys.argv[1])))); print(flush=True)\n"
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
