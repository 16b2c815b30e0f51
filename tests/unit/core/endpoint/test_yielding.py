"""Yielding, against a server on a simulated clock that people use too, of which only its own counters are seen."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass

import pytest

from obcd.core.endpoint.concurrency import Span
from obcd.core.endpoint.health import Health
from obcd.core.endpoint.yielding import Yielding
from obcd.core.request.records import Signature
from obcd.core.scheduling.leases import Holder, Lease

#: Half the way to the server, and what its own work before a request adds to the wait, in seconds.
WAY, OVERHEAD = 0.003, (0.005, 0.03)
MODEL = Signature("llama3.2", (("num_ctx", 8192),))
#: Tokens a second of a request that is alone; the seconds for which Ollama keeps a model.
SPEED, KEPT = 100.0, 300.0


@dataclass
class Job:
    """A request at the server; `left` in tokens."""

    is_ours: bool
    tokens: float
    sent_at: float
    arrived_at: float = 0.0
    began_at: float = -1.0
    left: float = 0.0


@dataclass
class Site:
    """A server of so many slots whose speed is shared, obcd's part before it, and a person who asks after thinking.

    `slowdown` is the share of a request's speed that each other one takes (`SharedRate` of the simulated server).
    """

    slots: int
    slowdown: float
    yields: bool = True
    fixed: int | None = None
    tokens: float = 200.0
    has_work: bool = True
    overhead: tuple[float, float] = OVERHEAD
    looks: bool = True

    def __post_init__(self) -> None:
        self.now = 0.0
        #: Tokens of our answers.
        self.made = 0.0
        #: Seconds that the person's requests took.
        self.waits: list[float] = []
        self.asked_last = 0.0
        self.in_flight: list[tuple[float, int]] = []
        self.targets: list[tuple[float, int | None]] = []
        self._dice = random.Random(self.slots)
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, str, object]] = []
        self._queue: deque[Job] = deque()
        self._busy: list[Job] = []
        self._advanced = 0.0
        self._users, self._end = 0, KEPT
        self._thinks, self._person_tokens, self._until = 0.0, 0.0, -math.inf
        self.holder = Holder("e", self.fixed, Health("e", since=0.0), {MODEL.model: ""})
        self.holder.health.on_probe(None, 0.0)
        self.holder.load(MODEL)
        self.holder.yielding = Yielding() if self.yields else None
        self._in(0.0, "tick")

    def bring_person(self, thinks: float, tokens: float, seconds: float) -> None:
        """Let a person ask for so many seconds."""
        self._thinks, self._person_tokens, self._until = thinks, tokens, self.now + seconds
        self._in(self._dice.expovariate(1 / thinks), "ask")

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events[0][0] < end or self._next_end() < end:
            at = min(self._events[0][0], self._next_end())
            self._advance(at)
            done = [job for job in self._busy if job.left <= 1e-6]
            if done:
                for job in done:
                    self._finish(job)
            else:
                self._on(*heapq.heappop(self._events)[2:])
            while self._busy.__len__() < self.slots and self._queue:
                job = self._queue.popleft()
                job.began_at = self.now
                self._busy.append(job)
        self._advance(end)

    def _rate(self) -> float:
        return SPEED / (1 + self.slowdown * (len(self._busy) - 1)) if self._busy else 0.0

    def _next_end(self) -> float:
        return self.now + max(0.0, min(job.left for job in self._busy)) / self._rate() if self._busy else math.inf

    def _advance(self, to: float) -> None:
        for job in self._busy:
            job.left -= self._rate() * (to - self.now)
        self.now = to

    def _finish(self, job: Job) -> None:
        self._busy.remove(job)
        self._users -= 1
        if not self._users:
            self._end = self.now + KEPT
        self._in(WAY, "answer", (job, job.began_at - job.arrived_at, self.now - job.began_at))

    def _on(self, what: str, value: object) -> None:
        if what == "arrive":
            assert isinstance(value, Job)
            value.arrived_at = self.now
            value.left = value.tokens + self._dice.uniform(*self.overhead) * SPEED
            self._users += 1
            self._queue.append(value)
        elif what == "ask":
            if self.now < self._until:
                self._send(Job(False, self._person_tokens * self._dice.uniform(0.7, 1.3), self.now))
        elif what == "answer":
            self._on_answer(*value)  # type: ignore[misc]
        elif what == "look":
            self._look(*value)  # type: ignore[misc]
        else:
            if self.holder.yielding is not None:  # as `Endpoints.look_around`
                soon = self.holder.yielding.target is not None or int(self.now) % 5 == 0
                if self.looks and soon:
                    self._in(WAY, "look", (self._end, self.now))
            self._in(1.0, "tick")
        self._fill()

    def _look(self, end: float, asked_at: float) -> None:
        assert self.holder.yielding is not None
        self.holder.yielding.on_models(MODEL.model, {MODEL.model: end}, asked_at, self.now)

    def _on_answer(self, job: Job, wait: float, work: float) -> None:
        if not job.is_ours:
            self.waits.append(self.now - job.sent_at)
            self.asked_last = self.now
            self._in(self._dice.expovariate(1 / self._thinks), "ask")
            return
        ticket = next(ticket for ticket, lease in self.holder.leases.items() if lease.sent_at == job.sent_at)
        del self.holder.leases[ticket]
        self.holder.on_span(job.sent_at, Span(work, wait, 0.002, int(job.tokens)), self.now)
        self.made += job.tokens

    def _fill(self) -> None:
        yielding = self.holder.yielding
        if yielding is not None:
            yielding.look(self.now)
            if not self.targets or self.targets[-1][1] != yielding.target:
                self.targets.append((self.now, yielding.target))
        while self.has_work and self.holder.free() > 0:
            number = next(self._numbers)
            at = self.now + number * 1e-9  # so that each has its own
            self.holder.leases[number] = Lease(number, "j", number, "e", 1, at)
            self._send(Job(True, self.tokens * self._dice.uniform(0.5, 1.5), at))

    def _send(self, job: Job) -> None:
        self._in(WAY, "arrive", job)

    def _in(self, seconds: float, what: str, value: object = None) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), what, value))


def p95(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def alone(site: Site, thinks: float, tokens: float) -> float:
    empty = Site(site.slots, site.slowdown, has_work=False)
    empty.bring_person(thinks, tokens, 1500)
    empty.run(1500)
    return p95(empty.waits)


#: A card that batches well, one that batches less well, and a CPU.
SERVERS = [(16, 0.06), (4, 0.1), (4, 0.9), (1, 0.0), (2, 0.3)]


@pytest.mark.parametrize(("slots", "slowdown"), SERVERS)
@pytest.mark.parametrize(("thinks", "tokens"), [(3.0, 150.0), (1.0, 400.0), (4.0, 100.0)])
def test_person_waits_at_most_a_third_longer_than_alone(
    slots: int, slowdown: float, thinks: float, tokens: float
) -> None:
    site = Site(slots, slowdown)
    site.run(100)
    site.bring_person(thinks, tokens, 600)

    site.run(700)

    assert len(site.waits) > 40
    assert p95(site.waits) <= 1.3 * alone(site, thinks, tokens)


@pytest.mark.parametrize(("slots", "slowdown"), SERVERS)
def test_slots_come_back_within_thirty_seconds(slots: int, slowdown: float) -> None:
    site = Site(slots, slowdown)
    site.run(100)
    site.bring_person(3.0, 150.0, 120)
    site.run(120)
    assert site.holder.yielding is not None
    assert site.holder.yielding.target is not None

    site.run(100)

    assert site.targets[-1][1] is None
    assert site.asked_last < site.targets[-1][0] <= site.asked_last + 30
    assert len(site.holder.leases) >= site.slots


@pytest.mark.parametrize(("slots", "slowdown"), SERVERS)
@pytest.mark.parametrize("fixed", [None, "slots", 16])
def test_little_is_lost_while_nobody_is_there(slots: int, slowdown: float, fixed: int | str | None) -> None:
    wanted = slots if fixed == "slots" else fixed
    other = Site(slots, slowdown, yields=False, fixed=wanted)  # type: ignore[arg-type]
    other.run(400)

    site = Site(slots, slowdown, fixed=wanted)  # type: ignore[arg-type]
    site.run(400)

    assert site.made >= 0.97 * other.made
    assert {target for _, target in site.targets} == {None}
