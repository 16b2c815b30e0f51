"""`lanes`: documents × questions on a simulated clock: obcd's own scheduler, and servers that keep what they evaluated.

A server picks the free slot whose last prompt shares the longest beginning, else the one unused for longest; requests
wait in its queue in the order of arrival. Evaluation is shared among the slots that evaluate, an answer takes its time
in each slot whatever the others do. Newer servers also keep each evaluated beginning in the memory of the host.
"""

from __future__ import annotations

import heapq
import math
import random
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.concurrency import Span
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.pending.backlog import Backlog
from obcd.core.pending.lanes import LaneIndex
from obcd.core.request.records import Signature
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler
from tests.bench.figures import Figure

MODEL = Signature("llama3.2:latest", ())
#: Of the logarithm of the seconds of an answer.
SPREAD = 0.3
#: From a worker to its server, or back, in seconds.
TRAVEL = 0.005
#: A cut connection: the server is away.
AWAY = Fault(FaultKind.UNREACHABLE, "refused", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN)


#: {endpoint: (when it goes away, when it is back)}
Outage = Mapping[str, tuple[float, float]]


class Prompt(NamedTuple):
    """A request: its document (0: none) and that document's length in tokens, its own tokens, seconds of its answer."""

    document: int
    shared: int
    own: int
    seconds: float


#: A question to a document on a card.
GPU_KIND = Prompt(0, 3000, 50, 1.5)


@dataclass
class Speed:
    """A server: its slots, tokens evaluated a second by all slots together, whether memory keeps beginnings."""

    slots: int = 4
    tokens: float = 6000.0
    has_memory: bool = False


@dataclass
class _Slot:
    """One slot; its last document is what it has in its cache."""

    document: int = 0
    used_at: float = -1.0
    ticket: int | None = None
    prompt: Prompt | None = None
    left: float = 0.0  # tokens to evaluate
    ends_at: float = math.inf  # of the answer
    arrived: float = 0.0
    started: float = 0.0


@dataclass
class Server:
    """One server.

    Attributes:
        evaluated: Tokens of beginnings that were evaluated.
        busy: Seconds of all slots in use.
        next_at: When something ends here.
    """

    speed: Speed
    evaluated: int = 0
    busy: float = 0.0
    now: float = 0.0
    next_at: float = math.inf
    slots: list[_Slot] = field(default_factory=list)
    queue: deque[tuple[int, Prompt, float]] = field(default_factory=deque)
    memory: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the slots."""
        self.forget()

    def forget(self) -> None:
        """Start again: nothing is in flight, and nothing is kept."""
        self.slots = [_Slot() for _ in range(self.speed.slots)]
        self.queue.clear()
        self.memory.clear()
        self.next_at = math.inf

    def arrive(self, ticket: int, prompt: Prompt, now: float) -> None:
        """Take a request."""
        self.queue.append((ticket, prompt, now))
        if len(self.queue) == 1 and any(slot.ticket is None for slot in self.slots):
            self._evaluate(now)
            self._start(now)
            self._look()

    def advance(self, now: float) -> list[tuple[int, Span]]:
        """Let time pass, at most to `next_at`; return what was answered."""
        self._evaluate(now)
        answered = []
        for slot in self.slots:
            if slot.ends_at <= now and slot.ticket is not None and slot.prompt is not None:
                answered.append((slot.ticket, Span(now - slot.started, slot.started - slot.arrived)))
                self.memory.add(slot.prompt.document)
                self.busy += now - slot.started
                slot.ticket, slot.prompt, slot.ends_at, slot.used_at = None, None, math.inf, now
        self._start(now)
        self._look()
        return answered

    def abort(self, ticket: int, now: float) -> None:
        """Break off a request."""
        self._evaluate(now)
        self.queue = deque(item for item in self.queue if item[0] != ticket)
        for slot in self.slots:
            if slot.ticket == ticket:
                self.busy += now - slot.started
                slot.ticket, slot.prompt, slot.left, slot.ends_at, slot.used_at = None, None, 0.0, math.inf, now
        self._start(now)
        self._look()

    def _look(self) -> None:
        at_work = [slot.left for slot in self.slots if slot.left > 0]
        evaluated = self.now + min(at_work) * len(at_work) / self.speed.tokens if at_work else math.inf
        self.next_at = min([evaluated, *(slot.ends_at for slot in self.slots)])

    def _evaluate(self, now: float) -> None:
        at_work = [slot for slot in self.slots if slot.left > 0]
        done = (now - self.now) * self.speed.tokens / max(1, len(at_work))
        self.now = now
        for slot in at_work:
            slot.left = slot.left - done if slot.left - done > 1e-6 else 0.0
            if not slot.left and slot.prompt is not None:
                slot.ends_at = now + slot.prompt.seconds

    def _start(self, now: float) -> None:
        while self.queue and (free := [slot for slot in self.slots if slot.ticket is None]):
            ticket, prompt, arrived = self.queue.popleft()
            has_it = [slot for slot in free if prompt.document and slot.document == prompt.document]
            slot = min(has_it or free, key=lambda item: item.used_at)
            is_kept = bool(has_it) or (self.speed.has_memory and prompt.document in self.memory)
            self.evaluated += 0 if is_kept else prompt.shared
            slot.document, slot.ticket, slot.prompt = prompt.document, ticket, prompt
            slot.left, slot.arrived, slot.started = (0 if is_kept else prompt.shared) + prompt.own, arrived, now


class Job(NamedTuple):
    """A job: its requests in the order of the file."""

    prompts: Sequence[Prompt]
    has_lanes: bool = True
    submitter: int = 0


@dataclass
class Run:
    """What came of jobs.

    Attributes:
        seconds: Until the last answer.
        evaluated: Tokens of beginnings that all servers evaluated.
        in_use: Share of the slots in use until the last request was sent.
        order: (job, document, when leased, endpoint), by lease.
        ended: {job: when its last answer came}.
        slots_found: {endpoint: its slots, as far as they were searched for}.
    """

    seconds: float
    evaluated: int
    in_use: float
    order: list[tuple[str, int, float, str]]
    ended: dict[str, float]
    slots_found: dict[str, int]


def index_lanes(prompts: Sequence[Prompt]) -> LaneIndex:
    """Return the index that a clerk would make: four bytes a token."""
    lanes: dict[int, list[int]] = {}
    for ordinal, prompt in enumerate(prompts):
        if prompt.document:
            lanes.setdefault(prompt.document, []).append(ordinal)
    found = [members for members in lanes.values() if len(members) > 1]
    starts = array("I", [0])
    for members in found:
        starts.append(starts[-1] + len(members))
    shared = array("I", [4 * prompts[members[0]].shared for members in found])
    return LaneIndex(array("I", [ordinal for members in found for ordinal in members]), starts, shared)


class Cluster:
    """Jobs on servers, driven by a scheduler.

    Args:
        servers: What each endpoint is.
        slots: How many requests each may hold; None: as many as are found.
        outage: {endpoint: when it goes away, when it is back}.
    """

    def __init__(self, servers: Mapping[str, Speed], slots: int | None, outage: Outage | None = None) -> None:
        self.servers = {name: Server(speed) for name, speed in servers.items()}
        self.scheduler = Scheduler()
        self._outage = dict(outage or {})
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.now = 0.0
        self.leases: dict[int, Lease] = {}
        for name in servers:
            self.scheduler.add_endpoint(name, slots, 0.0)
            self.scheduler.on_probe(name, {MODEL.model: "d"}, None, 0.0)

    def run(self, *jobs: Job) -> Run:
        """Return what comes of jobs that are there from the start."""
        prompts = {str(number): job.prompts for number, job in enumerate(jobs)}
        backlogs = {}
        for number, job in enumerate(jobs):
            index = index_lanes(job.prompts) if job.has_lanes else None
            backlogs[str(number)] = backlog = Backlog(
                str(number), bytes(len(job.prompts)), (MODEL,), limit=9, submitter=job.submitter, lanes=index
            )
            self.scheduler.add_job(backlog, 0.0)
        order: list[tuple[str, int, float, str]] = []
        ended: dict[str, float] = {}
        for name, (away, _) in self._outage.items():
            self._at(away, partial(self._go_away, name))
        last_sent = busy_then = 0.0
        while any(backlog.unfinished for backlog in backlogs.values()):
            for lease in self.scheduler.assign(self.now):
                prompt = prompts[lease.job][lease.ordinal]
                order.append((lease.job, prompt.document, self.now, lease.endpoint))
                self.leases[lease.ticket] = lease
                self._send(lease, prompt)
                last_sent, busy_then = self.now, self._busy()
            for lease in self._step():
                ended[lease.job] = self.now
        capacity = last_sent * sum(server.speed.slots for server in self.servers.values())
        return Run(
            self.now,
            sum(server.evaluated for server in self.servers.values()),
            busy_then / capacity if capacity else 1.0,
            order,
            ended,
            {name: self.scheduler.endpoint(name).finder.slots for name in self.servers},
        )

    def _busy(self) -> float:
        at_work = (
            self.now - slot.started
            for server in self.servers.values()
            for slot in server.slots
            if slot.ticket is not None
        )
        return sum(server.busy for server in self.servers.values()) + sum(at_work)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def _send(self, lease: Lease, prompt: Prompt) -> None:
        def arrive() -> None:
            if lease.ticket in self.leases:
                server = self.servers[lease.endpoint]
                server.arrive(lease.ticket, prompt, self.now)

        self._at(self.now + TRAVEL, arrive)

    def _go_away(self, name: str) -> None:
        for lease in self.scheduler.endpoint(name).held:
            del self.leases[lease.ticket]
            self.scheduler.faulted(lease.ticket, name, AWAY, self.now)
        self.servers[name].forget()
        self._at(self._outage[name][1], lambda: self.scheduler.on_probe(name, {MODEL.model: "d"}, None, self.now))

    def _step(self) -> list[Lease]:
        """Go on to the next event; return the leases that were answered there."""
        at = min(server.next_at for server in self.servers.values())
        if self._events:
            at = min(at, self._events[0][0])
        due = self.scheduler.next_due(self.now)
        self.now = at = min(at, due) if due is not None else at
        assert at < math.inf, "nothing happens any more"
        for name, server in self.servers.items():
            for ticket, span in server.advance(at) if server.next_at <= at else ():
                self._at(at + TRAVEL, partial(self._answer, name, ticket, span))
        self._answered: list[Lease] = []
        while self._events and self._events[0][0] <= at:
            heapq.heappop(self._events)[2]()
        for lease, _ in self.scheduler.take_overtaken():
            self.leases.pop(lease.ticket, None)
            self.servers[lease.endpoint].abort(lease.ticket, at)
        return self._answered

    def _answer(self, name: str, ticket: int, span: Span) -> None:
        self.leases.pop(ticket, None)
        lease = self.scheduler.answered(ticket, name, self.now, span)
        if lease is not None:
            self._answered.append(lease)


def documents(count: int, questions: int, kind: Prompt = GPU_KIND, seed: int = 1) -> list[Prompt]:
    """Return questions to documents as people write such files: all those to one document in a row."""
    dice = random.Random(seed)
    return [
        kind._replace(document=document, seconds=kind.seconds * math.exp(SPREAD * dice.gauss(0, 1)))
        for document in range(1, count + 1)
        for _ in range(questions)
    ]


def shuffled(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the same in any order."""
    return random.Random(2).sample(prompts, len(prompts))


def interleaved(prompts: Sequence[Prompt], questions: int) -> list[Prompt]:
    """Return one question to each document, then the next one."""
    return [prompt for place in range(questions) for prompt in prompts[place::questions]]


def distinct(prompts: Sequence[Prompt]) -> int:
    """Return the tokens of all beginnings, each counted once."""
    return sum({prompt.document: prompt.shared for prompt in prompts}.values())


class Client:
    """A plain client with a lane for each slot of all servers: it asks all questions to a document, then takes another.

    Args:
        prompts: The questions.
        servers: How many servers of this speed there are.
    """

    def __init__(self, prompts: Sequence[Prompt], servers: int, speed: Speed) -> None:
        questions: dict[int, deque[Prompt]] = {}
        for prompt in prompts:
            questions.setdefault(prompt.document, deque()).append(prompt)
        self._documents = deque(questions.values())
        self._servers = [Server(speed) for _ in range(servers)]
        self._lanes: list[deque[Prompt]] = [deque() for _ in range(servers * speed.slots)]

    def run(self) -> float:
        """Return the seconds until the last answer."""
        now = 0.0
        #: [(when, lane that is free then), …] as a heap
        free = [(now, lane) for lane in range(len(self._lanes))]
        while (at := min([server.next_at for server in self._servers] + [when for when, _ in free[:1]])) < math.inf:
            now = at
            for server in self._servers:
                for lane, _ in server.advance(now) if server.next_at <= now else ():
                    heapq.heappush(free, (now + 2 * TRAVEL, lane))
            while free and free[0][0] <= now:
                self._ask(heapq.heappop(free)[1], now)
        return now

    def _ask(self, lane: int, now: float) -> None:
        if not self._lanes[lane] and self._documents:
            self._lanes[lane] = self._documents.popleft()
        if self._lanes[lane]:
            self._servers[lane % len(self._servers)].arrive(lane, self._lanes[lane].popleft(), now)


def by_hand(prompts: Sequence[Prompt], servers: int, speed: Speed) -> float:
    """Return the seconds that lanes arranged by hand take in a plain client."""
    return Client(prompts, servers, speed).run()


def cluster(endpoints: int, speed: Speed, *, finds: bool = False, outage: Outage | None = None) -> Cluster:
    """Return a cluster of like servers.

    Args:
        finds: Whether their slots are searched for; else they are known.
    """
    servers = {f"e{number}": speed for number in range(endpoints)}
    return Cluster(servers, None if finds else speed.slots, outage)


def lead(run: Run) -> int:
    """Return by how many requests one of two jobs was ahead of the other, at most, while both had lanes to begin."""
    begun: dict[tuple[str, int], int] = {}
    for place, (job, document, *_) in enumerate(run.order):
        begun.setdefault((job, document), place)
    both = min(max(place for (job, _), place in begun.items() if job == wanted) for wanted in ("0", "1"))
    ahead, most = 0, 0
    for job, *_ in run.order[:both]:
        ahead += 1 if job == "0" else -1
        most = max(most, abs(ahead))
    return most


#: The case of the contract page 9.1, on a server whose evaluation is slow: 10 documents, 6 questions each, 4 slots.
CPU, CPU_KIND = Speed(4, 300.0), Prompt(0, 470, 20, 0.3)


def measure() -> list[Figure]:
    """Return what lanes bring in cases that decide; all with slots that keep what they evaluated, no other cache."""
    natural = documents(10, 6, CPU_KIND)
    figures = []
    for name, order in (
        ("natural", natural),
        ("shuffled", shuffled(natural)),
        ("interleaved", interleaved(natural, 6)),
    ):
        for finds in (False, True):
            plain = cluster(1, CPU, finds=finds).run(Job(natural, has_lanes=False)).seconds
            times = plain / cluster(1, CPU, finds=finds).run(Job(order)).seconds
            how = "slots searched for" if finds else "slots known"
            figures.append(
                Figure(f"10 documents × 6, 4 slots, {name}, {how}: times without lanes", times, "×", least=2.2)
            )
    many, speed = documents(64, 8), Speed(4)
    run = cluster(4, speed).run(Job(many))
    big = documents(1, 10_000) + documents(1, 200, Prompt(0, 0, 50, 1.5))
    sizes = sized_documents(60)
    outage = {"e1": (20.0, 35.0)}
    fair = cluster(1, speed).run(Job(documents(30, 10), submitter=1), Job(documents(30, 10, seed=2), submitter=2))
    found = [cluster(2, Speed(slots), finds=True).run(Job(documents(20 * slots, 8))) for slots in (1, 4, 8, 16)]
    most_wrong = max(
        abs(count / slots - 1)
        for run, slots in zip(found, (1, 4, 8, 16), strict=True)
        for count in run.slots_found.values()
    )
    return [
        *figures,
        Figure("4 × 4 slots, 64 documents × 8: tokens evaluated / distinct", run.evaluated / distinct(many), most=1.15),
        Figure("the same against lanes by hand: speed", by_hand(many, 4, speed) / run.seconds, "×", least=0.97),
        Figure(
            "one document × 10,000, 28 × 16: slots in use",
            100 * cluster(28, Speed(16)).run(Job(big)).in_use,
            "%",
            least=95,
        ),
        Figure("documents of 2 to 184 questions, 4 × 4: times without lanes", _gain(sizes), "×"),
        Figure("one of four endpoints is away for a while: times without lanes", _gain(many, outage), "×"),
        Figure("two submitters: requests by which one is ahead", lead(fair), most=2, is_worst=True),
        Figure("slots found with lanes, 1 to 16: error", 100 * most_wrong, "%", most=10, is_worst=True),
    ]


def sized_documents(count: int) -> list[Prompt]:
    """Return documents with very different numbers of questions."""
    dice = random.Random(5)
    sizes = [max(2, round(math.exp(dice.gauss(2, 1.3)))) for _ in range(count)]
    return [
        prompt._replace(document=document)
        for document, size in enumerate(sizes, 1)
        for prompt in documents(1, size, seed=document)
    ]


def _gain(prompts: Sequence[Prompt], outage: Outage | None = None) -> float:
    plain, lanes = (
        cluster(4, Speed(4), outage=outage).run(Job(prompts, has_lanes=has_lanes)) for has_lanes in (False, True)
    )
    return plain.seconds / lanes.seconds
