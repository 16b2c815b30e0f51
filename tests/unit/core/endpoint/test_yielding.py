"""Yielding, against a server on a simulated clock that people use too, of which only its own counters are seen."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass

import pytest

from obcd.core.endpoint.concurrency import UNTOLD, SlotFinder, Span
from obcd.core.endpoint.health import Health
from obcd.core.endpoint.yielding import (
    LOOK_LIMIT,
    REST_AFTER,
    REST_AFTER_ANSWERS,
    REST_SECONDS,
    RETURN_SECONDS,
    SignOfUse,
    Yielding,
)
from obcd.core.request.records import Signature
from obcd.core.scheduling.holder import Holder
from obcd.core.scheduling.leases import Lease

#: Half the way to the server, and what its own work before a request adds to the wait, in seconds.
WAY, OVERHEAD = 0.003, (0.005, 0.03)
MODEL = Signature("llama3.2", (("num_ctx", 8192),))
#: Tokens a second of a request that is alone; the seconds for which Ollama keeps a model.
SPEED, KEPT = 100.0, 300.0
#: Seconds of a load.
LOAD = 1.5


@dataclass
class Job:
    """A request at the server; `left` in tokens; `num_ctx` is what it needs."""

    is_ours: bool
    tokens: float
    sent_at: float
    num_ctx: int = 8192
    arrived_at: float = 0.0
    admitted_at: float = 0.0
    began_at: float = -1.0
    prompt: float = 0.0
    left: float = 0.0


@dataclass
class Site:
    """A server of so many slots whose speed is shared, obcd's part before it, and a person who asks after thinking.

    `slowdown` is the share of a request's speed that each other one takes (`SharedRate` of the simulated server). The
    prompts of requests that join together take `prompt` seconds each in one step, in which nothing else goes on; what
    comes meanwhile joins at the next one (Ollama v0.24).
    """

    slots: int
    slowdown: float
    yields: bool = True
    fixed: int | None = None
    tokens: float = 200.0
    has_work: bool = True
    overhead: tuple[float, float] = OVERHEAD
    looks: bool = True
    prompt: float = 0.0

    def __post_init__(self) -> None:
        self.now = 0.0
        #: Tokens of our answers.
        self.made = 0.0
        #: Seconds of our longest answer.
        self.longest = 0.0
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
        #: When the prompts that are evaluated now are done, and the requests that join then.
        self._prompts_until, self._joining = 0.0, list[Job]()
        self._users, self._end = 0, KEPT
        #: What is loaded, and the requests that wait for something else, the first of which is being loaded.
        self._num_ctx, self._pending, self._is_loading = 8192, deque[Job](), False
        self._look_due = 0.0
        self._thinks, self._person_tokens, self._person_num_ctx, self._until = 0.0, 0.0, 0, -math.inf
        self.holder = Holder("e", self.fixed, Health("e", since=0.0), {MODEL.model: ""})
        self.holder.health.on_probe(None, 0.0)
        self.holder.load(MODEL)
        self.holder.yielding = Yielding() if self.yields else None
        self._in(0.0, "tick")

    def bring_person(self, thinks: float, tokens: float, seconds: float, num_ctx: int = 8192) -> None:
        """Let a person ask for so many seconds."""
        self._thinks, self._person_tokens, self._until = thinks, tokens, self.now + seconds
        self._person_num_ctx = num_ctx
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
                self._busy.append(job)
                self._joining.append(job)
                if self.now >= self._prompts_until:
                    self._join()
        self._advance(end)

    def _join(self) -> None:
        seconds = self.prompt * len(self._joining)
        for job in self._joining:
            job.began_at, job.prompt = self.now, seconds
        if self._joining and seconds:
            self._prompts_until = self.now + seconds
            self._in(seconds, "join")
        self._joining.clear()

    def _rate(self) -> float:
        return SPEED / (1 + self.slowdown * (len(self._busy) - 1)) if self._busy else 0.0

    def _next_end(self) -> float:
        if not self._busy:
            return math.inf
        return max(self.now, self._prompts_until) + max(0.0, min(job.left for job in self._busy)) / self._rate()

    def _advance(self, to: float) -> None:
        for job in self._busy:
            job.left -= self._rate() * max(0.0, to - max(self.now, self._prompts_until))
        self.now = to

    def _finish(self, job: Job) -> None:
        self._busy.remove(job)
        self._users -= 1
        if not self._users:
            self._end = self.now + KEPT
            self._load()
        span = Span(self.now - job.began_at, job.began_at - job.admitted_at, 0.002 + job.admitted_at - job.arrived_at,
                    int(job.tokens), job.prompt)  # fmt: skip
        self._in(WAY, "answer", (job, span))

    def _load(self) -> None:
        """Load what the first pending request needs, if nothing is in flight (ollama server/sched.go)."""
        if self._pending and not self._users and not self._is_loading:
            self._is_loading = True
            self._in(LOAD, "loaded")

    def _admit(self, job: Job) -> None:
        job.admitted_at = self.now
        job.left = job.tokens + self._dice.uniform(*self.overhead) * SPEED
        self._users += 1
        self._queue.append(job)

    def _on(self, what: str, value: object) -> None:
        if what == "join":
            self._join()
        elif what == "arrive":
            assert isinstance(value, Job)
            self._on_arrival(value)
        elif what == "loaded":
            self._is_loading, self._num_ctx = False, self._pending[0].num_ctx
            while self._pending and self._pending[0].num_ctx == self._num_ctx:
                self._admit(self._pending.popleft())
        elif what == "ask":
            self._ask()
        elif what == "answer":
            self._on_answer(*value)  # type: ignore[misc]
        elif what == "look":
            self._look(*value)  # type: ignore[misc]
        elif what == "rest":
            self._ask_models()
        else:
            self._tick()
        self._fill()

    def _on_arrival(self, job: Job) -> None:
        job.arrived_at = self.now
        if job.num_ctx == self._num_ctx and not self._is_loading:
            self._admit(job)
        else:
            self._pending.append(job)
            self._load()

    def _ask(self) -> None:
        if self.now < self._until:
            tokens = self._person_tokens * self._dice.uniform(0.7, 1.3)
            self._send(Job(False, tokens, self.now, self._person_num_ctx))

    def _tick(self) -> None:
        if self.holder.yielding is not None:  # as `Endpoints.look_around`
            soon = self.holder.yielding.target is not None or int(self.now) % 5 == 0
            if self.looks and soon:
                self._ask_models()
        self._in(1.0, "tick")

    def _ask_models(self) -> None:
        self._in(WAY, "look", ({} if self._is_loading else {MODEL.model: self._end}, self.now))

    def _look(self, ends: dict[str, float], asked_at: float) -> None:
        assert self.holder.yielding is not None
        self.holder.yielding.on_models(MODEL.model, ends, asked_at, self.now, len(self.holder.leases))

    def _on_answer(self, job: Job, span: Span) -> None:
        if not job.is_ours:
            self.waits.append(self.now - job.sent_at)
            self.asked_last = self.now
            self._in(self._dice.expovariate(1 / self._thinks), "ask")
            return
        ticket = next(ticket for ticket, lease in self.holder.leases.items() if lease.sent_at == job.sent_at)
        del self.holder.leases[ticket]
        self.holder.on_span(job.sent_at, span, self.now)
        self.made += job.tokens
        self.longest = max(self.longest, self.now - job.sent_at)

    def _fill(self) -> None:
        yielding = self.holder.yielding
        if yielding is not None:
            yielding.look(len(self.holder.leases), self.now)
            if yielding.look_due is not None and self._look_due != yielding.look_due:
                self._look_due = yielding.look_due
                self._in(self._look_due - self.now, "rest")
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


@pytest.mark.parametrize(("slots", "slowdown"), [(16, 0.06), (4, 0.1), (4, 0.9), (2, 0.3)])
@pytest.mark.parametrize(("tokens", "prompt"), [(24.0, 0.4), (200.0, 0.4)])
def test_prompts_of_our_own_that_hold_up_others_are_no_sign(
    slots: int, slowdown: float, tokens: float, prompt: float
) -> None:
    other = Site(slots, slowdown, tokens=tokens, prompt=prompt, yields=False)
    other.run(400)

    site = Site(slots, slowdown, tokens=tokens, prompt=prompt)
    site.run(400)

    assert {target for _, target in site.targets} == {None}
    assert site.made >= 0.97 * other.made


@pytest.mark.parametrize(("slots", "slowdown"), SERVERS)
@pytest.mark.parametrize("prompt", [0.08])
def test_person_waits_at_most_a_third_longer_beside_prompts(slots: int, slowdown: float, prompt: float) -> None:
    site = Site(slots, slowdown, prompt=prompt)
    site.run(100)
    site.bring_person(3.0, 150.0, 600)

    site.run(700)

    assert len(site.waits) > 40
    assert p95(site.waits) <= 1.3 * alone(site, 3.0, 150.0)


@pytest.mark.parametrize(("slots", "slowdown"), SERVERS)
@pytest.mark.parametrize(("thinks", "tokens"), [(30.0, 150.0), (60.0, 100.0)])
def test_person_with_long_breaks_waits_at_most_a_third_longer(
    slots: int, slowdown: float, thinks: float, tokens: float
) -> None:
    site = Site(slots, slowdown)
    site.run(100)
    site.bring_person(thinks, tokens, 7200)

    site.run(7200)

    assert len(site.waits) > 80
    assert p95(site.waits) <= 1.3 * alone(site, thinks, tokens)


@pytest.mark.parametrize(("slots", "slowdown"), SERVERS)
def test_person_with_other_options_waits_for_a_rest_and_then_as_alone(slots: int, slowdown: float) -> None:
    site = Site(slots, slowdown)
    site.run(200)
    site.bring_person(4.0, 100.0, 600, num_ctx=2048)

    site.run(600)

    assert site.waits[0] <= max(REST_AFTER, REST_AFTER_ANSWERS * site.longest) + 2 * site.longest + LOAD
    assert p95(site.waits[1:]) <= 1.3 * alone(site, 4.0, 100.0)


def test_who_comes_back_finds_free_slots_for_three_times_the_longest_break() -> None:
    yielding = Yielding()
    see(yielding, 0.0)

    see(yielding, 100.0)
    assert all_slots_at(yielding, 100.0) == 126
    see(yielding, 150.0)
    assert all_slots_at(yielding, 150.0) == 150 + 3 * 50
    see(yielding, 350.0)
    assert all_slots_at(yielding, 350.0) == 350 + RETURN_SECONDS
    see(yielding, 1000.0)
    assert all_slots_at(yielding, 1000.0) == 1026


def test_a_break_while_it_yields_counts_from_the_first_return_on() -> None:
    yielding = Yielding()
    for moment in (0.0, 100.0, 112.0):
        see(yielding, moment)
    assert all_slots_at(yielding, 112.0) == 138

    see(yielding, 150.0)
    see(yielding, 200.0)

    assert all_slots_at(yielding, 200.0) == 200 + 3 * 50


def see(yielding: Yielding, now: float) -> None:
    """Let /api/ps show that somebody has used another model since the last time."""
    yielding.on_models("a", {"a": 1.0, "b": now}, now, now)


def all_slots_at(yielding: Yielding, now: float) -> float:
    while True:
        yielding.look(0, now)
        if yielding.target is None:
            return now
        now += 1.0


def test_a_busy_server_rests_until_a_look_after_it_has_been_idle_for_a_moment() -> None:
    yielding = Yielding()
    yielding.look(4, 1000.0)
    answer(yielding, seconds=2.0, now=1059.0)
    began = 1000.0 + REST_AFTER_ANSWERS * 2

    assert not yielding.look(4, began - 0.5)
    assert yielding.look(4, began)
    assert (yielding.is_paused, yielding.look_due) == (True, None)
    assert not yielding.look(0, began + 1.0)
    assert (yielding.is_paused, yielding.look_due) == (True, began + 1.0 + REST_SECONDS)
    looks = []
    for asked_at in (began + 1.1, began + 1.2):  # the first one began too early
        yielding.on_models("a", {"a": 1.0}, asked_at, began + 1.25)
        looks.append(yielding.is_paused)
    assert looks == [True, False]
    assert not yielding.reason


@pytest.mark.parametrize(("end", "sign"), [(1.0, SignOfUse.USE), (90.0, None)])
def test_a_rest_that_does_not_move_the_end_shows_a_request_of_others(end: float, sign: SignOfUse | None) -> None:
    yielding = Yielding()
    yielding.look(4, 1000.0)
    for moment in (0.0, 1.0):
        yielding.on_models("a", {"a": moment}, 1001.0 + moment, 1001.0 + moment, held=4)
    answer(yielding, seconds=1.0, now=1059.0)
    yielding.look(0, 1000.0 + REST_AFTER)

    yielding.on_models("a", {"a": end}, 1061.0, 1061.0)

    assert yielding.sign is sign


def test_a_rest_does_not_wait_for_a_request_that_takes_longer_than_all_before() -> None:
    yielding = Yielding()
    yielding.look(4, 1000.0)
    answer(yielding, seconds=1.0, now=1059.0)

    assert yielding.look(4, 1000.0 + REST_AFTER)
    assert not yielding.look(1, 1000.0 + REST_AFTER + 1.0 + LOOK_LIMIT - 0.1)
    assert yielding.look(1, 1000.0 + REST_AFTER + 1.0 + LOOK_LIMIT)
    assert not yielding.is_paused
    assert not yielding.look(4, 1000.0 + 2 * REST_AFTER)


def test_nothing_is_sent_when_our_model_has_gone_in_a_rest() -> None:
    yielding = Yielding()
    answer(yielding, seconds=1.0, now=1000.0)
    yielding.on_models("a", {"a": 1.0}, 1001.0, 1001.0)

    yielding.on_models("a", {}, 1002.0, 1002.0)

    assert (yielding.target, yielding.sign) == (0, SignOfUse.LOAD)


def test_nothing_is_sent_while_people_use_a_model_for_which_ours_had_to_go() -> None:
    # given a sign while one request is too much, and our model in memory no more
    yielding = Yielding()
    answer(yielding, seconds=1.0, now=900.0)
    see(yielding, 1000.0)
    see(yielding, 1001.0)
    for moment in range(1002, 1040):
        yielding.on_models("a", {"b": float(moment)}, moment, moment)
        yielding.look(0, moment)

        assert yielding.target == 0


def answer(yielding: Yielding, seconds: float, now: float) -> None:
    yielding.on_answer(now - seconds, 4, UNTOLD, SlotFinder(), now)


@pytest.mark.parametrize(("held", "sign"), [(0, SignOfUse.USE), (1, None)])
def test_an_end_that_moves_while_our_request_is_in_flight_is_our_own_call_that_loads_the_model(
    held: int, sign: SignOfUse | None
) -> None:
    yielding = Yielding()
    yielding.on_answer(999.0, 1, UNTOLD, SlotFinder(), 1000.0)
    for at in (1010.0, 1011.0):
        yielding.on_models("a", {"a": 5000.0}, at, at)

    for at in (1012.0, 1013.0):
        yielding.on_models("a", {"a": 5012.0}, at, at, held)

    assert yielding.sign is sign
