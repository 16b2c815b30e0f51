"""What must hold, as functions: tests call them, and test_mutants calls them on code made wrong to see them fail.

Each raises AssertionError when it does not hold, and returns how much it tried.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from obcd.coordinator.disk_watch import DiskWatch
from obcd.coordinator.jobs.recorder import Entry, Recorder
from obcd.coordinator.loop_waits import Waker
from obcd.core.answer.counts import Counts
from obcd.errors import AlreadyRunningError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.intake.acceptance import accept
from obcd.spool.job import ledger
from obcd.spool.outbox import publication
from tests.faults.power import PowerDisk, Tree, restore
from tests.faults.story import Dropped, Run, prompt_file, recover
from tests.unit.spool.spools import Crashed, answer, crash_at


@contextmanager
def quick_syncs() -> Iterator[None]:
    """Leave out the real fsyncs: a process that ends does not need them, and they are what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("os.fdatasync", lambda descriptor: None)
        yield


class Places:
    """Fresh folders, each taken away when the next one is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: Path | None = None

    def next(self) -> Path:
        """Return a folder that is not there yet, `<scratch>/root`."""
        if self._last is not None:
            shutil.rmtree(self._last)
        self._last = self._folder / "scratch"
        self._last.mkdir(parents=True)
        return self._last / "root"


def count_calls(places: Places, drops: tuple[Dropped, ...], patch: pytest.MonkeyPatch) -> int:
    """Return how many state-changing calls an undisturbed story takes."""
    run = Run.begin(places.next(), drops)
    with crash_at(0, patch) as calls:
        recover(run)
    return len(calls)


def check_crashes(folder: Path, drops: tuple[Dropped, ...], patch: pytest.MonkeyPatch) -> int:
    """Crash before each call of a story, and let the next coordinator go on."""
    places = Places(folder)
    with quick_syncs():
        total = count_calls(places, drops, patch)
        for number in range(1, total + 1):
            run = Run.begin(places.next(), drops)
            crash(run, number, patch)
            recover(run)
    return total


def check_second_crashes(folder: Path, drops: tuple[Dropped, ...], patch: pytest.MonkeyPatch, step: int = 1) -> int:
    """Crash before each call, and again before each call of the recovery (each `step`-th of both)."""
    places, tried = Places(folder), 0
    with quick_syncs():
        total = count_calls(places, drops, patch)
        for first in range(1, total + 1, step):
            for second in itertools.count(1 + first % step, step):
                run = Run.begin(places.next(), drops)
                crash(run, first, patch)
                if not crash(run, second, patch):
                    break
                recover(run)
                tried += 1
    return tried


def crash(run: Run, number: int, patch: pytest.MonkeyPatch) -> bool:
    """Go on until just before the `number`-th state-changing call; False when all was done before."""
    try:
        with crash_at(number, patch):
            recover(run)
    except Crashed:
        run.stops += 1
        run.assert_shown_whole()
        return True
    return False


#: What is left, what was said to be recorded, and what was published: two that are equal are recovered alike.
Remains = tuple[Tree, frozenset[tuple[str, int]], frozenset[str]]


def check_power_cuts(
    folder: Path,
    drops: tuple[Dropped, ...],
    patch: pytest.MonkeyPatch,
    limit: int,
    crash_before: int = 0,
    seen: set[Remains] | None = None,
) -> tuple[int, int]:
    """Cut the power at each moment of a story, with each of at most `limit` remains of it.

    Args:
        crash_before: A call before which the process is killed and goes on, first: what it left is shown, not durable.
        seen: Remains of the same story that were recovered before; those of this time are added.

    Returns:
        Moments, and different remains of them that were recovered.
    """
    story = Run.begin(folder / "story" / "root", drops)
    power = PowerDisk(story.layout.root, lambda: story.elsewhere(folder / "scratch" / "root"))
    with power.on():
        if crash_before:
            crash_watched(story, crash_before, patch)
        recover(story)
    places, dice, seen = Places(folder), random.Random(1), set() if seen is None else seen
    known = len(seen)
    with quick_syncs():
        for cut in power.cuts:
            for tree in cut.remains(limit, dice):
                key = (tree, frozenset(cut.note.recorded), frozenset(cut.note.published))
                if key not in seen:
                    seen.add(key)
                    root = places.next()
                    restore(tree, root)
                    run = cut.note.elsewhere(root)
                    run.assert_shown_whole()
                    recover(run)
    return len(power.cuts), len(seen) - known


def crash_watched(run: Run, number: int, patch: pytest.MonkeyPatch) -> None:
    """Crash as `crash` does, while a PowerDisk looks on through the same seam."""
    looks, calls = disk.before, itertools.count(1)

    def before(operation: str, path: str) -> None:
        looks(operation, path)
        if next(calls) == number:
            raise Crashed(operation)

    with patch.context() as own:
        own.setattr(disk, "before", before)
        with pytest.raises(Crashed):
            recover(run)
    run.stops += 1


def check_lock(folder: Path) -> int:
    """A second coordinator on the same root, or on the same inbox from another root, is refused and told by whom."""
    first, tried = Layout.at(folder / "root"), 0
    first.create([])
    lock = SpoolLock(first)
    lock.acquire()
    other = Layout.at(folder / "other", str(first.inbox))
    other.create([])
    try:
        for layout in (first, other):
            said = refusal(SpoolLock(layout))
            assert f"pid {os.getpid()}" in said, f"two coordinators hold {layout.root}"
            tried += 1
    finally:
        lock.release()
    return tried


def refusal(lock: SpoolLock) -> str:
    """Return what a lock says when it is refused, "" when it is not."""
    try:
        lock.check_free()
    except AlreadyRunningError as error:
        return str(error)
    return ""


def check_damaged_record(folder: Path) -> int:
    """A record that reads well and is not what was written is no result; neither is what follows it."""
    folder.mkdir()
    records = [answer(0, "yes"), answer(1, "no doubt"), answer(2, "no")]
    content = b"".join(map(ledger.frame, records)).replace(b"no doubt", b"no trout")
    (folder / ledger.NAME).write_bytes(content)
    done = ledger.replay(folder / ledger.NAME, 3).done
    assert done == bytes([1, 0, 0]), "a damaged record counts"
    assert (folder / ledger.NAME).read_bytes() == ledger.frame(records[0])
    return 1


def check_first_record_wins(folder: Path) -> int:
    """Of two records of one line the first is what was counted and shown, so it is the one that is published."""
    run = Run.begin(folder / "root", (Dropped(prompt_file("double", "one")),))
    (drop,) = run.lying()
    accept(run.layout, run.order(drop, "job001"))
    writer = ledger.LedgerWriter(run.layout.jobs / "job001", 0)
    writer.append([answer(0, "first"), answer(0, "second")])
    writer.close()
    assert ledger.replay(run.layout.jobs / "job001" / ledger.NAME, 1).counts.responses == 1
    published = publication.publish(run.layout, "job001", {})
    (line,) = (published / "responses.jsonl").read_bytes().splitlines()
    assert json.loads(line)["response"] == "first", "the last record won"
    return 1


def check_recorded_is_durable(folder: Path) -> int:
    """When the recorder says that a result is recorded, no power cut can take it."""
    (folder / "job").mkdir(parents=True)
    (folder / "job" / ledger.NAME).touch()
    said: list[Entry] = []
    lost: list[bytes] = []

    class Looking(Waker):
        def wake(self) -> None:
            said.extend(recorder.recorded())
            left = dict(power.cuts[-1].worst().files)[f"job/{ledger.NAME}"]
            lost.extend(entry.record for entry in said if entry.record not in (left or b""))

    power = PowerDisk(folder, lambda: None)
    with power.on():
        recorder = Recorder(folder, Looking(), DiskWatch(folder))
        recorder.open("job", 0)
        for ordinal in range(8):
            recorder.add(Entry("job", answer(ordinal), Counts(responses=1)))
        recorder.stop(10)
    assert len(said) == 8
    assert lost == [], "a result was counted that a power cut takes"
    return len(said)
