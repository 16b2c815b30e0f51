"""The coordinator as a daemon: signals, systemd, the status file, and the loop that calls `tick`."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from obcd.clock import monotonic
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.reloading import Reloader, Reread
from obcd.coordinator.showing.status_line import status_line
from obcd.coordinator.view import LiveView
from obcd.notify import notify, watchdog_interval
from obcd.spool.folders import disk
from obcd.workers.forking import shielded_start

logger = logging.getLogger(__name__)

#: Seconds between two snapshots: when no job or endpoint changed, and when one did.
SNAPSHOT_SECONDS, LEAST_SECONDS = 1.0, 0.1
#: Seconds between two copies of the snapshot for other machines, on a file system that they share.
SHARED_SECONDS = 5.0
#: Seconds by which systemd's timeout is extended with each snapshot while a drain or a recovery is under way, because
#: `drain_seconds` may be longer than the unit's TimeoutStopSec (sd_notify(3), EXTEND_TIMEOUT_USEC).
PATIENCE_SECONDS = 30


class Signals:
    """Records SIGTERM, SIGINT and, where SIGHUP means a reload, SIGHUP; the loop acts on them.

    The handler is a built-in method. The next signal could interrupt a handler written in Python before its first line,
    and the one after that again, until a flood of signals had used up the stack.
    """

    def __init__(self, *, reloads: bool) -> None:
        self._caught = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if reloads else [])]
        self._come: dict[int, FrameType | None] = {}
        self.terms = 0
        self.interrupts = 0
        self.wants_reload = False

    def collect(self) -> None:
        """Count the signals received after the last call, each kind once, as the kernel does with pending signals."""
        while self._come:
            number, _ = self._come.popitem()
            self.terms += number == signal.SIGTERM
            self.interrupts += number == signal.SIGINT
            self.wants_reload |= number == signal.SIGHUP

    @contextlib.contextmanager
    def caught(self) -> Iterator[Signals]:
        """Catch the signals inside the block."""
        old = {number: signal.signal(number, self._come.__setitem__) for number in self._caught}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class UntilIdle:
    """Ends a run, as its `each_turn`, when the coordinator has been at rest for some seconds."""

    def __init__(self, coordinator: Coordinator, seconds: float) -> None:
        self._coordinator, self._seconds = coordinator, seconds
        self._since: float | None = None

    def __call__(self, now: float) -> bool:
        """Return whether the run is to end."""
        if not self._coordinator.is_at_rest:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        if now - self._since < self._seconds:
            return False
        logger.info("ending: nothing to do for %.0f s", self._seconds, extra={"action": "idle_ended"})
        return True


def run(
    coordinator: Coordinator,
    each_turn: Callable[[float], bool] | None = None,
    reread: Reread | None = None,
    *,
    shares_status: bool = False,
) -> bool:
    """Run until a signal or `each_turn` ends it.

    SIGTERM drains (requests in flight may finish, within `drain_seconds`); a second SIGTERM, or SIGINT, stops now.

    Args:
        each_turn: Called after every tick; True ends the run.
        reread: Reads the configuration again at SIGHUP; without it SIGHUP ends the process, as is its default.
        shares_status: Whether commands on other machines see the status, by a copy of it in the root.

    Returns:
        Whether `each_turn` ended the run, and not a signal.

    Raises:
        AlreadyRunningError, InputError: As `Coordinator.start`.
    """
    with coordinator.woken_by_signals(), Signals(reloads=reread is not None).caught() as signals:
        with shielded_start():
            coordinator.start(monotonic())
        reloader = Reloader(coordinator, reread) if reread is not None else None
        try:
            display = _Display(coordinator, takes_reloads=reloader is not None, shares_status=shares_status)
            is_done = _loop(coordinator, signals, each_turn, reloader, display)
            display.finish(monotonic())
            coordinator.clear_begun()  # the run ended in order, not by an error
            return is_done
        finally:
            notify(STOPPING=1)
            coordinator.stop()
            with contextlib.suppress(OSError):  # otherwise `obcd status` would show READY for some more seconds
                coordinator.layout.status.unlink()
            if shares_status:
                with contextlib.suppress(OSError):
                    coordinator.layout.shared_status.unlink()


def _loop(
    coordinator: Coordinator,
    signals: Signals,
    each_turn: Callable[[float], bool] | None,
    reloader: Reloader | None,
    display: _Display,
) -> bool:
    drain_until, beat = float("inf"), watchdog_interval()
    while True:
        now = monotonic()
        pause = coordinator.tick(now)
        coordinator.counters.on_tick(monotonic() - now)
        if each_turn is not None and each_turn(now):
            return True
        signals.collect()
        if signals.terms and not coordinator.is_draining:  # before a reload, which is then refused
            logger.info("draining: no new requests are sent", extra={"action": "draining"})
            coordinator.drain()
            drain_until = now + coordinator.settings.requests.drain_seconds
        if reloader is not None:
            if signals.wants_reload:
                signals.wants_reload = False  # first: a signal from here on requests another reload
                reloader.ask(now)
            pause = min(pause, reloader.tick(now))
        pause = min(pause, display.tick(now))
        if signals.interrupts or signals.terms > 1:
            coordinator.cancel_in_flight()
            return False
        if coordinator.is_draining and (now >= drain_until or not coordinator.in_flight):
            coordinator.cancel_in_flight()
            return False
        coordinator.wait(min(pause, beat or pause))


class _Display:
    """Reports the coordinator's state to systemd and `status.json` at intervals."""

    def __init__(self, coordinator: Coordinator, *, takes_reloads: bool, shares_status: bool) -> None:
        self._coordinator = coordinator
        self._takes_reloads = takes_reloads
        self._shared_at = -SHARED_SECONDS if shares_status else float("inf")
        self._shown_at, self._shown_revision = -SNAPSHOT_SECONDS, 0
        self._is_ready = self._is_broken = False
        self._has_watchdog = watchdog_interval() is not None

    def tick(self, now: float) -> float:
        """Write a snapshot if one is due; it is due sooner after a job or an endpoint changed.

        Returns:
            Seconds until the next one is due.
        """
        coordinator = self._coordinator
        if coordinator.is_recovered and not self._is_ready:
            self._is_ready = True
            notify(READY=1)
            self._shown_at = -SNAPSHOT_SECONDS
        revision = coordinator.revision
        pause = SNAPSHOT_SECONDS if revision == self._shown_revision else LEAST_SECONDS
        if now - self._shown_at < pause:
            return self._shown_at + pause - now
        self._shown_at, self._shown_revision = now, revision
        coordinator.counters_file.keep()
        view = coordinator.view(now, takes_reloads=self._takes_reloads)
        coordinator.history.tick(view, now)
        self._notify(view)
        self._write(self._coordinator.layout.status, view)
        if now - self._shared_at >= SHARED_SECONDS:
            self._shared_at = now
            self._write(self._coordinator.layout.shared_status, view)
        return SNAPSHOT_SECONDS

    def finish(self, now: float) -> None:
        """Complete the history: the loop has ended."""
        self._coordinator.history.finish(self._coordinator.view(now), now)

    def _notify(self, view: LiveView) -> None:
        coordinator = self._coordinator
        if self._has_watchdog:
            notify(WATCHDOG=1)
        if coordinator.is_draining or not coordinator.is_recovered:
            notify(EXTEND_TIMEOUT_USEC=PATIENCE_SECONDS * 1_000_000)
        notify(STATUS=status_line(view))

    def _write(self, path: Path, view: LiveView) -> None:
        """Write the snapshot; a failure is logged once and stops nothing."""
        try:
            disk.show_json(path, view.to_json())
        except OSError as error:
            if not self._is_broken:
                logger.warning("cannot write the status file: %s", error.strerror, extra={"action": "status_failed"})
            self._is_broken = True
        else:
            self._is_broken = False
