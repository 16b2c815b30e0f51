"""The scheduler against a plain model of it: whatever happens in whatever order, no request is lost or asked twice, and
no job mixes answers of different weights.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from obcd.core.endpoint.faults import Fault, Harm, Remedy, worker_lost
from obcd.core.endpoint.signature_health import LOOK_BASE
from obcd.core.pending.backlog import ENDED, LEASED, Backlog
from obcd.core.pending.fair_share import Rank
from obcd.core.pending.lanes import IN_LANE, LaneIndex
from obcd.core.request.records import Signature
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.missing_models import MODEL_WAIT_UNREACHED_SECONDS
from obcd.core.scheduling.poison import CRASHES
from obcd.core.scheduling.scheduler import Scheduler

SIGNATURES = tuple(Signature(f"model{number}:latest", (("num_ctx", 1000 * number),)) for number in range(3))
MODELS = [signature.model for signature in SIGNATURES]
ENDPOINTS = {"a": 1, "b": 2, "c": 5}
LIMIT = 3
#: What an endpoint may tell: which of the models it has, each with one of two digests.
told = st.dictionaries(st.sampled_from(MODELS), st.sampled_from("xy")) | st.just(dict.fromkeys(MODELS, "x"))

#: A prompt that proves longer than was estimated: it fits the larger context, or none.
too_long = st.builds(
    Fault, st.just("too_long"), st.just("too long"), st.just(Remedy.NEVER), needs=st.sampled_from([900, 3000])
)
faults = too_long | st.builds(
    Fault,
    st.sampled_from(["crashed", "model_missing"]),
    st.just("it went wrong"),
    st.sampled_from(Remedy),
    st.booleans(),
    st.sampled_from([*Harm, Harm.UNFIT, Harm.UNFIT]),
    st.sampled_from([0.0, 0.0, 20.0]),
)


#: For each request the number of its lane, 0 for none.
lanes_of = st.lists(st.integers(0, 2), min_size=12, max_size=12)


def index_lanes(lanes: Sequence[int], column: Sequence[int]) -> LaneIndex | None:
    """Return the index of a job's lanes; those with one request, which a clerk does not make, are allowed."""
    found: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for ordinal, (lane, number) in enumerate(zip(lanes, column, strict=False)):
        if lane:
            found[lane, number].append(ordinal)
    members = sorted(found.values())
    starts = array("I", [sum(map(len, members[:place])) for place in range(len(members) + 1)])
    index = LaneIndex(
        array("I", [ordinal for lane in members for ordinal in lane]), starts, array("I", [1000] * len(members))
    )
    return index if members else None


class SchedulerMachine(RuleBasedStateMachine):
    """`ended` and `out` are the model: what has its result, and what is at an endpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.now = 0.0
        self.backlogs: dict[str, Backlog] = {}
        self.out: dict[int, Lease] = {}
        self.late: list[Lease] = []
        self.ended: Counter[tuple[str, int]] = Counter()
        #: {request: attempts of it that ended with everything else on its endpoint}
        self.crashes: Counter[tuple[str, int]] = Counter()
        #: {endpoint that is there: its slots}
        self.slots: dict[str, int] = {}
        #: {endpoint that is there: most it may hold}: its slots, or what it held when they became fewer
        self.room: dict[str, int] = {}
        self.draining: set[str] = set()
        #: {(job, model): digests that answered it}
        self.answered_by: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        #: {(endpoint, model) that failed as unfit: (when, until when at least it gets nothing of the model)}
        self.unfit: dict[tuple[str, str], float] = {}

    @initialize(
        digests=st.lists(st.sampled_from("xy"), min_size=3, max_size=3),
        column=st.lists(st.integers(0, 2), min_size=4, max_size=12),
        lanes=lanes_of,
    )
    def start(self, digests: list[str], column: list[int], lanes: list[int]) -> None:
        """Begin with a job under way, on endpoints that have all models, though not of the same weights."""
        for (name, slots), digest in zip(ENDPOINTS.items(), digests, strict=True):
            self.come(name, slots)
            self.probe(name, dict.fromkeys(MODELS, digest), None)
        self.add_job(column, 0, {0: 1}, {}, lanes, 0)
        self.assign()

    def come(self, name: str, slots: int) -> None:
        self.scheduler.add_endpoint(name, slots, self.now)
        self.slots[name] = self.room[name] = slots

    @rule(
        column=st.lists(st.integers(0, 2), max_size=12),
        priority=st.integers(0, 1),
        larger=st.sampled_from([{}, {0: 1}, {0: 1, 1: 2}, {0: 2, 1: 2}]),
        weights=st.sampled_from([{}, {}, {MODELS[0]: "y"}, None]),
        lanes=lanes_of,
        submitter=st.integers(0, 1),
    )
    def add_job(
        self,
        column: list[int],
        priority: int,
        larger: dict[int, int],
        weights: dict[str, str] | None,
        lanes: list[int],
        submitter: int,
    ) -> None:
        job = f"job{len(self.backlogs)}"
        self.backlogs[job] = Backlog(
            job,
            bytes(len(column)),
            SIGNATURES,
            bytes(column),
            larger=larger,
            limit=LIMIT,
            submitter=submitter,
            rank=Rank(priority),
            lanes=index_lanes(lanes, column),
        )
        self.backlogs[job].weights = dict(weights) if weights is not None else None
        self.answered_by.update({(job, model): {digest} for model, digest in (weights or {}).items()})
        self.scheduler.add_job(self.backlogs[job], self.now)

    @precondition(lambda self: self.backlogs)
    @rule(choice=st.integers(0, 99))
    def pause_or_resume(self, choice: int) -> None:
        backlog = self.backlogs[sorted(self.backlogs)[choice % len(self.backlogs)]]
        backlog.is_paused = not backlog.is_paused

    @rule(seconds=st.sampled_from([0.0, 0.3, 5.0, 40.0, 400.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        name=st.sampled_from(sorted(ENDPOINTS)),
        digests=st.none() | told,
        failure=st.sampled_from([None, None, "refused"]),
    )
    def probe(self, name: str, digests: dict[str, str] | None, failure: str | None) -> None:
        if name in self.slots:
            self.scheduler.on_probe(name, digests, failure, self.now)

    @rule()
    def assign(self) -> None:
        for lease in self.scheduler.assign(self.now):
            assert lease.ticket not in self.out
            assert lease.endpoint not in self.draining
            assert not self.backlogs[lease.job].is_paused
            assert self.scheduler.endpoint(lease.endpoint).in_flight <= self.slots[lease.endpoint]
            self.check_copy(lease)
            self.check_weights(lease)
            assert self.now >= self.unfit.get((lease.endpoint, self.model_of(lease)), 0.0)
            assert self.ended[lease.job, lease.ordinal] == 0
            assert lease.signature == self.backlogs[lease.job].signature_number(lease.ordinal)
            assert 1 <= lease.attempt <= LIMIT + CRASHES
            if self.crashes[lease.job, lease.ordinal] >= CRASHES - 1:
                assert self.scheduler.endpoint(lease.endpoint).in_flight == 1
            self.out[lease.ticket] = lease
        due = self.scheduler.next_due(self.now)
        assert due is None or due > self.now
        assert self.scheduler.assign(self.now) == []

    @rule(name=st.sampled_from(sorted(ENDPOINTS)), slots=st.integers(1, 6))
    def resize_or_bring(self, name: str, slots: int) -> None:
        if name not in self.slots:
            self.come(name, slots)
            return
        self.scheduler.endpoint(name).set_slots(slots)
        self.slots[name] = slots
        self.room[name] = max(slots, self.scheduler.endpoint(name).in_flight)

    @rule(name=st.sampled_from(sorted(ENDPOINTS)))
    def drain_or_take_back(self, name: str) -> None:
        if name in self.draining:
            self.scheduler.endpoint(name).undrain(self.now)
            self.draining.remove(name)
        elif name in self.slots:
            self.scheduler.endpoint(name).drain(self.now)
            self.draining.add(name)

    @precondition(lambda self: self.draining)
    @rule(choice=st.integers(0, 2))
    def remove(self, choice: int) -> None:
        name = sorted(self.draining)[choice % len(self.draining)]
        if any(lease.endpoint == name for lease in self.out.values()):
            with pytest.raises(ValueError, match="still holds"):
                self.scheduler.remove_endpoint(name)
            return
        self.scheduler.remove_endpoint(name)
        self.draining.remove(name)
        del self.slots[name], self.room[name]
        self.unfit = {key: until for key, until in self.unfit.items() if key[0] != name}
        self.late = [lease for lease in self.late if lease.endpoint != name]  # its worker is gone, it says nothing

    @precondition(lambda self: self.out)
    @rule(choice=st.integers(0, 99))
    def answer(self, choice: int) -> None:
        lease = self.take(choice)
        assert self.scheduler.answered(lease.ticket, lease.endpoint, self.now) == lease
        self.answered_by[lease.job, self.model_of(lease)].add(lease.digest)
        self.end(lease.job, lease.ordinal)
        self.drop_overtaken()

    @precondition(lambda self: self.out)
    @rule(choice=st.integers(0, 99), fault=faults)
    def fail(self, choice: int, fault: Fault) -> None:
        lease = self.take(choice)
        settled = self.scheduler.faulted(lease.ticket, lease.endpoint, fault, self.now)
        self.crashes[lease.job, lease.ordinal] += fault.kind == "crashed"
        if fault.harm is Harm.UNFIT and settled is not None:
            self.unfit.setdefault((lease.endpoint, self.model_of(lease)), self.now + LOOK_BASE / 2)
        self.settle(lease, settled)

    @rule(name=st.sampled_from(sorted(ENDPOINTS)))
    def lose_worker(self, name: str) -> None:
        if name not in self.slots:
            return
        self.scheduler.on_probe(name, None, "its worker ended", self.now)
        for lease in self.scheduler.endpoint(name).held:
            del self.out[lease.ticket]
            self.late.append(lease)
            settled = self.scheduler.faulted(lease.ticket, name, worker_lost(), self.now)
            self.crashes[lease.job, lease.ordinal] += 1
            self.settle(lease, settled)

    @precondition(lambda self: self.late)
    @rule(choice=st.integers(0, 99))
    def answer_late(self, choice: int) -> None:
        lease = self.late[choice % len(self.late)]
        assert self.scheduler.answered(lease.ticket, lease.endpoint, self.now) is None

    @rule(limit=st.integers(1, 4))
    def fail_unservable(self, limit: int) -> None:
        taken = self.scheduler.take_unservable(limit, self.now)
        assert len(taken) <= limit
        for job, ordinal, missing in taken:
            backlog = self.backlogs[job]
            assert backlog.signature_of(ordinal).model == missing.model
            self.end(job, ordinal)

    def model_of(self, lease: Lease) -> str:
        return self.backlogs[lease.job].signature_of(lease.ordinal).model

    def check_weights(self, lease: Lease) -> None:
        """What is asked is asked where the weights are that the job has, by what the endpoint told."""
        models = self.scheduler.endpoint(lease.endpoint).digests or {}
        assert lease.digest in ("", models[self.model_of(lease)])
        assert (lease.digest == "") == (self.backlogs[lease.job].weights is None)

    def check_copy(self, lease: Lease) -> None:
        """A request may be asked on two endpoints, never twice on one, and never on three."""
        hedges = [other for other in self.out.values() if other.request == lease.request]
        assert len(hedges) <= 1
        assert all(other.endpoint != lease.endpoint for other in hedges)
        assert not hedges or lease.attempt == hedges[0].attempt

    def settle(self, lease: Lease, settled: tuple[Lease, bool, Fault] | None) -> None:
        """What failed has failed, or waits, unless it is asked on another endpoint too."""
        if settled is None:
            assert any(other.request == lease.request for other in self.out.values())
        elif settled[1]:
            self.end(lease.job, lease.ordinal)
        self.drop_overtaken()

    def drop_overtaken(self) -> None:
        for lease, _ in self.scheduler.take_overtaken():
            del self.out[lease.ticket]
            self.late.append(lease)

    def take(self, choice: int) -> Lease:
        lease = sorted(self.out.items())[choice % len(self.out)][1]
        del self.out[lease.ticket]
        self.late.append(lease)
        return lease

    def end(self, job: str, ordinal: int) -> None:
        self.ended[job, ordinal] += 1

    @invariant()
    def every_request_ends_at_most_once(self) -> None:
        assert all(count == 1 for count in self.ended.values())
        for job, backlog in self.backlogs.items():
            assert backlog.unfinished == len(backlog) - sum(key[0] == job for key in self.ended)

    @invariant()
    def no_job_mixes_answers_of_different_weights(self) -> None:
        assert all(len(digests) == 1 for digests in self.answered_by.values())

    @invariant()
    def in_flight_is_what_was_leased_and_never_above_the_slots(self) -> None:
        for name, room in self.room.items():
            if self.backlogs:
                held = {lease.ticket for lease in self.out.values() if lease.endpoint == name}
                assert {lease.ticket for lease in self.scheduler.endpoint(name).held} == held
                assert len(held) <= room

    @invariant()
    def endpoint_with_room_is_looked_at(self) -> None:
        for holder in self.scheduler.endpoints:
            assert holder.may_have_room or holder.free() <= 0

    @invariant()
    def states_say_the_same(self) -> None:
        out = {(lease.job, lease.ordinal) for lease in self.out.values()}
        for job, backlog in self.backlogs.items():
            for ordinal in range(len(backlog)):
                assert (backlog._states[ordinal] == LEASED) == ((job, ordinal) in out)
                assert (backlog._states[ordinal] == ENDED) == (self.ended[job, ordinal] == 1)

    @invariant()
    def lanes_count_what_is_in_flight(self) -> None:
        for backlog in self.backlogs.values():
            lanes = backlog._lanes
            if lanes is None:
                continue
            members = [member for member in lanes._leased.values() if member.endpoint]
            for ordinal, member in lanes._leased.items():
                if member.endpoint:
                    assert backlog._states[ordinal] == LEASED
            for lane in {id(member.lane): member.lane for member in lanes._leased.values()}.values():
                held = Counter(member.endpoint for member in members if member.lane is lane)
                assert lane.in_flight == held.total()
                assert {name: home.in_flight for name, home in lane.homes.items() if home.in_flight} == held
            for number in range(len(SIGNATURES)):
                waits = [at for at, state in enumerate(backlog._states) if state == IN_LANE]
                assert lanes.has_pending(number) == any(backlog.signature_number(at) == number for at in waits)

    def teardown(self) -> None:
        """Let everything get well, and all be there: then every request has to end, without hanging."""
        for name in ENDPOINTS:
            if name not in self.slots:
                self.come(name, 1)
            self.scheduler.endpoint(name).undrain(self.now)
        for backlog in self.backlogs.values():
            backlog.is_paused = False
        for _ in range(400):
            if not any(backlog.unfinished for backlog in self.backlogs.values()):
                break
            self.now += MODEL_WAIT_UNREACHED_SECONDS
            for name in ENDPOINTS:
                self.scheduler.on_probe(name, dict.fromkeys(MODELS, "x"), None, self.now)
            self.fail_unservable(1000)
            self.out.update((lease.ticket, lease) for lease in self.scheduler.assign(self.now))
            while self.out:
                self.answer(0)
        assert not any(backlog.unfinished for backlog in self.backlogs.values())
        self.every_request_ends_at_most_once()
        self.no_job_mixes_answers_of_different_weights()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(stateful_step_count=40)
