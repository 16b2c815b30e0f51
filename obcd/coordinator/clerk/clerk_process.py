"""The clerk: a child process for long work and for untrusted input; its crash does no harm.

    coordinator ──ClerkCall──────────► clerk
                ◄─its result / CallFailed─

A clerk executes one call at a time, in order. A clerk that dies is replaced and its call is repeated, until
`MAX_DEATHS` clerks have died of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from obcd.coordinator.clerk.calls import CallFailed, ClerkCall, Result
from obcd.errors import ObcdError
from obcd.logs.setup import fault_text, set_up_logging
from obcd.spool.folders.disk_space import FULL
from obcd.spool.folders.layout import Layout
from obcd.workers.channel import Channel, ClosedError, exit_at_the_end_of
from obcd.workers.pool import REFUSED_SECONDS, Child, try_to_start

logger = logging.getLogger(__name__)

#: A call fails when so many clerks have died during it.
MAX_DEATHS = 3
#: The niceness of clerks: where processors are scarce a file can wait, but a free slot should not.
NICENESS = 10


def run_clerk(sock: socket.socket, layout: Layout) -> None:
    """Run a clerk until the channel closes; the target of the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a unit may forbid it
        os.nice(NICENESS)
    set_up_logging()
    channel = Channel(sock)
    exit_at_the_end_of(channel)  # the next coordinator repeats a call that is under way
    try:
        while True:
            select.select([channel], [], [])
            for call in channel.receive():
                channel.send(_carry_out(call, layout))
    except ClosedError:
        return


def _carry_out(call: ClerkCall[Result], layout: Layout) -> Result | CallFailed:
    try:
        return call.run(layout)
    except OSError as error:
        reason = f"{error.strerror} ({error.filename or layout.root})"
        return CallFailed(reason, is_disk=True, is_full=error.errno in FULL)
    except ObcdError as error:
        return CallFailed(str(error))
    except MemoryError:  # no verdict on the file: the next clerk has its own memory
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - reported, and the coordinator decides; its text may quote a prompt
        text = fault_text(error)
        logger.error("clerk: %s failed: %s", type(call).__name__, text, extra={"action": "clerk_failed"})  # noqa: TRY400
        return CallFailed(text)


@dataclass(slots=True)
class _Errand:
    call: ClerkCall[Any]
    then: Callable[[Any], None]  # takes the call's own type of result
    deaths: int = 0


@dataclass(slots=True)
class Clerk:
    """The coordinator's side of one clerk. Main thread only; `now` is in monotonic seconds."""

    name: str
    layout: Layout
    _errands: deque[_Errand] = field(default_factory=deque)
    _child: Child | None = None
    #: When a start that the machine refused is retried; None: it was refused after the last `tick`, or never.
    _retry_at: float | None = None

    def submit(self, call: ClerkCall[Result], then: Callable[[Result | CallFailed], None]) -> None:
        """Queue a call; `tick` calls `then` with its outcome."""
        self._errands.append(_Errand(call, then))
        if len(self._errands) == 1:
            self._send()

    @property
    def pending(self) -> int:
        """The number of calls that are not done yet."""
        return len(self._errands)

    def fileno(self) -> int | None:
        """Return the descriptor to wait on, None while no clerk runs."""
        return self._child.channel.fileno() if self._child is not None else None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while none runs."""
        return self._child.pid if self._child is not None else None

    def tick(self, now: float, readable: Collection[int] | None = None) -> None:
        """Receive the clerk's outcomes, or retry a start that was refused.

        Args:
            readable: Descriptors that can be read; if the clerk's is not among them, it sent nothing. None: not known.
        """
        child = self._child
        if child is None:
            if self._errands:
                self._start_again(now)
        elif readable is None or child.channel.wants_write or child.channel.fileno() in readable:
            self._receive(child)

    def _start_again(self, now: float) -> None:
        if self._retry_at is None:
            self._retry_at = now + REFUSED_SECONDS
        elif now >= self._retry_at:
            self._retry_at = None
            self._send()

    def _receive(self, child: Child) -> None:
        try:
            outcomes = child.channel.receive()
        except ClosedError:
            self._replace()
            return
        for outcome in outcomes:
            errand = self._errands.popleft()
            if self._errands:
                self._send()
            errand.then(outcome)

    def replace_stopped(self) -> None:
        """Replace a clerk that was stopped from outside (SIGSTOP): another clerk repeats its call."""
        if self._child is not None and self._errands and self._child.is_stopped:
            self._replace()

    def stop(self) -> None:
        """Stop the clerk; the next coordinator repeats a call that is under way."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _send(self) -> None:
        if self._child is None:
            self._child = try_to_start(f"clerk {self.name}", run_clerk, self.layout)
        if self._child is None:
            return  # `tick` retries after a pause
        try:
            self._child.channel.send(self._errands[0].call)
        except ClosedError:
            self._replace()

    def _replace(self) -> None:
        self.stop()
        if not self._errands:
            return
        errand = self._errands[0]
        errand.deaths += 1
        logger.warning("the clerk died during %s", type(errand.call).__name__, extra={"action": "clerk_died"})
        if errand.deaths < MAX_DEATHS:
            self._send()
            return
        self._errands.popleft()
        if self._errands:
            self._send()
        errand.then(CallFailed(f"obcd's clerk died {MAX_DEATHS} times during this"))
