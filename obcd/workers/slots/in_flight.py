"""The request that one slot has in flight: which tickets still want it, and when its time is over."""

from __future__ import annotations

import threading
from collections.abc import Collection, Set

from obcd.clock import monotonic
from obcd.ollama.client import HUNG, TIMED_OUT
from obcd.ollama.transport import Transport


class InFlight:
    """One request or group at a time; the slot's thread begins and ends it, the threads of the worker may cancel it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        #: Those of its tickets that were not cancelled: a group has several.
        self._wanted: set[int] = set()
        #: Whether its request was cancelled because it took too long.
        self._is_overdue = False
        #: Whether its request is at the server.
        self.is_sent = False
        self.limit: float | None = None  # monotonic seconds; read by the main thread

    def begin(self, tickets: Collection[int], withdrawn: Set[int]) -> None:
        """Begin a request; it is cancelled at once if all its tickets were withdrawn while it waited for a slot."""
        with self._lock:
            self._is_overdue = False
            self._transport.arm()
            self._wanted = {ticket for ticket in tickets if ticket not in withdrawn}
            if not self._wanted:
                self._transport.abort("cancelled")

    def end(self) -> None:
        """End the request: nothing cancels it any more."""
        with self._lock:
            self.limit = None
            self._wanted = set()
            self.is_sent = False

    def is_wanted(self, ticket: int) -> bool:
        """Return whether a ticket of this request was not cancelled."""
        return ticket in self._wanted

    def stop_clock(self) -> bool:
        """Lift the time limit, because the exchange is over; return whether it was cancelled for taking too long."""
        with self._lock:
            self.limit = None
            return self._is_overdue

    def extend(self, took: float, seconds: float, last: float) -> bool:
        """Give a repair its own time limit, within the limit of the whole request; return whether it has time.

        Args:
            took: Seconds that the previous response took; if fewer are left, the repair is not started.
            seconds: How long one request may take.
            last: When the whole request must have ended, in monotonic seconds.
        """
        now = monotonic()
        if now + took >= last:
            return False
        with self._lock:
            if self.limit is not None:  # otherwise it was cancelled just now
                self.limit = min(last, now + seconds)
        return True

    def cancel(self, ticket: int, *, is_overdue: bool) -> None:
        """Cancel the request if the ticket is its own; a group goes on for the others until all are cancelled."""
        with self._lock:
            if ticket in self._wanted:
                self._wanted.remove(ticket)
                if not self._wanted:
                    self._is_overdue = is_overdue
                    self._transport.abort("cancelled")

    def break_off(self) -> None:
        """Cancel the request at the server, which hangs."""
        with self._lock:
            if self.is_sent:
                self._transport.abort(HUNG)

    def enforce_limit(self, now: float) -> None:
        """Cancel the request if its time limit is over."""
        limit = self.limit
        if limit is None or now < limit:  # the usual case: all slots are checked at every message
            return
        with self._lock:
            if self.limit is not None and now >= self.limit:
                self.limit = None
                self._is_overdue = True
                self._transport.abort(TIMED_OUT)
