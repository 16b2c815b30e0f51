"""Scan the hosts folder in a child process: a file server that hangs must stop no tick of the main loop.

    coordinator ──ScanHosts──► child ─► folder
                ◄─Scan / ScanFailed─

A scan that takes longer than `LIMIT_SECONDS` counts as failed. No second one is started beside it: on a file server
that hangs, processes that wait for it would pile up.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obcd.hosts.scan import OwnedRecord, Scan, Scanner
from obcd.logs.setup import fault_text
from obcd.workers.channel import Channel, ClosedError, exit_at_the_end_of
from obcd.workers.pool import Child, try_to_start

logger = logging.getLogger(__name__)

#: Seconds from the end of a scan to the beginning of the next one, and most seconds that a scan may take.
SCAN_SECONDS, LIMIT_SECONDS = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class ScanHosts:
    """Which folder is to be scanned, and the user ids whose records count."""

    folder: Path
    trusted: frozenset[int]


@dataclass(frozen=True, slots=True)
class ScanFailed:
    """The folder could not be read: the reason, for people."""

    reason: str


def run_scanner(sock: socket.socket) -> None:
    """Scan until the channel closes; the target of the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(sock)
    exit_at_the_end_of(channel)
    scanned: ScanHosts | None = None
    scanner = Scanner(Path(), frozenset())
    earlier: Mapping[str, OwnedRecord] = {}
    try:
        while True:
            select.select([channel], [], [])
            for wanted in channel.receive():
                if wanted != scanned:
                    scanned, earlier = wanted, {}
                    scanner = Scanner(wanted.folder, wanted.trusted)
                outcome = _scan(scanner)
                if isinstance(outcome, ScanFailed):
                    channel.send(outcome)
                else:
                    channel.send(outcome.since(earlier))
                    earlier = outcome.found
    except ClosedError:
        return


def _scan(scanner: Scanner) -> Scan | ScanFailed:
    try:
        return scanner.scan()
    except OSError as error:
        return ScanFailed(error.strerror or type(error).__name__)
    except Exception as error:  # noqa: BLE001 - untrusted input: the coordinator goes on with what it knows
        return ScanFailed(f"an unexpected error in obcd ({fault_text(error)})")


def _start() -> Child | None:
    return try_to_start("host scanner", run_scanner)


class HostScanner:
    """The coordinator's side of the child. Main thread only; `now` is in monotonic seconds.

    Args:
        start: Starts the child; None if the machine refuses.
    """

    def __init__(self, start: Callable[[], Any] = _start) -> None:
        self._start = start
        self._child: Any = None
        #: When the scan under way began; None if there is no scan.
        self._began: float | None = None
        self._is_late = False
        self._due = 0.0
        self._last: ScanHosts | None = None
        #: The records as of the child's last answer: it sends those that have changed.
        self._earlier: Mapping[str, OwnedRecord] = {}

    @property
    def pid(self) -> int | None:
        """The child's process id, None while it does not run."""
        return self._child.pid if self._child is not None else None

    def filenos(self) -> list[int]:
        """Return the descriptors to wait on."""
        return [self._child.channel.fileno()] if self._child is not None else []

    def next_due(self) -> float:
        """Return when `tick` has to be called again, unless the child answers before."""
        if self._began is None:
            return self._due
        return self._due if self._is_late else self._began + LIMIT_SECONDS

    def tick(self, wanted: ScanHosts, now: float, readable: Collection[int] | None = None) -> Scan | ScanFailed | None:
        """Return the outcome of a scan that ended or took too long, else None; start a scan that is due.

        Args:
            readable: Descriptors that can be read; None: not known.
        """
        found = self._receive(wanted, now, readable)
        if self._began is None:
            if now >= self._due:
                found = self._ask(wanted, now) or found
        elif not self._is_late and now - self._began >= LIMIT_SECONDS:
            self._is_late, self._due = True, now + LIMIT_SECONDS
            found = ScanFailed(f"it does not answer within {LIMIT_SECONDS:.0f} s")
        elif self._is_late and now >= self._due:
            self._due = now + LIMIT_SECONDS
            if self._child.is_stopped:  # from outside: it would never answer
                self._give_up(now)
        return found

    def stop(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _receive(self, wanted: ScanHosts, now: float, readable: Collection[int] | None) -> Scan | ScanFailed | None:
        child = self._child
        if child is None or (readable is not None and child.channel.fileno() not in readable):
            return None
        outcomes: list[Scan | ScanFailed]
        try:
            outcomes = child.channel.receive()
        except ClosedError:
            self._give_up(now)
            return ScanFailed("the process that reads it has ended")
        if not outcomes:
            return None
        is_valid = not self._is_late and wanted == self._last  # else it is from before a hang, or of another folder
        self._began, self._is_late, self._due = None, False, now + SCAN_SECONDS if is_valid else now
        (found,) = outcomes  # one answer to each request
        if isinstance(found, Scan):
            found = found.completed(self._earlier)
            self._earlier = found.found
        return found if is_valid else None

    def _ask(self, wanted: ScanHosts, now: float) -> ScanFailed | None:
        self._due = now + SCAN_SECONDS
        if self._child is None:
            self._child = self._start()
        if self._child is None:
            return ScanFailed("the process that reads it cannot be started")
        try:
            self._child.channel.send(wanted)
        except ClosedError:
            self._give_up(now)
            return ScanFailed("the process that reads it has ended")
        self._began, self._is_late, self._last = now, False, wanted
        return None

    def _give_up(self, now: float) -> None:
        self.stop()
        self._began, self._is_late, self._due = None, False, now + SCAN_SECONDS
