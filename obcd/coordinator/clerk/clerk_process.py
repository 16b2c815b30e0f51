"""The clerk: a child process for what is long or touches strangers' bytes; it may crash without harm.

    coordinator ──Call(name, arguments)──► clerk
                ◄─Done(value) / Failed────

One call at a time, in order. A clerk that dies is replaced and its call made again, at most `MAX_DEATHS` times.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from obcd.clock import monotonic
from obcd.errors import ObcdError
from obcd.logs.setup import fault_text, set_up_logging
from obcd.spool.folders.disk_space import FULL
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox import control
from obcd.spool.intake import acceptance, reading, recovery
from obcd.spool.job import crash_count
from obcd.spool.outbox import publication, retention
from obcd.workers.channel import Channel, ClosedError
from obcd.workers.pool import REFUSED_SECONDS, Child, try_to_start

logger = logging.getLogger(__name__)

MAX_DEATHS = 3


def _acquit(layout: Layout, job: str) -> None:
    crash_count.acquit(layout.jobs / job)


def _release(layout: Layout, job: str) -> None:
    crash_count.release(layout.jobs / job)


#: How far clerks stand back where processors are scarce: a file can wait, a slot that is free should not.
NICENESS = 10
#: What a clerk can be asked: {name: function(layout, *arguments)}.
WORK: dict[str, Callable[..., Any]] = {
    "recover": recovery.recover,
    "load_job": recovery.load_job,
    "begin_job": recovery.begin_job,
    "acquit": _acquit,
    "release": _release,
    "accept": acceptance.accept,
    "accept_claimed": acceptance.accept_claimed,
    "reject_claimed": acceptance.reject_claimed,
    "accept_copy": acceptance.accept_copy,
    "publish": publication.publish,
    "bind": control.bind,
    "sweep": retention.sweep,
}


@dataclass(frozen=True, slots=True)
class Call:
    """Coordinator → clerk."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class CallDone:
    """Clerk → coordinator: the function returned this."""

    value: Any


@dataclass(frozen=True, slots=True)
class CallFailed:
    """Clerk → coordinator: the function raised.

    Attributes:
        reason: For people; an exception's own text only where it is the operating system's.
        is_disk: The operating system refused (full, read-only, gone): the same call may succeed later.
        is_full: It did so for want of room.
        is_rejected: The file can never become a job.
    """

    reason: str
    is_disk: bool = False
    is_full: bool = False
    is_rejected: bool = False
    died: bool = False


def run_clerk(sock: socket.socket, layout: Layout) -> None:
    """Be a clerk until the channel closes; the target of the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a unit may forbid it
        os.nice(NICENESS)
    set_up_logging()
    channel = Channel(sock)
    threading.Thread(target=_end_with_the_coordinator, args=(channel,), daemon=True).start()
    try:
        while True:
            select.select([channel], [], [])
            for call in channel.receive():
                channel.send(_carry_out(call, layout))
    except ClosedError:
        return


def _end_with_the_coordinator(channel: Channel) -> None:
    """End in the middle of a call when nobody waits for it any more: the next coordinator makes it again."""
    poll = select.poll()
    poll.register(channel, 0)  # only that the other end is gone, which is always told
    poll.poll()
    os._exit(1)


def _carry_out(call: Call, layout: Layout) -> CallDone | CallFailed:
    try:
        return CallDone(WORK[call.name](layout, *call.arguments))
    except reading.RejectedError as error:
        return CallFailed(str(error), is_rejected=True)
    except ObcdError as error:
        return CallFailed(str(error))
    except OSError as error:
        reason = f"{error.strerror} ({error.filename or layout.root})"
        return CallFailed(reason, is_disk=True, is_full=error.errno in FULL)
    except MemoryError:  # no verdict on the file: the next clerk has memory of its own
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - reported, and the coordinator decides; its text may quote a prompt
        logger.error("clerk: %s failed: %s", call.name, fault_text(error), extra={"action": "clerk_failed"})  # noqa: TRY400
        return CallFailed(fault_text(error))


@dataclass(slots=True)
class _Errand:
    call: Call
    then: Callable[[CallDone | CallFailed], None]
    deaths: int = 0


@dataclass(slots=True)
class Clerk:
    """The coordinator's side of one clerk. Main thread only."""

    name: str
    layout: Layout
    _errands: deque[_Errand] = field(default_factory=deque)
    _child: Child | None = None
    #: When a start is tried again that the machine refused.
    _retry_at: float = 0.0

    def ask(self, then: Callable[[CallDone | CallFailed], None], name: str, *arguments: Any) -> None:
        """Queue a call; `then` is called from `receive` with what came of it."""
        self._errands.append(_Errand(Call(name, arguments), then))
        if len(self._errands) == 1:
            self._send()

    @property
    def pending(self) -> int:
        """How many calls are not done yet."""
        return len(self._errands)

    def fileno(self) -> int | None:
        """Return the descriptor to wait on, None while no clerk runs."""
        return self._child.channel.fileno() if self._child is not None else None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while none runs."""
        return self._child.pid if self._child is not None else None

    def tick(self, readable: Collection[int]) -> None:
        """Take what the clerk said, if its descriptor is one of these, or try again a start that was refused."""
        if self._child is None or self._child.channel.wants_write or self._child.channel.fileno() in readable:
            self.receive()

    def receive(self) -> None:
        """Take what the clerk said by now."""
        if self._child is None:
            if self._errands and monotonic() >= self._retry_at:
                self._send()
            return
        try:
            outcomes = self._child.channel.receive()
        except ClosedError:
            self._replace()
            return
        for outcome in outcomes:
            errand = self._errands.popleft()
            if self._errands:
                self._send()
            errand.then(outcome)

    def replace_stopped(self) -> None:
        """Replace a clerk that somebody stopped (SIGSTOP): its call is made again by another one."""
        if self._child is not None and self._errands and self._child.is_stopped:
            self._replace()

    def stop(self) -> None:
        """End the clerk; a call that it is at is made again by the next coordinator."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _send(self) -> None:
        if self._child is None:
            self._child = try_to_start(f"clerk {self.name}", run_clerk, self.layout)
        if self._child is None:
            self._retry_at = monotonic() + REFUSED_SECONDS
            return
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
        logger.warning("the clerk died at %s", errand.call.name, extra={"action": "clerk_died"})
        if errand.deaths < MAX_DEATHS:
            self._send()
            return
        self._errands.popleft()
        if self._errands:
            self._send()
        errand.then(CallFailed(f"obcd's clerk died {MAX_DEATHS} times over it", died=True))
