"""Lanes: the requests of one job that share a long beginning, each served so that a slot evaluates it once. Pure.

A server keeps the last prompt of each slot, and evaluates only what differs (llama.cpp `cache_prompt`). Requests that
share their beginning and are in flight together each evaluate it; one after another in the same slot they pay once:

    slot 1   ████ A1 ▏A2 ▏A3 ▏A4 ▏████ C1 ▏C2 ▏…        ████ evaluates a beginning
    slot 2   ████ B1 ▏B2 ▏B3 ▏████ D1 ▏…

An endpoint that has room gets, in this order: the next request of a lane that is at **home** there and has one in
flight less than it had; a lane that was not begun, or a request without a lane, by their order in the file; a lane that
**rests**, because its endpoint fell out or is full; then, where a further slot answers sooner than the present ones, a
lane that is at home there is opened **wider**, or one of another endpoint is **split**. Until the first reply of a lane
came from an endpoint, one request of it is in flight there, unless very many wait.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Set
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import repeat
from operator import mul, sub
from typing import NamedTuple

#: States of a request (see `backlog`); one that waits for a slot without a lane has another than one that waits in it.
ENDED, IN_LANE = 3, 4
#: Seconds that a lane has none in flight before another endpoint takes it over: its own may be about to go on with it.
REST_SECONDS = 0.5
#: While it is not known what the beginning costs: requests that wait for each one in flight, so that a lane is split.
MANY = 4
#: The same for a further slot of an endpoint that has not answered for the lane yet: a server with a cache in memory
#: would save the evaluation after that answer; where so many wait, idle slots cost more.
VERY_MANY = 16
#: A further slot gets a lane if this many times what its first request takes there, with the beginning, is less than
#: what the lane takes without it: its evaluation takes something from the other slots of that server too.
WORTH = 1.5


class LaneIndex(NamedTuple):
    """The lanes of a job, as the clerk found them.

    Attributes:
        members: Ordinals, by lane and within a lane ascending. Lanes are in the order of their first members.
        starts: Where each lane begins in `members`, and the end: one more than there are lanes.
        shared: How many bytes the members of a lane share beyond what all requests of the job share, by lane.
        states, taken, numbers: What `prepare` adds.
    """

    members: array[int]
    starts: array[int]
    shared: array[int]
    states: bytes = b""
    taken: bytes = b""
    numbers: bytes = b""

    def prepare(self, done: bytes, column: bytes = b"") -> LaneIndex | None:
        """Return the index with what takes long to compute, so that the main loop does not: it must not wait.

        Args:
            done: One byte per ordinal, nonzero for requests that have ended.
            column: One byte per ordinal, the number of its signature; empty if there is only one.

        Returns:
            With the state of each ordinal (0 waits without a lane, `IN_LANE`, `ENDED`), with a zero for each place in
            `members` that waits, and with the signature number of each lane, if there are several. None if a lane has
            requests of two signatures: then the index is not that of these requests.
        """
        states = bytearray(len(done))
        deque(map(states.__setitem__, self.members, repeat(IN_LANE)), maxlen=0)
        has_ended = int.from_bytes(done.translate(bytes(1) + bytes([ENDED]) * 255), "little")
        both = (int.from_bytes(states, "little") | has_ended).to_bytes(len(done), "little")
        taken = bytes(map(done.__getitem__, self.members)) if has_ended else bytes(len(self.members))
        numbers = b""
        if column:
            numbers = bytes(map(column.__getitem__, map(self.members.__getitem__, self.starts[:-1])))
            sizes = map(sub, self.starts[1:], self.starts[:-1])
            expected = b"".join(map(mul, map([bytes([value]) for value in range(256)].__getitem__, numbers), sizes))
            if expected != bytes(map(column.__getitem__, self.members)):
                return None
        as_ended = bytes([*range(IN_LANE + 1), *[ENDED] * (255 - IN_LANE)])
        return self._replace(states=both.translate(as_ended), taken=taken, numbers=numbers)


class _Kind(Enum):
    """What a server has to do for a request of a lane."""

    FIRST = auto()  # the first one at its endpoint: the whole beginning
    WIDER = auto()  # another slot there: the beginning again, unless the server keeps it for all slots
    LATER = auto()  # in a slot that has just served the lane: only what follows the beginning


@dataclass(slots=True)
class _Home:
    """A lane at one endpoint."""

    in_flight: int = 0
    #: Most that were in flight there: so many slots have its beginning.
    width: int = 0
    #: Whether a reply of the lane came from there.
    is_warm: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """A lane that was begun; or will be, if it is leased from."""

    number: int
    signature: int
    shared: int
    #: Of the next request, in `members`, and the lane's end there.
    place: int
    end: int
    pending: int
    in_flight: int = 0
    #: {endpoint: its part}
    homes: dict[str, _Home] = field(default_factory=dict)
    #: When it was first seen with none in flight.
    rests_since: float | None = None


@dataclass(slots=True)
class _Member:
    """A request of a lane that was leased and has not ended; without an endpoint it waits to be sent again."""

    lane: Lane
    endpoint: str = ""
    kind: _Kind = _Kind.LATER


class LaneCosts:
    """What a request of a lane takes in a slot that has its beginning, and what the beginning takes; from answers.

    Attributes:
        seconds: What a request takes after the beginning; None if that is not known yet.
        per_byte: {kind: what a byte of the beginning takes in addition, in seconds}.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.per_byte = dict.fromkeys(_Kind, 0.0)
        #: {kind: [answers, seconds, bytes of their beginnings]}
        self._sums: dict[_Kind, list[float]] = {kind: [0, 0.0, 0] for kind in _Kind}

    def note(self, kind: _Kind, shared: int, seconds: float) -> None:
        """Learn from an answer."""
        sums = self._sums[kind]
        sums[0] += 1
        sums[1] += seconds
        sums[2] += shared
        count, total, _ = self._sums[_Kind.LATER]
        if count:
            self.seconds = later = total / count
            for other in (_Kind.FIRST, _Kind.WIDER):
                known = self._sums[other if self._sums[other][0] else _Kind.FIRST]
                self.per_byte[other] = max(0.0, known[1] - known[0] * later) / max(1, known[2])

    def gain(self, lane: Lane, kind: _Kind) -> float:
        """Return how many seconds before the lane's present slots a further slot ends; negative: after them."""
        if self.seconds is None:
            return float(lane.pending - MANY * lane.in_flight)
        once = WORTH * (self.seconds + self.per_byte[kind] * lane.shared)
        return lane.pending * self.seconds / max(1, lane.in_flight) - once


class Lanes:
    """The lanes of one job, and which of their requests wait.

    Args:
        index: As `LaneIndex.prepare` returns it.
    """

    def __init__(self, index: LaneIndex) -> None:
        self._members, self._starts, self._shared, _, taken, self._numbers = index
        #: One byte per place in `members`: zero if the request waits in its lane.
        self._taken = bytearray(taken)
        #: {number of a signature: the first lane that may not have been begun}
        self._cursors: dict[int, int] = {}
        #: {number of a signature: {number of a lane: a lane with requests that wait}}
        self._open: dict[int, dict[int, Lane]] = {}
        #: {(number of a signature, endpoint): the lanes at home there, the one that was answered last at the end}
        self._at_home: dict[tuple[int, str], dict[int, Lane]] = {}
        self._leased: dict[int, _Member] = {}
        self._costs: dict[int, LaneCosts] = {}
        #: Grows with each lease and each end of one; {number of a signature: (its value when no lane paid, until when)}
        self._changes = 0
        self._barren: dict[int, tuple[int, float]] = {}

    def has_pending(self, number: int) -> bool:
        """Return whether a request of this signature waits in a lane."""
        return bool(self._open.get(number)) or self._find_closed(number) is not None

    def find(self, number: int, endpoint: str, other: int | None, now: float) -> Lane | None:
        """Return the lane that an endpoint serves next; None if it does not serve one, or `other` comes first.

        Args:
            other: The next request without a lane.
        """
        lane = self._find_at_home(number, endpoint) or self._find_unopened(number, other)
        if lane is None and other is None and self._open.get(number):
            return self._find_worth(number, endpoint, now)
        return lane

    def goes_on(self, number: int, endpoint: str) -> bool:
        """Return whether a lane at home at an endpoint has requests that wait for a slot which it had."""
        return self._find_at_home(number, endpoint) is not None

    def lease(self, lane: Lane, endpoint: str) -> int:
        """Take the next request of a lane; return its ordinal."""
        ordinal = self._take(lane)
        self._leased[ordinal] = _Member(lane)
        self.lease_again(ordinal, endpoint)
        return ordinal

    def lease_again(self, ordinal: int, endpoint: str) -> None:
        """Count a request of a lane that an endpoint gets, for the first time or again; others are ignored."""
        member = self._leased.get(ordinal)
        if member is None:
            return
        lane = member.lane
        home = lane.homes.get(endpoint)
        if home is None:
            if not lane.in_flight:  # taken over: if the earlier endpoint comes back, it has forgotten the lane
                self._leave_homes(lane)
                lane.homes = {}
            home = lane.homes[endpoint] = _Home()
            if lane.pending:
                self._at_home.setdefault((lane.signature, endpoint), {})[lane.number] = lane
        member.endpoint = endpoint
        is_wider = home.in_flight >= home.width
        member.kind = _Kind.FIRST if not home.width else _Kind.WIDER if is_wider else _Kind.LATER
        home.in_flight += 1
        home.width = max(home.width, home.in_flight)
        lane.in_flight += 1
        lane.rests_since = None
        self._changes += 1

    def take_any(self, number: int) -> int | None:
        """Take a request of a signature out of whatever lane, to fail it; None if none waits."""
        lane = next(iter(self._open.get(number, {}).values()), None) or self._find_unopened(number, None)
        return self._take(lane) if lane is not None else None

    def release(self, ordinal: int, *, is_over: bool) -> None:
        """Record that a leased request is no longer in flight; others than those of lanes are ignored.

        Args:
            is_over: It will not be sent again as one of its lane.
        """
        member = self._leased.get(ordinal)
        if member is None:
            return
        if is_over:
            del self._leased[ordinal]
        lane, endpoint, member.endpoint = member.lane, member.endpoint, ""
        home = lane.homes.get(endpoint)
        if home is None:  # it was not in flight as one of its lane
            return
        home.in_flight -= 1
        lane.in_flight -= 1
        self._changes += 1
        at_home = self._at_home.get((lane.signature, endpoint), {})
        if at_home.pop(lane.number, None) is not None:
            at_home[lane.number] = lane

    def on_answer(self, ordinal: int, endpoint: str, seconds: float) -> bool:
        """Learn from an answer of an endpoint; return whether the request is one of a lane."""
        member = self._leased.get(ordinal)
        if member is not None and member.endpoint == endpoint:  # else a hedged request was faster
            lane = member.lane
            lane.homes[endpoint].is_warm = True
            self._costs_of(lane.signature).note(member.kind, lane.shared, seconds)
        return member is not None

    def beginning(self, ordinal: int) -> tuple[float, float]:
        """Return the seconds that evaluating the beginning of a request in flight takes: there, and elsewhere."""
        member = self._leased.get(ordinal)
        if member is None:
            return 0.0, 0.0
        per_byte, shared = self._costs_of(member.lane.signature).per_byte, member.lane.shared
        return per_byte[member.kind] * shared, per_byte[_Kind.FIRST] * shared

    def homes_of(self, ordinal: int) -> Set[str]:
        """Return the endpoints that have the beginning of a request which waits to be sent again."""
        member = self._leased.get(ordinal)
        return member.lane.homes.keys() if member is not None else frozenset()

    def next_due(self) -> float | None:
        """Return when another endpoint may take over a lane that rests now; None if there is no such lane."""
        return min((until for changes, until in self._barren.values() if changes == self._changes), default=None)

    # --- inside --------------------------------------------------------------------------------------------------

    def _find_at_home(self, number: int, endpoint: str) -> Lane | None:
        # The one that was answered last comes first: if there are more lanes than slots, the others have lost theirs.
        for lane in reversed(self._at_home.get((number, endpoint), {}).values()):
            home = lane.homes[endpoint]
            if home.in_flight < home.width:
                return lane
        return None

    def _find_unopened(self, number: int, other: int | None) -> Lane | None:
        """Return the first lane that was not begun and comes before `other`."""
        found = self._find_closed(number)
        if found is None:
            return None
        lane, place = found
        if other is not None and self._members[place] > other:
            return None
        end = self._starts[lane + 1]
        return Lane(lane, number, self._shared[lane], place, end, self._taken.count(0, place, end))

    def _find_closed(self, number: int) -> tuple[int, int] | None:
        """Return the first lane that was not begun, and the place of its first request that waits."""
        lane, count = self._cursors.get(number, 0), len(self._starts) - 1
        while lane < count:
            if self._numbers and (lane := self._numbers.find(number, lane)) < 0:
                break
            place = self._taken.find(0, self._starts[lane])
            if place < 0:
                break
            first = bisect_right(self._starts, place) - 1
            if first == lane or not self._numbers or self._numbers[first] == number:
                self._cursors[number] = first
                return first, place
            lane = first
        self._cursors[number] = count
        return None

    def _find_worth(self, number: int, endpoint: str, now: float) -> Lane | None:
        """Return the lane that gains most from another slot, first those at home there; or one that rests."""
        changes, until = self._barren.get(number, (-1, 0.0))
        if changes == self._changes and now < until:
            return None
        costs, best, most, is_barren, until = self._costs_of(number), None, (False, 0.0), True, float("inf")
        for lane in self._open[number].values():
            if not lane.in_flight:
                lane.rests_since = now if lane.rests_since is None else lane.rests_since
                if now - lane.rests_since >= REST_SECONDS:
                    return lane
                until = min(until, lane.rests_since + REST_SECONDS)
                continue
            home = lane.homes.get(endpoint)
            split, wider = costs.gain(lane, _Kind.FIRST), costs.gain(lane, _Kind.WIDER)
            is_barren = is_barren and max(split, wider) <= 0
            gain = split if home is None else wider
            if home is not None and not home.is_warm and lane.pending < VERY_MANY * lane.in_flight:
                continue
            if gain > 0 and (home is not None, gain) > most:
                best, most = lane, (home is not None, gain)
        if is_barren:
            self._barren[number] = self._changes, until
        return best

    def _take(self, lane: Lane) -> int:
        """Take the next request out of a lane; return its ordinal."""
        self._open.setdefault(lane.signature, {})[lane.number] = lane
        self._cursors[lane.signature] = max(lane.number + 1, self._cursors.get(lane.signature, 0))
        ordinal = self._members[lane.place]
        self._taken[lane.place] = 1
        lane.place = self._taken.find(0, lane.place + 1, lane.end)
        lane.pending -= 1
        if not lane.pending:
            del self._open[lane.signature][lane.number]
            self._leave_homes(lane)
        return ordinal

    def _leave_homes(self, lane: Lane) -> None:
        for endpoint in lane.homes:
            self._at_home.get((lane.signature, endpoint), {}).pop(lane.number, None)

    def _costs_of(self, number: int) -> LaneCosts:
        if number not in self._costs:
            self._costs[number] = LaneCosts()
        return self._costs[number]
