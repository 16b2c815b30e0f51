"""What must hold, as functions: tests call them, and test_mutants calls them on code made wrong to see them fail.

Each raises AssertionError when it does not hold, and returns how much it tried.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from obcd.spool import disk
from tests.faults.power import PowerDisk, Tree, restore
from tests.faults.story import Dropped, Run, recover
from tests.unit.spool.spools import Crashed, crash_at


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
    """Crash before each call, and again before each call of the recovery (each `step`-th pair of both)."""
    places, tried = Places(folder), 0
    with quick_syncs():
        total = count_calls(places, drops, patch)
        for first in range(1, total + 1):
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


def check_power_cuts(
    folder: Path, drops: tuple[Dropped, ...], patch: pytest.MonkeyPatch, limit: int, crash_before: int = 0
) -> tuple[int, int]:
    """Cut the power at each moment of a story, with each of at most `limit` remains of it.

    Args:
        crash_before: A call before which the process is killed and goes on, first: what it left is shown, not durable.

    Returns:
        Moments, and different remains of them that were recovered.
    """
    story = Run.begin(folder / "story" / "root", drops)
    power = PowerDisk(story.layout.root, lambda: story.elsewhere(folder / "scratch" / "root"))
    with power.on():
        if crash_before:
            crash_watched(story, crash_before, patch)
        recover(story)
    places, dice, seen = Places(folder), random.Random(1), set[tuple[Tree, int]]()
    with quick_syncs():
        for cut in power.cuts:
            for tree in cut.remains(limit, dice):
                key = (tree, len(cut.note.recorded))
                if key not in seen:
                    seen.add(key)
                    root = places.next()
                    restore(tree, root)
                    run = cut.note.elsewhere(root)
                    run.assert_shown_whole()
                    recover(run)
    return len(power.cuts), len(seen)


def crash_watched(run: Run, number: int, patch: pytest.MonkeyPatch) -> None:
    """Crash as `crash` does, while a PowerDisk looks on through the same seam."""
    looks, calls = disk.before, itertools.count(1)

    def before(operation: str, path: str) -> None:
        looks(operation, path)
        if next(calls) == number:
            raise Crashed(operation)

    with patch.context() as own, pytest.raises(Crashed):
        own.setattr(disk, "before", before)
        recover(run)
    run.stops += 1
