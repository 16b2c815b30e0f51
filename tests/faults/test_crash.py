"""A crash of the process just before each state-changing system call of each story, once and twice."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.intake.acceptance import Accepted, Gone, Rejected, accept
from obcd.spool.job import ledger
from tests.faults import checks
from tests.faults.story import GOOD, SECRET, STORIES, Dropped, Run
from tests.unit.spool.spools import Crashed, crash_at

T = TypeVar("T")
Count = Callable[[str], None]
#: Of the first and of the second crashes every so many-th is tried by `make test`; `make soak` tries all.
STEP = 13
EACH = pytest.mark.parametrize("name", STORIES)


@pytest.mark.case("B1")
@EACH
def test_crash_before_each_call_loses_nothing_and_doubles_nothing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, count: Count, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level("DEBUG")
    before = len(os.listdir("/proc/self/fd"))

    calls = checks.check_crashes(scratch, STORIES[name], monkeypatch)

    count(f"crash points of '{name}': {calls}")
    assert calls > 40
    assert len(os.listdir("/proc/self/fd")) == before
    assert SECRET not in caplog.text


@pytest.mark.case("B2")
@EACH
def test_second_crash_while_the_first_is_mended_changes_nothing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, count: Count, name: str
) -> None:
    pairs = checks.check_second_crashes(scratch, STORIES[name], monkeypatch, STEP)

    count(f"pairs of crash points of '{name}', every {STEP}th of both: {pairs}")
    assert pairs > 8


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.case("B2")
@EACH
def test_all_second_crashes_change_nothing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, count: Count, name: str
) -> None:
    pairs = checks.check_second_crashes(scratch, STORIES[name], monkeypatch)

    count(f"pairs of crash points of '{name}', all: {pairs}")
    assert pairs > 1000


@pytest.mark.parametrize("dropped", [GOOD, *STORIES["rejected"]], ids=["good", "rejected"])
def test_clerk_that_dies_before_each_call_is_asked_the_same_again(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, dropped: Dropped
) -> None:
    """The coordinator lives on: the same order goes to the next clerk, without a recovery between."""
    places = checks.Places(scratch)
    with checks.quick_syncs():
        for number in itertools.count(1):
            run = Run.begin(places.next(), (dropped,))
            run.stops = 1
            with crash_at(number, monkeypatch) as calls:
                ask_again(run)
            run.assert_whole()
            if len(calls) < number:
                break
    assert number > 20


def ask_again(run: Run) -> None:
    (drop,) = run.lying()
    order = run.order(drop, "job001")
    verdict = again(lambda: accept(run.layout, order))
    if isinstance(verdict, Accepted):
        again(lambda: record(run, verdict))
        again(lambda: run.publish("job001"))
    else:
        assert isinstance(verdict, Rejected | Gone)  # shown by the one that died before it could say so


def again(act: Callable[[], T]) -> T:
    with contextlib.suppress(Crashed):
        return act()
    return act()


def record(run: Run, verdict: Accepted) -> None:
    """Record as the recorder does: a failed append is given to a new writer of the same size."""
    run.ask(verdict.header, run.unanswered(verdict.header))
    assert ledger.replay(run.layout.jobs / "job001" / ledger.NAME, 4).done == bytes([1, 1, 1, 1])


@pytest.mark.case("B26")
def test_lock_file_that_names_a_living_process_is_only_text(scratch: Path) -> None:
    """After a reboot the number may be anybody's; the lock itself decides."""
    layout = Layout.at(scratch / "root")
    layout.create([])
    for path in (layout.root / "lock", layout.inbox / ".obcd" / "lock"):
        path.write_text(f"pid {os.getppid()}\n", "utf-8")
    lock = SpoolLock(layout)

    lock.acquire()

    assert (layout.root / "lock").read_text("utf-8") == f"pid {os.getpid()}\n"
    lock.release()
