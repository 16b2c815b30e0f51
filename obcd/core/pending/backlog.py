"""The requests of one job without a result: which wait, which are in flight, which have ended. Pure.

Requests are numbered by **ordinal**: 0 is the job's first non-blank line. Each takes one byte, so a job of a million
lines takes a megabyte; the requests themselves stay on disk.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from obcd.core.pending import lanes as lane_rules
from obcd.core.pending.fair_share import COMMON, Rank
from obcd.core.pending.lanes import LaneIndex, Lanes
from obcd.core.pending.longest_first import LongestFirst
from obcd.core.request.records import Signature

#: States of one request, beside those of `lanes`; PENDING waits for a slot, WAITING for its back-off.
PENDING, LEASED, WAITING, ENDED = 0, 1, 2, lane_rules.ENDED
#: Seconds after its back-off that a request waits for an endpoint that has not failed it; then any may take it, so that
#: it does not wait for hours for one that is busy with other work.
ELSEWHERE_SECONDS = 30.0

#: Returns whether a request that failed before may be sent to the endpoint in question now.
Admits = Callable[[int], bool]


class Backlog:
    """The requests of one job.

    Args:
        job: The job's id.
        done: One byte per ordinal: nonzero if the ledger holds a result.
        signatures: The signatures of the requests, usually one entry.
        column: One byte per ordinal, the number of its signature; empty if there is only one signature.
        larger: {number of a signature: number of the same with a larger context}. Requests for the larger context are
            leased in one pass, when none waits for the other any more: else an endpoint would load the model for each.
        sizes: One byte per ordinal, the size of its line (see `longest_first`); empty if sizes are not used.
        limit: Most attempts of one request.
        submitter: The uid of the submitter: submitters take turns.
        rank: Its priority at the start.
        lanes: The requests that share a long beginning, None if there are none.
    """

    def __init__(  # noqa: PLR0913 - the initial state of a job
        self,
        job: str,
        done: bytes,
        signatures: Sequence[Signature],
        column: bytes = b"",
        *,
        larger: Mapping[int, int] | None = None,
        sizes: bytes = b"",
        lanes: LaneIndex | None = None,
        limit: int,
        submitter: int = 0,
        rank: Rank = COMMON,
    ) -> None:
        self.job = job
        self.limit = limit
        self.submitter = submitter
        self.rank = rank
        #: {model: digest that answers it} for models that got a request; None: any weights may (see `weights`).
        self.weights: dict[str, str] | None = {}
        #: Nothing of the job is leased while this is set; requests in flight finish.
        self.is_paused = False
        #: When the window of the job closes, as in `Holder`.
        self.closes_at: float | None = None
        #: Whether texts for vectors may go out in one call with others; its reply has one count of tokens for all.
        self.may_share = True
        #: Whether the cache of answers may know the requests.
        self.has_cache = False
        self.signatures = tuple(signatures)
        self._column = bytearray(column)
        self._larger = dict(larger or {})
        #: {signature number: the one whose requests are all leased before its own}
        self._behind = {number: first for first, number in self._larger.items()}
        self._states = bytearray(done.translate(bytes([PENDING]) + bytes([ENDED]) * 255))  # fast: the main loop waits
        self._sizes, self._longest_first = sizes, LongestFirst() if sizes else None
        #: {signature number: ordinals that are leased before the others, from the end}, once long ones come first
        self._ahead: dict[int, list[int]] = {}
        self._cursors = [0] * len(self.signatures)
        #: {signature number: [(due, ordinal), …] as a heap}, requests in back-off
        self._waiting: dict[int, list[tuple[float, int]]] = {}
        #: {signature number: [(due, ordinal), …] in that order}, requests whose back-off is over
        self._due: dict[int, list[tuple[float, int]]] = {}
        #: {ordinal: attempts that counted so far}; only for requests that have failed
        self.attempts: dict[int, int] = {}
        #: {ordinal: endpoints that failed it}
        self.failed_on: dict[int, set[str]] = {}
        self.unfinished = self._states.count(PENDING)
        if lanes is not None and not lanes.states:
            lanes = lanes.prepare(done, column)
        self._lanes = Lanes(lanes) if lanes is not None else None
        if lanes is not None:
            self._states[:] = lanes.states

    def __len__(self) -> int:
        return len(self._states)

    @property
    def is_at_rest(self) -> bool:
        """Whether none of its requests may be leased: it is paused, or waits for its window."""
        return self.is_paused or self.closes_at == -math.inf

    def count_unended(self, sizes: bytes) -> Counter[int]:
        """Return `{size: requests without a result}`; size 0 for all if `sizes` is empty. Fast: the main loop waits.

        Args:
            sizes: One byte per ordinal, below 128.
        """
        if not sizes:
            return Counter({0: self.unfinished})
        ended = bytes(128 if state == ENDED else 0 for state in range(256))
        marks = int.from_bytes(self._states.translate(ended)) | int.from_bytes(sizes)  # all bytes at once
        return Counter({size: count for size, count in Counter(marks.to_bytes(len(sizes))).items() if size < 128})

    def signature_number(self, ordinal: int) -> int:
        """Return the number of a request's signature in `signatures`."""
        return self._column[ordinal] if self._column else 0

    def signature_of(self, ordinal: int) -> Signature:
        """Return the signature of a request."""
        return self.signatures[self.signature_number(ordinal)]

    def has_retries(self, number: int) -> bool:
        """Return whether a request of this signature waits for another attempt, due or not."""
        return bool(self._waiting.get(number) or self._due.get(number))

    def has_unleased(self, number: int) -> bool:
        """Return whether a request of this signature has not ended and is not in flight."""
        if self.has_retries(number) or self._find_pending(number) is not None:
            return True
        return self._lanes is not None and self._lanes.has_pending(number)

    @property
    def puts_longest_first(self) -> bool:
        """Whether long lines have proved to take long, and are sent first."""
        return bool(self._ahead)

    @property
    def is_laned(self) -> bool:
        """Whether it has lanes."""
        return self._lanes is not None

    def has_lanes(self, number: int) -> bool:
        """Return whether a request of this signature waits in a lane."""
        return self._lanes is not None and self._lanes.has_pending(number)

    def keeps_slot(self, number: int, endpoint: str) -> bool:
        """Return whether a slot that was freed at an endpoint has the beginning of a request which waits."""
        return self._lanes is not None and self._lanes.goes_on(number, endpoint)

    def beginning(self, ordinal: int) -> tuple[float, float]:
        """Return the seconds that evaluating a shared beginning takes for a request in flight: there, and elsewhere."""
        return self._lanes.beginning(ordinal) if self._lanes is not None else (0.0, 0.0)

    def has_ready(
        self, number: int, endpoint: str, able: AbstractSet[str], now: float, admits: Admits | None = None
    ) -> bool:
        """Return whether `lease` with the same arguments would find a request."""
        if self._is_held_back(number):
            return False
        if self._find_pending(number) is not None or self._find_due(number, endpoint, able, now, admits) is not None:
            return True
        return self._lanes is not None and self._lanes.find(number, endpoint, None, now) is not None

    def next_due(self, now: float) -> float | None:
        """Return when the next back-off ends, after `now`; requests that are due wait for an endpoint, not for time."""
        self._note_due(now)
        dues = [heap[0][0] for heap in self._waiting.values() if heap]
        if self._lanes is not None and (due := self._lanes.next_due()) is not None:
            dues.append(due)
        return min(dues, default=None)

    def lease(
        self, number: int, endpoint: str, able: AbstractSet[str], now: float, admits: Admits | None = None
    ) -> int | None:
        """Take a request of signature `number` for `endpoint`.

        Args:
            able: The endpoints that serve this signature now; a request that failed here before is left for a while to
                one of them that has not failed it.
            admits: Which requests that failed before may be taken; None admits all.

        Returns:
            Its ordinal, now LEASED; None if there is none for this endpoint.
        """
        if self._is_held_back(number):
            return None
        place = self._find_due(number, endpoint, able, now, admits)
        ordinal = self._find_pending(number) if place is None else self._due[number].pop(place)[1]
        if self._lanes is not None and place is not None and ordinal is not None:
            self._lanes.lease_again(ordinal, endpoint)
        elif self._lanes is not None:
            ordinal = self._lease_of_lane(self._lanes, number, endpoint, ordinal, now)
        if ordinal is not None:
            self._states[ordinal] = LEASED
        return ordinal

    def _lease_of_lane(self, lanes: Lanes, number: int, endpoint: str, other: int | None, now: float) -> int | None:
        """Return the next request of a lane, or `other` if that comes first."""
        # If the longest requests without a lane come first, they come after the lanes, and fill the slots at the end.
        is_sorted = other is not None and bool(self._ahead.get(number))
        lane = lanes.find(number, endpoint, len(self) if is_sorted else other, now)
        return lanes.lease(lane, endpoint) if lane is not None else other

    def lease_due(self, ordinal: int, wait: float, now: float, *, only_look: bool = False) -> bool:
        """Lease one request if its back-off has been over for `wait` seconds; return whether it has.

        Args:
            only_look: Do not lease it.
        """
        self._note_due(now)
        entries = self._due.get(self.signature_number(ordinal), [])
        entry = next((entry for entry in entries if entry[1] == ordinal and now - entry[0] >= wait), None)
        if entry is None or self._states[ordinal] != WAITING:
            return False
        if not only_look:
            entries.remove(entry)
            self._states[ordinal] = LEASED
        return True

    def enlarge(self, ordinal: int, needs: int, now: float) -> bool:
        """Let a leased request wait for the larger context of its model, together with others that need it.

        Args:
            needs: The context length that it needs, in tokens.

        Returns:
            Whether a context of that length exists; otherwise nothing has changed.
        """
        number = self._larger.get(self.signature_number(ordinal))
        if number is None or needs > self.signatures[number].num_ctx:
            return False
        if self._lanes is not None:
            self._lanes.release(ordinal, is_over=True)
        self._column[ordinal] = number
        self.postpone(ordinal, now)
        return True

    def postpone(self, ordinal: int, due: float) -> None:
        """Let a leased request wait until `due`."""
        if self._lanes is not None:
            self._lanes.release(ordinal, is_over=False)
        self._states[ordinal] = WAITING
        heapq.heappush(self._waiting.setdefault(self.signature_number(ordinal), []), (due, ordinal))

    def on_failed_on(self, ordinal: int, endpoint: str, able: AbstractSet[str]) -> bool:
        """Record that an endpoint failed a request; return whether one of `able` has not failed it yet.

        If all have, the failures of all but this one are forgotten: the round begins again.
        """
        failed = self.failed_on.setdefault(ordinal, set())
        failed.add(endpoint)
        if able - failed:
            return True
        self.failed_on[ordinal] = {endpoint}
        return False

    def on_answer(self, ordinal: int, seconds: float, endpoint: str = "") -> None:
        """Learn from the time of an answer: if times go with the lengths of lines, long lines come first.

        This changes only the order of waiting requests of this job, and only once; other jobs are not affected.
        """
        is_of_lane = self._lanes is not None and self._lanes.on_answer(ordinal, endpoint, seconds)
        if self._longest_first is None or is_of_lane:
            return
        self._longest_first.note(self._sizes[ordinal], seconds)
        if self._longest_first.take_look():
            self._longest_first = None
            for other in sorted(range(len(self) - 1, -1, -1), key=self._sizes.__getitem__):
                if self._states[other] == PENDING:
                    self._ahead.setdefault(self.signature_number(other), []).append(other)

    def end(self, ordinal: int) -> None:
        """Record that a request has its result (not yet that the result is on disk)."""
        if self._states[ordinal] != ENDED:
            self._states[ordinal] = ENDED
            if self._lanes is not None:
                self._lanes.release(ordinal, is_over=True)
            self.unfinished -= 1
            self.attempts.pop(ordinal, None)
            self.failed_on.pop(ordinal, None)

    def take_unservable(self, number: int, limit: int, now: float) -> list[int]:
        """Lease up to `limit` requests of a signature that no endpoint can load, to fail them."""
        taken: list[int] = []
        while len(taken) < limit and (ordinal := self._take_any(number, now)) is not None:
            self._states[ordinal] = LEASED
            taken.append(ordinal)
        return taken

    def _take_any(self, number: int, now: float) -> int | None:
        """Return a request of a signature, taken out of those that are due again and out of its lane."""
        if self._is_held_back(number):
            return None
        place = self._find_due(number, "", frozenset(), now, None)
        if place is not None:
            return self._due[number].pop(place)[1]
        ordinal = self._find_pending(number)
        return self._lanes.take_any(number) if ordinal is None and self._lanes is not None else ordinal

    def _note_due(self, now: float) -> None:
        """Move requests that have waited long enough from `_waiting` to `_due`."""
        for number, heap in self._waiting.items():
            while heap and heap[0][0] <= now:
                entry = heapq.heappop(heap)
                self._due.setdefault(number, []).append(entry)

    def _find_due(
        self, number: int, endpoint: str, able: AbstractSet[str], now: float, admits: Admits | None
    ) -> int | None:
        """Return the place in `_due` of the first request that `endpoint` may take."""
        self._note_due(now)
        for place, (due, ordinal) in enumerate(self._due.get(number, ())):
            if self._states[ordinal] != WAITING or (admits is not None and not admits(ordinal)):
                continue  # it ended while it waited, or may not be sent beside the requests in flight there
            failed: AbstractSet[str] = self.failed_on.get(ordinal, frozenset())
            others = able - failed
            if now - due >= ELSEWHERE_SECONDS or not others:
                return place
            if endpoint not in failed and not self._is_meant_for(others, ordinal, endpoint):
                return place
        return None

    def _is_meant_for(self, others: AbstractSet[str], ordinal: int, endpoint: str) -> bool:
        """Return whether a request waits for one of `others`, which has the beginning of its lane."""
        homes = self._lanes.homes_of(ordinal) if self._lanes is not None else frozenset[str]()
        return endpoint not in homes and not others.isdisjoint(homes)

    def _is_held_back(self, number: int) -> bool:
        """Return whether others come first; once all of those were leased, this is never so again.

        Otherwise a request of those that comes back would make an endpoint switch to and fro.
        """
        first = self._behind.get(number)
        if first is not None and self._find_pending(first) is None and not self.has_lanes(first):
            del self._behind[number]
        return number in self._behind

    def _find_pending(self, number: int) -> int | None:
        ahead = self._ahead.get(number)
        while ahead:
            if self._states[ahead[-1]] == PENDING:
                return ahead[-1]
            ahead.pop()
        position = self._states.find(PENDING, self._cursors[number])
        # From one waiting request to the next of the signature, each far faster than a loop: the main loop waits.
        while self._column and position >= 0 and self._column[position] != number:
            position = self._column.find(number, position)
            position = self._states.find(PENDING, position) if position >= 0 else position
        self._cursors[number] = len(self._states) if position < 0 else position
        return None if position < 0 else position
