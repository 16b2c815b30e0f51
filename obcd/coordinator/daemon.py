"""The coordinator as a daemon: signals, systemd, the status file, and the loop around `tick`."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from obcd.clock import monotonic
from obcd.coordinator.coordinator import Coordinator
from obcd.coordinator.status import snapshot, status_line
from obcd.notify import notify, watchdog_interval
from obcd.spool import disk
from obcd.workers.pool import shielded_start

logger = logging.getLogger(__name__)

#: Seconds between two snapshots: when nothing came or went, and when something did.
SNAPSHOT_SECONDS, LEAST_SECONDS = 1.0, 0.1


class Signals:
    """Counts SIGTERM and SIGINT; a handler only records, the loop acts."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.terms = 0
        self.interrupts = 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.terms += 1
        else:
            self.interrupts += 1
        self._wake()

    @contextlib.contextmanager
    def caught(self) -> Iterator[Signals]:
        """Catch both signals inside the block."""
        old = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def run(coordinator: Coordinator, each_turn: Callable[[float], bool] | None = None) -> bool:
    """Run until told to stop.

    SIGTERM drains (what is in flight may finish, within `drain_seconds`); a second one, or SIGINT, stops now.

    Args:
        each_turn: Called after every turn; True ends the run.

    Returns:
        Whether `each_turn` ended it, and not a signal.

    Raises:
        AlreadyRunningError, InputError: As `Coordinator.start`.
    """
    with Signals(coordinator.wake).caught() as signals:
        with shielded_start():
            coordinator.start()
        notify(READY=1)
        try:
            return _loop(coordinator, signals, each_turn)
        finally:
            notify(STOPPING=1)
            coordinator.stop()
            with contextlib.suppress(OSError):  # else `obcd status` would call us READY for a while yet
                coordinator.layout.status.unlink()


def _loop(coordinator: Coordinator, signals: Signals, each_turn: Callable[[float], bool] | None) -> bool:
    shown_at, shown_moves, drain_until, is_shown_broken = -SNAPSHOT_SECONDS, 0, float("inf"), False
    beat = watchdog_interval()
    while True:
        now = monotonic()
        pause = coordinator.tick(now)
        if each_turn is not None and each_turn(now):
            return True
        if now - shown_at >= (SNAPSHOT_SECONDS if coordinator.moves == shown_moves else LEAST_SECONDS):
            shown_at, shown_moves = now, coordinator.moves
            is_shown_broken = _show(coordinator, now, is_shown_broken, has_watchdog=beat is not None)
        if signals.interrupts or signals.terms > 1:
            coordinator.fleet.cancel_in_flight()
            return False
        if signals.terms and not coordinator.is_draining:
            logger.info("draining: nothing new is given out", extra={"action": "draining"})
            coordinator.drain()
            drain_until = now + coordinator.settings.requests.drain_seconds
        if coordinator.is_draining and (now >= drain_until or not coordinator.fleet.in_flight):
            coordinator.fleet.cancel_in_flight()
            return False
        coordinator.wait(min(pause, beat or pause, SNAPSHOT_SECONDS))


def _show(coordinator: Coordinator, now: float, was_broken: bool, *, has_watchdog: bool) -> bool:
    """Write the snapshot and tell systemd; a snapshot that cannot be written is said once and stops nothing."""
    if has_watchdog:
        notify(WATCHDOG=1)
    notify(STATUS=status_line(coordinator, now))
    try:
        disk.show_json(coordinator.layout.status, snapshot(coordinator, now))
    except OSError as error:
        if not was_broken:
            logger.warning("the status cannot be shown: %s", error.strerror, extra={"action": "status_failed"})
        return True
    return False
