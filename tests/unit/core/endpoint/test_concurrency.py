"""The search for slots, against a server of which only its own counters are seen."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque

import pytest

from obcd.core.endpoint.concurrency import FIRST, MOST, UNTOLD, SlotFinder, Span
from obcd.core.endpoint.health import Health
from obcd.core.request.records import Signature
from obcd.core.scheduling.holder import Holder
from obcd.core.scheduling.scheduler import Scheduler

#: Seconds: a request at work, half the way to the server, what a server's own work before it adds to the wait.
WORK, WAY, OVERHEAD = 0.5, 0.005, (0.02, 0.02)
#: What it adds on v0.24.
NOISE = (0.025, 0.113)


class Server:
    """A server of so many slots on a simulated clock, and a client that gives it as many requests as are allowed."""

    def __init__(
        self, slots: int, spread: float = 0.5, fixed: int | None = None, overhead: tuple[float, float] = OVERHEAD
    ) -> None:
        self.slots, self.spread, self.fixed, self.overhead = slots, spread, fixed, overhead
        self.finder, self.work = SlotFinder(), WORK
        #: What it was after each answer.
        self.counts: list[int] = []
        self.now = 0.0
        self._dice = random.Random(slots)
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, str, tuple[float, ...]]] = []
        self._held = self._busy = 0
        self._queue: deque[tuple[float, float]] = deque()  # (arrived, sent at)

    @property
    def count(self) -> int:
        return self.fixed if self.fixed is not None else self.finder.count

    def serve(self, requests: int) -> float:
        """Return the seconds that all took, from the first to the last."""
        began, left, answered = self.now, requests, 0
        while answered < requests:
            while left and self._held < self.count:
                self._held += 1
                left -= 1
                self._in(WAY, "arrive", self.now)
            self.now, _, what, values = heapq.heappop(self._events)
            if what == "arrive":
                self._queue.append((self.now, values[0]))
            elif what == "end":
                self._busy -= 1
                self._in(WAY, "answer", *values)
            else:
                sent_at, work, wait = values
                self.finder.on_answer(sent_at, self._held, Span(work, wait), self.now)
                self.counts.append(self.finder.count)
                self._held -= 1
                answered += 1
            self._start()
        return self.now - began

    def _start(self) -> None:
        while self._busy < self.slots and self._queue:
            arrived, sent_at = self._queue.popleft()
            self._busy += 1
            work = self.work * math.exp(self.spread * self._dice.gauss(0, 1))
            overhead = self._dice.uniform(*self.overhead)
            self._in(work + overhead, "end", sent_at, work, self.now - arrived + overhead)

    def _in(self, seconds: float, what: str, *values: float) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), what, values))


def test_answers_that_tell_nothing_of_their_wait_leave_the_count_as_it_is() -> None:
    finder = SlotFinder()

    for number in range(1000):
        finder.on_answer(float(number), FIRST, UNTOLD, number + 0.5)

    assert finder.count == FIRST


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16, 32])
def test_search_ends_an_eighth_above_the_slots_and_costs_little(slots: int, spread: float) -> None:
    best = min(Server(slots, spread, fixed).serve(1000) for fixed in (slots, slots + 1, slots + slots // 8 + 1))

    server = Server(slots, spread)
    seconds = server.serve(1000)

    assert best / seconds > 0.93
    server.serve(1000)
    settled = server.counts[1000:]
    assert max(slots, slots * 0.95) <= min(settled) <= max(settled) <= max(slots + 1, 1.25 * slots)


@pytest.mark.parametrize("overhead", [OVERHEAD, NOISE])
@pytest.mark.parametrize("spread", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("slots", [1, 4, 8])
def test_slots_are_found_within_one_after_forty_answers(
    slots: int, spread: float, overhead: tuple[float, float]
) -> None:
    server = Server(slots, spread, overhead=overhead)

    server.serve(200)

    assert all(slots <= count <= slots + 1 for count in server.counts[39:])


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("slots", [16, 32])
def test_noise_of_the_wait_does_not_end_the_search(slots: int, spread: float) -> None:
    best = min(Server(slots, spread, fixed, NOISE).serve(1000) for fixed in (slots, slots + slots // 8 + 1))

    server = Server(slots, spread, overhead=NOISE)

    assert best / server.serve(1000) > 0.9
    assert slots <= server.finder.count <= 1.25 * slots


@pytest.mark.parametrize("work", [0.02, 5.0])
def test_short_and_long_requests_show_the_same_slots(work: float) -> None:
    server = Server(4)
    server.work = work

    server.serve(300)

    assert 4 <= server.finder.count <= 5


def test_nothing_is_learned_of_a_server_that_has_too_little_to_do() -> None:
    server = Server(4)

    for _ in range(100):
        server.serve(3)

    assert set(server.counts) == {FIRST}


def test_server_that_comes_back_with_other_slots_is_found_out() -> None:
    server = Server(4)
    server.serve(300)
    assert server.finder.count == 5

    server.slots = 16
    server.serve(600)
    assert 16 <= server.finder.count <= 20

    server.slots = 1
    server.serve(300)
    assert server.finder.count == 2


def test_endless_slots_are_not_believed() -> None:
    server = Server(1000)

    server.serve(5000)

    assert max(server.counts) == MOST


def test_each_model_has_slots_of_its_own() -> None:
    endpoint = Holder("a", None, Health("a"))
    large, small = Signature("large:latest", ()), Signature("small:latest", ())

    endpoint.loaded = large
    endpoint.finder.count = 2
    endpoint.loaded = small

    assert endpoint.slots == FIRST
    endpoint.loaded = large
    assert endpoint.slots == 2


def test_fixed_slots_stay() -> None:
    scheduler = Scheduler()
    scheduler.add_endpoint("a", 3, 0.0)
    assert scheduler.endpoint("a").slots == 3

    scheduler.endpoint("a").set_slots(None)
    assert scheduler.endpoint("a").slots == FIRST
