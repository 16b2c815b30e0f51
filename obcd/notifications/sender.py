"""Carry out the attempts in threads, one for each route at most, so that no receiver waits for another one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from obcd.config.notify_values import NotifyWays
from obcd.core.events import NotableEvent
from obcd.logs.setup import fault_text
from obcd.notifications.outgoing import Attempt, Outgoing
from obcd.notifications.sending import send
from obcd.notifications.ways import DeliveryError, Way

logger = logging.getLogger(__name__)

#: Seconds between two looks into the folder.
LOOK_SECONDS = 1.0
#: Most attempts at the same time.
MOST_THREADS = 8


class Sender:
    """Sends what `outgoing` says. One thread calls `turn` and waits on `fileno`.

    Args:
        send: Sends one event by one way, or raises DeliveryError.
    """

    def __init__(self, outgoing: Outgoing, send: Callable[[NotableEvent, Way, NotifyWays], None] = send) -> None:
        self.outgoing = outgoing
        self._send = send
        self._outcomes: SimpleQueue[tuple[Attempt, DeliveryError | None]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(MOST_THREADS, "send")
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return a descriptor that can be read when an attempt has ended."""
        return self._reader

    def turn(self, now: float, at: float) -> float:
        """Record the attempts that have ended, and begin those that are due.

        Args:
            now: Monotonic seconds.
            at: Unix seconds.

        Returns:
            Seconds until the next turn is due, unless an attempt ends before.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        with contextlib.suppress(Empty):
            while True:
                attempt, error = self._outcomes.get_nowait()
                self.outgoing.settle(attempt, error, now, at)
        self.outgoing.look()
        for attempt in self.outgoing.due(now):
            self._threads.submit(self._carry_out, attempt)
        next_due = self.outgoing.next_due()
        return LOOK_SECONDS if next_due is None else min(LOOK_SECONDS, max(0.0, next_due - now))

    def close(self) -> None:
        """Begin nothing more; attempts under way go on."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _carry_out(self, attempt: Attempt) -> None:
        error: DeliveryError | None = None
        try:
            self._send(attempt.event, attempt.way, attempt.ways)
        except DeliveryError as why:
            error = why
        except Exception as why:  # noqa: BLE001 - one attempt must not end the others; its text is obcd's alone
            error = DeliveryError(f"an unexpected error in obcd ({fault_text(why)})")
        self._outcomes.put((attempt, error))
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            os.write(self._writer, b".")
