"""`python -m tests.bench.entry coordinator …`: obcd as it is, with a stopwatch around every turn of the main loop.

Two environment variables, read by nothing else:

    OBCD_BENCH_TURNS     file that gets the turns at the end: float64 fours, see `Turn`
    OBCD_BENCH_PROFILE   file that gets cProfile's figures of the main thread

A child process imports this module too (as `__mp_main__`), so it imports nothing of obcd before `main`.
"""

from __future__ import annotations

import os
import sys
import time
from array import array
from pathlib import Path
from typing import NamedTuple


class Turn(NamedTuple):
    """One turn of the main loop, in seconds.

    Attributes:
        began: On the monotonic clock, which all processes of a machine share.
        tick: What `Coordinator.tick` took by the clock on the wall.
        cpu: What of that the main thread was computing; the rest it waited for the disk, the lock or a core.
        turn: From the end of one `wait` to the next: the tick, and what the daemon does around it.
    """

    began: float
    tick: float
    cpu: float
    turn: float


def read_turns(path: Path) -> list[Turn]:
    """Return what a run left."""
    values = array("d")
    values.frombytes(path.read_bytes())
    return [Turn(*values[start : start + 4]) for start in range(0, len(values), 4)]


class _Stopwatch:
    """Wraps `tick` and `wait`; 32 bytes a turn."""

    def __init__(self) -> None:
        self.turns = array("d")
        self._woke = time.monotonic()
        self._last = (0.0, 0.0, 0.0)

    def wrap(self) -> None:
        from obcd.coordinator.main_loop import Coordinator  # noqa: PLC0415 - not in the children

        tick, wait = Coordinator.tick, Coordinator.wait

        def timed_tick(coordinator: Coordinator, now: float) -> float:
            began, cpu = time.monotonic(), time.thread_time()
            pause = tick(coordinator, now)
            self._last = (began, time.monotonic() - began, time.thread_time() - cpu)
            return pause

        def timed_wait(coordinator: Coordinator, seconds: float) -> None:
            self.turns.extend((*self._last, time.monotonic() - self._woke))
            wait(coordinator, seconds)
            self._woke = time.monotonic()

        Coordinator.tick = timed_tick  # type: ignore[method-assign, assignment]
        Coordinator.wait = timed_wait  # type: ignore[method-assign, assignment]


def main() -> int:
    """Run obcd's command line under the stopwatch."""
    from obcd.__main__ import main as obcd  # noqa: PLC0415 - not in the children

    stopwatch, turns, profile = _Stopwatch(), os.environ.get("OBCD_BENCH_TURNS"), os.environ.get("OBCD_BENCH_PROFILE")
    if turns:
        stopwatch.wrap()
    try:
        return _profiled(obcd, profile) if profile else obcd()
    finally:
        if turns:
            Path(turns).write_bytes(stopwatch.turns.tobytes())


def _profiled(run: object, path: str) -> int:
    import cProfile  # noqa: PLC0415 - most runs do without

    profiler = cProfile.Profile()
    try:
        return int(profiler.runcall(run))  # type: ignore[arg-type]
    finally:
        profiler.dump_stats(path)


if __name__ == "__main__":
    sys.exit(main())
