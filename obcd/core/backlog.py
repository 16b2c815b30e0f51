"""One job's requests that still need a result: which wait, which are in flight, which are done. Pure.

Requests are numbered by **ordinal**: 0 is the job's first non-blank line. One byte each, so that a job of a million
lines costs a megabyte; what they say stays on disk.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from obcd.core.records import Signature

#: States of one request; PENDING waits for a slot, WAITING for its back-off.
PENDING, LEASED, WAITING, ENDED = 0, 1, 2, 3


class Backlog:
    """The requests of one job.

    Args:
        job: The job's id.
        done: One byte per ordinal: nonzero where the ledger holds a result.
        signatures: What the requests need loaded, most often one entry.
        column: One byte per ordinal, the number of its signature; empty when there is one signature only.
        priority: Higher is served first.
    """

    def __init__(
        self, job: str, done: bytes, signatures: Sequence[Signature], column: bytes = b"", priority: int = 0
    ) -> None:
        self.job = job
        self.priority = priority
        self.signatures = tuple(signatures)
        self._column = column
        self._states = bytearray(ENDED if flag else PENDING for flag in done) if any(done) else bytearray(len(done))
        self._cursors = [0] * len(self.signatures)
        #: {signature number: [(due, ordinal), …] as a heap}
        self._waiting: dict[int, list[tuple[float, int]]] = {}
        #: {ordinal: attempts that counted so far}; only for requests that failed once
        self.attempts: dict[int, int] = {}
        #: {ordinal: endpoints that failed it}
        self.failed_on: dict[int, set[str]] = {}
        self.unfinished = self._states.count(PENDING)

    def __len__(self) -> int:
        return len(self._states)

    def signature_number(self, ordinal: int) -> int:
        """Return which of `signatures` a request needs."""
        return self._column[ordinal] if self._column else 0

    def has_ready(self, number: int, now: float) -> bool:
        """Tell whether a request of this signature could be leased now."""
        waiting = self._waiting.get(number)
        return bool(waiting and waiting[0][0] <= now) or self._find_pending(number) is not None

    def next_due(self) -> float | None:
        """Return when the first request in back-off is due, or None."""
        return min((heap[0][0] for heap in self._waiting.values() if heap), default=None)

    def lease(self, number: int, endpoint: str, others: bool, now: float) -> int | None:
        """Take a request of signature `number` for `endpoint`.

        Args:
            others: Whether another endpoint could take what failed here before; then it is left for that one.

        Returns:
            Its ordinal, now LEASED; None when there is none for this endpoint.
        """
        ordinal = self._lease_due(number, endpoint, others, now)
        if ordinal is None:
            ordinal = self._find_pending(number)
        if ordinal is not None:
            self._states[ordinal] = LEASED
        return ordinal

    def release(self, ordinal: int) -> None:
        """Give a leased request back, to be taken next; nothing was learned about it."""
        self._states[ordinal] = PENDING
        number = self.signature_number(ordinal)
        self._cursors[number] = min(self._cursors[number], ordinal)

    def postpone(self, ordinal: int, due: float) -> None:
        """Let a leased request wait until `due`."""
        self._states[ordinal] = WAITING
        heapq.heappush(self._waiting.setdefault(self.signature_number(ordinal), []), (due, ordinal))

    def end(self, ordinal: int) -> None:
        """Take note that a request has its result (not yet that the result is on disk)."""
        if self._states[ordinal] != ENDED:
            self._states[ordinal] = ENDED
            self.unfinished -= 1
            self.attempts.pop(ordinal, None)
            self.failed_on.pop(ordinal, None)

    def take_unservable(self, number: int, limit: int, now: float) -> list[int]:
        """Lease up to `limit` requests of a signature that no endpoint can load, for their failure."""
        taken: list[int] = []
        while len(taken) < limit and (ordinal := self.lease(number, "", others=False, now=now)) is not None:
            taken.append(ordinal)
        return taken

    def _lease_due(self, number: int, endpoint: str, others: bool, now: float) -> int | None:
        heap = self._waiting.get(number)
        if not heap or heap[0][0] > now:
            return None
        passed: list[tuple[float, int]] = []
        found = None
        while heap and heap[0][0] <= now and found is None:
            due, ordinal = heapq.heappop(heap)
            if others and endpoint in self.failed_on.get(ordinal, ()):
                passed.append((due, ordinal))
            else:
                found = ordinal
        for entry in passed:
            heapq.heappush(heap, entry)
        return found

    def _find_pending(self, number: int) -> int | None:
        position = self._cursors[number]
        if not self._column:
            position = self._states.find(PENDING, position)
        else:
            position = self._column.find(number, position)
            while position >= 0 and self._states[position] != PENDING:
                position = self._column.find(number, position + 1)
        self._cursors[number] = len(self._states) if position < 0 else position
        return None if position < 0 else position
