"""Who is to blame for a crash: neighbours are asked again at no cost, poison is found, endpoints are cleared."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy, server_ended, worker_lost
from obcd.core.endpoint.health import EndpointState
from obcd.core.pending.backlog import ELSEWHERE_SECONDS, Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.poison import CRASHES, RELOAD_SECONDS
from obcd.core.scheduling.scheduler import Scheduler
from tests.golden.wording import wording

MODEL = Signature("llama:latest", ())
MODELS = {MODEL.model: "d"}
CRASHED = Fault(FaultKind.CRASHED, "it crashed", Remedy.ELSEWHERE, harm=Harm.STRIKE)
HUNG = Fault(FaultKind.HUNG, "it hung", Remedy.ELSEWHERE, costs_attempt=False)
LOAD_FAILED = Fault(FaultKind.LOAD_FAILED, "it cannot load", Remedy.ELSEWHERE, harm=Harm.STRIKE)
#: A job's `attempts`: many, so that nothing here fails of them.
LIMIT = 100


def scheduler(*endpoints: str, slots: int = 1) -> Scheduler:
    made = Scheduler()
    for name in endpoints:
        made.add_endpoint(name, slots, 0.0)
        made.on_probe(name, MODELS, None, 0.0)
    return made


def add(made: Scheduler, count: int, limit: int = LIMIT) -> Backlog:
    backlog = Backlog("j", bytes(count), (MODEL,), limit=limit)
    made.add_job(backlog, 0.0)
    return backlog


def fail(made: Scheduler, lease: Lease, fault: Fault, now: float) -> Fault | None:
    """End a lease with a fault; returns what it failed of for good."""
    settled = made.faulted(lease.ticket, lease.endpoint, fault, now)
    assert settled is not None
    return settled[2] if settled[1] else None


def crash(made: Scheduler, endpoint: str, now: float) -> list[tuple[int, str]]:
    """Let an endpoint's runner crash; returns `[(ordinal, class), …]` of what failed for good."""
    found = [(lease.ordinal, fail(made, lease, CRASHED, now)) for lease in made.endpoint(endpoint).held]
    return [(ordinal, fault.kind) for ordinal, fault in found if fault is not None]


def probe_all(made: Scheduler, now: float) -> None:
    for name in ("a", "b", "c"):
        if name in made._state.holders:
            made.on_probe(name, MODELS, None, now)


def test_what_hung_beside_another_is_asked_again_at_no_cost_and_apart() -> None:
    # given an endpoint whose model hung with four requests in it, of which one had reached its limit
    made = scheduler("a", slots=4)
    backlog = add(made, 4)
    first, *others = made.assign(0.0)
    timeout = Fault(FaultKind.TIMEOUT, "no answer", Remedy.ELSEWHERE, harm=Harm.STRIKE)
    fail(made, first, timeout, 1.0)

    # when the others are broken off
    for lease in others:
        fail(made, lease, HUNG, 2.0)

    # then that one alone has paid
    assert backlog.attempts == {first.ordinal: 1}
    # and no two of the others are asked side by side
    again = made.assign(100.0)
    assert sum(lease.ordinal != first.ordinal for lease in again) == 1


def test_only_neighbour_of_what_hung_has_not_paid_either_however_often() -> None:
    made = scheduler("a", slots=2)
    backlog = add(made, 1)

    for now in (0.0, 100.0, 200.0):
        (lease,) = made.assign(now)
        assert fail(made, lease, HUNG, now + 1.0) is None

    assert backlog.attempts == {}


class TestOnePoisonPrompt:
    def test_it_fails_after_three_crashes_whatever_attempts_is(self) -> None:
        made = scheduler("a", "b")
        add(made, 1)
        failed: list[tuple[int, str]] = []

        now = 0.0
        for _ in range(CRASHES):
            now += 100.0
            probe_all(made, now)
            (lease,) = made.assign(now)
            failed += crash(made, lease.endpoint, now + 1.0)

        assert failed == [(0, "poison")]

    def test_its_failure_says_where_it_crashed_what(self) -> None:
        made = scheduler("a", "b")
        add(made, 1)
        last = None
        for now in (10.0, 15.0, 25.0):
            probe_all(made, now)
            (lease,) = made.assign(now)
            last = fail(made, lease, CRASHED, now + 1.0)

        assert last is not None
        assert wording("the-model-s-process-crashed-each") in last.message
        assert last.remedy is Remedy.NEVER

    def test_fewer_attempts_are_counted_as_before(self) -> None:
        made = scheduler("a")
        add(made, 1, limit=2)
        made.assign(0.0)
        assert crash(made, "a", 1.0) == []

        made.assign(100.0)

        assert crash(made, "a", 101.0) == [(0, "crashed")]

    def test_lost_workers_count_like_crashes(self) -> None:
        made = scheduler("a", "b")
        add(made, 1)
        found = None
        for now, fault in ((10.0, CRASHED), (110.0, worker_lost()), (210.0, worker_lost())):
            probe_all(made, now)
            (lease,) = made.assign(now)
            found = fail(made, lease, fault, now + 1.0)

        assert found is not None
        assert (found.kind, wording("the-worker-process") in found.message) == ("poison", True)

    def test_other_faults_between_the_crashes_change_nothing(self) -> None:
        made = scheduler("a")
        add(made, 1)
        busy = Fault(FaultKind.BUSY, "busy", Remedy.HERE, costs_attempt=False)
        outcomes = []
        for step, fault in enumerate((CRASHED, busy, CRASHED, busy, CRASHED), 1):
            probe_all(made, step * 100.0)
            (lease,) = made.assign(step * 100.0)
            outcomes.append(fail(made, lease, fault, step * 100.0 + 1.0))

        assert outcomes[:4] == [None] * 4
        assert outcomes[4] is not None


class TestNeighbours:
    def test_crash_beside_others_costs_nobody_an_attempt(self) -> None:
        made = scheduler("a", slots=4)
        backlog = add(made, 4, limit=1)
        made.assign(1.0)

        assert crash(made, "a", 2.0) == []

        assert backlog.attempts == {}
        assert backlog.unfinished == 4

    def test_lost_worker_costs_nobody_of_many_an_attempt(self) -> None:
        made = scheduler("a", slots=4)
        add(made, 4, limit=1)

        assert [fail(made, lease, worker_lost(), 2.0) for lease in made.assign(1.0)] == [None] * 4

    def test_attempts_are_numbered_on_though_they_cost_nothing(self) -> None:
        made = scheduler("a", slots=2)
        add(made, 2)
        made.assign(1.0)
        crash(made, "a", 2.0)

        assert [lease.attempt for lease in made.assign(100.0)] == [2]

    def test_two_of_one_crash_are_not_asked_side_by_side(self) -> None:
        made = scheduler("a", "b", slots=4)
        add(made, 12)
        made.assign(1.0)
        crash(made, "a", 2.0)
        for lease in made.endpoint("b").held:
            made.answered(lease.ticket, "b", 3.0)

        for _ in range(3):
            made.assign(100.0)

        held = {name: sum(lease.attempt > 1 for lease in made.endpoint(name).held) for name in ("a", "b")}
        assert held == {"a": 1, "b": 1}
        assert made.endpoint("a").in_flight + made.endpoint("b").in_flight == 6  # four new ones beside them

    def test_those_of_a_lost_worker_are(self) -> None:
        made = scheduler("a", slots=4)
        add(made, 4)
        for lease in made.assign(1.0):
            fail(made, lease, worker_lost(), 2.0)

        assert len(made.assign(100.0)) == 4

    def test_after_two_crashes_a_request_is_asked_alone(self) -> None:
        # given four neighbours of one crash, of which the first was in a second one, beside new requests
        made = scheduler("a", slots=4)
        add(made, 20)
        made.assign(1.0)
        crash(made, "a", 2.0)
        again = made.assign(100.0)
        assert [lease.attempt for lease in again].count(2) == 1
        crash(made, "a", 101.0)
        twice = next(lease.ordinal for lease in again if lease.attempt == 2)

        # when the endpoint is free
        seen: list[tuple[int, int]] = []
        now = 200.0
        while made.assign(now):
            probe_all(made, now)
            seen += [(lease.ordinal, made.endpoint("a").in_flight) for lease in made.endpoint("a").held]
            for lease in made.endpoint("a").held:
                made.answered(lease.ticket, "a", now + 0.5)
            now += 1.0

        # then nothing else was in flight beside it
        assert [beside for ordinal, beside in seen if ordinal == twice] == [1]

    def test_endpoint_that_always_has_work_is_kept_free_for_it_after_a_while(self) -> None:
        made = scheduler("a", slots=2)
        add(made, 1000)
        made.assign(1.0)
        crash(made, "a", 2.0)
        (first, *_) = [lease for lease in made.assign(50.0) if lease.attempt == 2]
        crash(made, "a", 51.0)

        now, asked_at = 60.0, 0.0
        made.assign(now)
        while not asked_at and now < 500.0:
            now += 1.0
            oldest = min(made.endpoint("a").held, key=lambda lease: lease.ticket)
            made.answered(oldest.ticket, "a", now)
            made.assign(now)
            if any(lease.ordinal == first.ordinal for lease in made.endpoint("a").held):
                asked_at = now

        assert made.endpoint("a").in_flight == 1
        assert 51.0 + ELSEWHERE_SECONDS <= asked_at <= 51.0 + ELSEWHERE_SECONDS + 35.0

    def test_answer_clears_it(self) -> None:
        made = scheduler("a", slots=2)
        add(made, 2)
        made.assign(1.0)
        crash(made, "a", 2.0)
        for now in (100.0, 101.0):
            (lease,) = made.assign(now)
            made.answered(lease.ticket, "a", now)

        assert len(made._state.suspects) == 0

    def test_load_that_fails_after_a_crash_costs_nobody_an_attempt(self) -> None:
        made = scheduler("a", slots=2)
        backlog = add(made, 3, limit=1)
        made.assign(1.0)
        crash(made, "a", 2.0)
        (lease, *_) = made.assign(3.0)
        assert fail(made, lease, LOAD_FAILED, 4.0) is None
        for held in made.endpoint("a").held:
            made.answered(held.ticket, "a", 5.0)
        assert backlog.attempts == {}

        (late, *_) = made.assign(3.0 + RELOAD_SECONDS)

        assert fail(made, late, LOAD_FAILED, 4.0 + RELOAD_SECONDS) is not None


class TestEndpoints:
    def test_crash_of_many_requests_is_one_strike(self) -> None:
        made = scheduler("a", slots=16)
        add(made, 16)
        made.assign(1.0)

        crash(made, "a", 2.0)

        assert made.endpoint("a").health.state is EndpointState.UP

    def test_request_that_crashes_two_endpoints_clears_both(self) -> None:
        made = scheduler("a", "b")
        add(made, 3)
        for lease in made.assign(1.0):
            made.answered(lease.ticket, lease.endpoint, 1.5)
        for name in ("a", "b"):
            health = made.endpoint(name).health
            for _ in range(4):
                health.on_fault(Harm.STRIKE, "it crashed", 2.0, 2.0, is_crash=True)
            made.on_probe(name, MODELS, None, health.retry_at)
        assert [made.endpoint(name).health.state for name in ("a", "b")] == [EndpointState.SUSPECT] * 2

        (lease,) = made.assign(10.0)
        crash(made, lease.endpoint, 11.0)
        assert made.endpoint("a").health.state is EndpointState.DOWN
        (lease,) = made.assign(12.0)
        crash(made, lease.endpoint, 13.0)

        for name in ("a", "b"):
            made.on_probe(name, MODELS, None, 13.0)
            assert made.endpoint(name).health.state is EndpointState.UP

    def test_endpoint_at_which_everything_crashes_is_put_aside_with_growing_pauses(self) -> None:
        made = scheduler("a", "b")
        add(made, 100)
        pauses: list[float] = []
        now = 1.0
        for _ in range(60):
            for lease in made.assign(now):
                crash(made, lease.endpoint, now + 0.1)
            health = made.endpoint("a").health
            if health.state is EndpointState.DOWN:
                pauses.append(health.retry_at - now)
                now = max(now, made.endpoint("a").health.retry_at, made.endpoint("b").health.retry_at)
            probe_all(made, now)
            now += 1.0

        assert pauses[-1] > 40.0
        assert pauses[:5] == sorted(pauses[:5])

    def test_faults_of_other_kinds_are_not_taken_back(self) -> None:
        made = scheduler("a")
        health = made.endpoint("a").health
        health.on_answer(1.0)
        for _ in range(4):
            health.on_fault(Harm.STRIKE, "no answer", 2.0, 2.0)

        health.forgive_crashes(3.0)

        assert health.state is EndpointState.DOWN


@pytest.mark.parametrize("seed", range(8))
def test_each_poison_prompt_of_a_job_fails_and_no_other(seed: int) -> None:
    """Three endpoints of eight slots: a runner that is asked poison dies of it with all it works on."""
    chance = random.Random(seed)
    poison = set(chance.sample(range(300), 12))
    made = scheduler("a", "b", "c", slots=8)
    backlog = add(made, 300, limit=4)
    failed: dict[int, str] = {}
    crashes, now = 0, 1.0

    while backlog.unfinished:
        assert now < 3000.0
        now += 0.5
        probe_all(made, now)
        made.assign(now)
        for name in ("a", "b", "c"):
            leases = made.endpoint(name).held
            doomed = [lease for lease in leases if lease.ordinal in poison]
            if doomed and chance.random() < 0.5:
                crashes += 1
                failed |= dict(crash(made, name, now))
            elif leases:
                ended = chance.choice(leases)
                if ended.ordinal not in poison:
                    made.answered(ended.ticket, name, now)

    assert failed == dict.fromkeys(poison, "poison")
    assert crashes <= CRASHES * len(poison)


# --- the end of whole servers ----------------------------------------------------------------------------------------


class TestServersThatEnd:
    def test_r26_request_that_ends_its_server_each_time_fails_alone(self) -> None:
        # given a server of four slots that ends whenever one of its requests is there; `attempts` is 1
        made = scheduler("a", slots=4)
        backlog = add(made, 12, limit=1)
        failed: dict[int, str] = {}
        now, ends = 0.0, 0

        while backlog.unfinished:
            now += 70.0
            probe_all(made, now)
            made.assign(now)
            leases = made.endpoint("a").held
            ends += (is_end := any(lease.ordinal == 5 for lease in leases))
            for lease in leases:
                if not is_end:
                    made.answered(lease.ticket, "a", now + 1.0)
                elif (fault := fail(made, lease, server_ended(), now + 1.0)) is not None:
                    failed[lease.ordinal] = fault.kind

        assert failed == {5: "poison"}
        assert ends == CRASHES

    def test_lone_request_pays_nothing_for_a_restart(self) -> None:
        made = scheduler("a")
        backlog = add(made, 1, limit=1)
        for now in (0.0, 100.0):
            probe_all(made, now)
            (lease,) = made.assign(now)
            assert fail(made, lease, server_ended(), now + 1.0) is None

        probe_all(made, 200.0)
        (lease,) = made.assign(200.0)

        assert (backlog.attempts, lease.attempt) == ({}, 3)

    def test_its_failure_says_that_the_server_ended(self) -> None:
        made = scheduler("a", "b")
        add(made, 1)
        found = None
        for now in (10.0, 110.0, 210.0):
            probe_all(made, now)
            (lease,) = made.assign(now)
            found = fail(made, lease, server_ended(), now + 1.0)

        assert found is not None
        assert wording("the-server-ended-each-of") in found.message

    def test_connection_that_breaks_of_a_request_sent_alone_is_the_third_crash(self) -> None:
        made = scheduler("a")
        add(made, 1)
        cut = Fault(FaultKind.CUT, "it broke", Remedy.ELSEWHERE, harm=Harm.STRIKE)
        outcomes = []
        for now, fault in ((10.0, server_ended()), (110.0, server_ended()), (210.0, cut)):
            probe_all(made, now)
            (lease,) = made.assign(now)
            outcomes.append(fail(made, lease, fault, now + 1.0))

        assert [fault and fault.kind for fault in outcomes] == [None, None, "poison"]

    def test_connection_that_breaks_otherwise_costs_an_attempt(self) -> None:
        made = scheduler("a")
        backlog = add(made, 1)
        (lease,) = made.assign(1.0)

        fail(made, lease, Fault(FaultKind.CUT, "it broke", Remedy.ELSEWHERE, harm=Harm.STRIKE), 2.0)

        assert backlog.attempts == {0: 1}

    def test_server_that_ends_beside_many_is_one_strike(self) -> None:
        made = scheduler("a", slots=16)
        add(made, 16)
        for lease in made.assign(1.0):
            fail(made, lease, server_ended(), 2.0)

        assert made.endpoint("a").health.state is EndpointState.UP

    def test_request_that_waited_for_a_slot_or_the_load_is_no_suspect(self) -> None:
        made = scheduler("a", slots=4)
        backlog = add(made, 4, limit=1)
        waited = replace(CRASHED, harm=Harm.NONE, costs_attempt=False, reached_model=False)
        first, *others = made.assign(1.0)

        fail(made, first, CRASHED, 2.0)
        for lease in others:
            fail(made, lease, waited, 2.0)

        assert backlog.attempts == {}
        assert made.endpoint("a").health.state is EndpointState.UP
        assert {lease.ordinal for lease in made.assign(100.0)} == {0, 1, 2, 3}  # nobody is kept apart

    def test_r27_those_that_waited_are_one_strike_with_the_crash_whichever_is_reported_first(self) -> None:
        made = scheduler("a", slots=8)
        backlog = add(made, 8, limit=1)
        waited = replace(CRASHED, harm=Harm.NONE, costs_attempt=False, reached_model=False)
        *others, last = made.assign(1.0)

        for lease in others:
            fail(made, lease, waited, 2.0)
        fail(made, last, CRASHED, 2.0)

        assert (backlog.attempts, made.endpoint("a").health.state) == ({}, EndpointState.UP)

    def test_endpoint_whose_process_never_comes_back_is_put_aside(self) -> None:
        made = scheduler("a")
        add(made, 9)
        waited = replace(CRASHED, harm=Harm.NONE, costs_attempt=False, reached_model=False)

        for step in range(4):
            (lease,) = made.assign(100.0 * step)
            fail(made, lease, waited, 100.0 * step + 1.0)

        assert made.endpoint("a").health.state is EndpointState.DOWN

    def test_where_servers_end_for_outside_reasons_a_request_is_poison_only_after_more_crashes(self) -> None:
        # given a server that was killed under a request which was answered later
        made = scheduler("a")
        add(made, 1)
        now = 0.0

        def crash_once() -> Fault | None:
            nonlocal now
            now += 100.0
            probe_all(made, now)
            (lease,) = made.assign(now)
            return fail(made, lease, server_ended(), now + 1.0)

        crash_once()
        now += 100.0
        probe_all(made, now)
        (lease,) = made.assign(now)
        made.answered(lease.ticket, "a", now)

        # when another request is in four
        made.add_job(Backlog("k", bytes(1), (MODEL,), limit=LIMIT), now)
        outcomes = [crash_once() for _ in range(4)]

        assert [fault and fault.kind for fault in outcomes] == [None, None, None, "poison"]


@pytest.mark.parametrize("seed", range(4))
def test_r26_no_innocent_of_2000_fails_beside_five_that_end_their_server(seed: int) -> None:
    """Two servers of eight slots, of which one is also killed from outside now and then; `attempts` is 1."""
    chance = random.Random(seed)
    poison = set(chance.sample(range(2000), 5))
    made = scheduler("a", "b", slots=8)
    backlog = add(made, 2000, limit=1)
    failed: dict[int, str] = {}
    now = 1.0

    while backlog.unfinished:
        assert now < 5000.0
        now += 0.5
        probe_all(made, now)
        made.assign(now)
        for name in ("a", "b"):
            leases = made.endpoint(name).held
            is_killed = name == "a" and chance.random() < 0.01
            if leases and (is_killed or any(lease.ordinal in poison for lease in leases)):
                for lease in leases:
                    if (fault := fail(made, lease, server_ended(), now)) is not None:
                        failed[lease.ordinal] = fault.kind
            for lease in made.endpoint(name).held:
                if chance.random() < 0.5:
                    made.answered(lease.ticket, name, now)

    assert failed == dict.fromkeys(poison, "poison")
