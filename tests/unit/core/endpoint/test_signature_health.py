"""Endpoints that cannot serve a signature as they should: left out for it, looked at again, taken back."""

from __future__ import annotations

import itertools

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.health import EndpointState
from obcd.core.endpoint.signature_health import LOOK_BASE, LOOK_LIMIT
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.attempt_count import FREE_FAULTS
from obcd.core.scheduling.scheduler import Scheduler
from tests.golden.wording import wording

SMALL, LARGE = Signature("llama:latest", (("num_ctx", 512),)), Signature("llama:latest", (("num_ctx", 8192),))
UNFIT = Fault(
    FaultKind.OFF_GPU, "only 50 % of it is on the GPU", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.UNFIT
)


def scheduler(*names: str, slots: int = 4) -> Scheduler:
    made = Scheduler()
    for name in names:
        made.add_endpoint(name, slots, 0.0)
        made.on_probe(name, {"llama:latest": "d"}, None, 0.0)
    return made


def add(made: Scheduler, job: str, count: int, signature: Signature = LARGE) -> Backlog:
    backlog = Backlog(job, bytes(count), (signature,), limit=1)
    made.add_job(backlog, 0.0)
    return backlog


def fail_all(made: Scheduler, endpoint: str, now: float) -> int:
    """Have everything that an endpoint holds fail as unfit; returns how much that is."""
    leases = made.endpoint(endpoint).held
    for lease in leases:
        settled = made.faulted(lease.ticket, endpoint, UNFIT, now)
        assert settled is not None
        assert not settled[1]
    return len(leases)


def test_endpoint_is_left_out_for_the_signature_alone_and_stays_up() -> None:
    made = scheduler("a", "b")
    backlog = add(made, "j", 40)
    made.assign(0.0)

    fail_all(made, "a", 1.0)

    assert {lease.endpoint for lease in made.assign(1.1)} == set()  # b is full
    assert made.endpoint("a").health.state is EndpointState.UP
    assert made.unfit() == {"a": {wording("llama-only-50-of-it-lies")}}
    assert backlog.attempts == {}
    add(made, "small", 40, SMALL)
    assert {(lease.endpoint, lease.job) for lease in made.assign(1.2)} == {("a", "small")}


def test_one_request_looks_again_after_each_pause_and_the_pauses_grow() -> None:
    # given the only endpoint
    made = scheduler("a")
    backlog = add(made, "j", 40)
    made.assign(0.0)
    fail_all(made, "a", 0.0)

    # when it stays as it is for an hour
    looks, now = [], 0.0
    while now < 3600:
        now += 0.5
        if made.assign(now):
            looks.append(now)
            assert fail_all(made, "a", now + 0.1) == 1

    # then it is looked at by one request each time, ever more seldom, and none has paid for it
    pauses = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert 0.7 * LOOK_BASE <= looks[0] <= LOOK_BASE + 31
    assert 0.7 * LOOK_LIMIT <= pauses[-1] <= LOOK_LIMIT + 31
    assert backlog.attempts == {}
    assert made.unserved() == {wording("no-endpoint-serves-llama-as-it")}


def test_answer_takes_it_back_with_all_slots() -> None:
    made = scheduler("a")
    add(made, "j", 40)
    made.assign(0.0)
    fail_all(made, "a", 0.0)
    (lease,) = made.assign(100.0)
    revision = made.revision

    assert made.answered(lease.ticket, "a", 101.0) == lease

    assert made.unfit() == {}
    assert made.revision > revision
    assert len(made.assign(101.0)) == 4


def test_answer_to_what_was_sent_before_the_look_takes_nothing_back() -> None:
    made = scheduler("a")
    add(made, "j", 40)
    first, *others = made.assign(0.0)
    made.faulted(first.ticket, "a", UNFIT, 1.0)

    for lease in others:
        made.answered(lease.ticket, "a", 2.0)

    assert list(made.unfit()) == ["a"]
    assert made.assign(2.0) == []


def test_faults_of_what_was_sent_before_the_look_do_not_lengthen_the_pause() -> None:
    made = scheduler("a", slots=64)
    add(made, "j", 100)
    made.assign(0.0)

    fail_all(made, "a", 1.0)

    assert made.assign(1.0 + LOOK_BASE + 30.0) != []


def test_work_that_waits_is_in_no_trouble_while_one_endpoint_serves_it() -> None:
    made = scheduler("a", "b")
    add(made, "j", 40)
    made.assign(0.0)

    fail_all(made, "a", 1.0)

    assert made.unserved() == set()


def test_all_is_forgotten_when_something_else_is_wanted() -> None:
    made = scheduler("a")
    add(made, "j", 40)
    made.assign(0.0)
    fail_all(made, "a", 1.0)

    made.forgive_unfit()

    assert made.unfit() == {}


def test_weights_of_an_unfit_endpoint_do_not_bind_a_job_that_begins() -> None:
    # given the larger one unfit
    made = Scheduler()
    for name, slots, digest in (("large", 8, "x"), ("small", 2, "y")):
        made.add_endpoint(name, slots, 0.0)
        made.on_probe(name, {"llama:latest": digest}, None, 0.0)
    add(made, "first", 4)
    made.assign(0.0)
    fail_all(made, "large", 1.0)

    # when another job begins
    add(made, "second", 2)

    # then it begins where it can
    assert {(lease.job, lease.endpoint) for lease in made.assign(1.0)} == {("second", "small")}


def test_request_that_meets_unfit_endpoints_for_ever_never_pays() -> None:
    made = scheduler("a", slots=1)
    backlog = add(made, "j", 1)
    now, looks = 0.0, 0
    while looks <= FREE_FAULTS:
        now += LOOK_LIMIT + 31
        made.assign(now)
        looks += fail_all(made, "a", now + 1)

    assert backlog.unfinished == 1
    assert backlog.attempts == {}
