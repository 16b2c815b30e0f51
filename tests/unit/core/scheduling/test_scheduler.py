"""Who asks what next: slots, turns, elsewhere first, collation, and what happens to what fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy, worker_lost
from obcd.core.endpoint.health import EndpointState
from obcd.core.endpoint.retry import REQUEST_LIMIT
from obcd.core.endpoint.yielding import REST_AFTER_ANSWERS, REST_SECONDS
from obcd.core.pending.backlog import ELSEWHERE_SECONDS, Backlog
from obcd.core.pending.fair_share import Rank
from obcd.core.request.records import Signature
from obcd.core.scheduling.attempt_count import FREE_FAULTS
from obcd.core.scheduling.groups import COLLATE_SECONDS
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.missing_models import (
    MODEL_WAIT_HOSTS_SECONDS,
    MODEL_WAIT_SECONDS,
    MODEL_WAIT_UNREACHED_SECONDS,
    MissingModel,
)
from obcd.core.scheduling.poison import CRASHES
from obcd.core.scheduling.scheduler import Scheduler
from tests.golden.wording import wording

LLAMA, QWEN = Signature("llama:latest", ()), Signature("qwen:latest", ())
BOTH_MODELS = {LLAMA.model: "d", QWEN.model: "d"}

TROUBLE = Fault(FaultKind.SERVER_ERROR, "it is in trouble", Remedy.ELSEWHERE, harm=Harm.STRIKE)
UNREACHABLE = Fault(FaultKind.UNREACHABLE, "refused", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN)
BUSY = Fault(FaultKind.BUSY, "busy", Remedy.HERE, costs_attempt=False)
REFUSED = Fault(FaultKind.BAD_REQUEST, "refused", Remedy.NEVER)
IS_REFUSED = replace(TROUBLE, harm=Harm.NONE, is_refusal=True)
MISSING = Fault(FaultKind.MODEL_MISSING, "not there", Remedy.ELSEWHERE)

#: A job's `attempts` here.
LIMIT = 4


def scheduler(*endpoints: str, slots: int = 1, models: Mapping[str, str] = BOTH_MODELS) -> Scheduler:
    made = Scheduler()
    for name in endpoints or ("a",):
        made.add_endpoint(name, slots, 0.0)
        made.on_probe(name, models, None, 0.0)
    return made


def add(made: Scheduler, job: str, count: int, *, now: float = 0.0, column: bytes = b"", priority: int = 0) -> Backlog:
    """Add a job of LLAMA requests; with a column, LLAMA is 0 and QWEN is 1."""
    backlog = Backlog(
        job, bytes(count), (LLAMA, QWEN) if column else (LLAMA,), column, limit=LIMIT, rank=Rank(priority)
    )
    made.add_job(backlog, now)
    return backlog


def add_qwen(made: Scheduler, job: str, count: int, *, now: float = 0.0, priority: int = 0) -> Backlog:
    backlog = Backlog(job, bytes(count), (QWEN,), limit=LIMIT, rank=Rank(priority))
    made.add_job(backlog, now)
    return backlog


def asked(leases: Iterable[Lease]) -> list[tuple[str, str, int]]:
    return [(lease.endpoint, lease.job, lease.ordinal) for lease in leases]


def answer(made: Scheduler, leases: Iterable[Lease], now: float) -> None:
    for lease in leases:
        assert made.answered(lease.ticket, lease.endpoint, now) == lease


def fault(made: Scheduler, lease: Lease, what: Fault, now: float) -> bool:
    """End a lease with a fault; returns whether the request failed for good."""
    settled = made.faulted(lease.ticket, lease.endpoint, what, now)
    assert settled is not None
    assert settled[0] == lease
    return settled[1]


class TestSlots:
    def test_in_flight_is_never_above_the_slots(self) -> None:
        made = scheduler("a", "b", slots=3)
        add(made, "j", 100)

        leases = made.assign(0.0)

        assert [made.endpoint("a").in_flight, made.endpoint("b").in_flight] == [3, 3]
        assert made.assign(0.0) == []
        answer(made, leases[:1], 1.0)
        assert len(made.assign(1.0)) == 1

    def test_endpoint_that_yields_gets_nothing_while_it_rests(self) -> None:
        made = scheduler(slots=2)
        made.endpoint("a").set_yielding(is_yielding=True)
        add(made, "j", 100)
        now, leases = 1000.0, made.assign(1000.0)
        while len(leases) == 2:  # ten seconds each
            now += 5.0
            answer(made, leases[:1], now)
            leases = leases[1:] + made.assign(now)

        answer(made, leases, now + 1)

        assert now == 1000.0 + REST_AFTER_ANSWERS * 10
        assert made.assign(now + 1) == []
        due = made.next_due(now + 1)
        assert due == now + 1 + REST_SECONDS
        assert made.assign(due) == []
        assert made.endpoint("a").has_look_due(due)
        made.endpoint("a").on_models({LLAMA.model: 0.0}, due, due)
        assert len(made.assign(due)) == 2
        assert not made.endpoint("a").has_look_due(due)

    def test_all_endpoints_start_together(self) -> None:
        made = scheduler("a", "b", slots=2)
        add(made, "j", 4)

        assert asked(made.assign(0.0)) == [("a", "j", 0), ("b", "j", 1), ("a", "j", 2), ("b", "j", 3)]

    def test_endpoint_that_was_not_probed_gets_nothing(self) -> None:
        made = Scheduler()
        made.add_endpoint("a", 4, 0.0)
        add(made, "j", 4)

        assert made.assign(0.0) == []

    def test_endpoint_without_the_model_gets_nothing(self) -> None:
        made = scheduler("a")
        made.on_probe("a", {"other:latest": "d"}, None, 0.0)
        add(made, "j", 4)

        assert made.assign(0.0) == []

    def test_answer_that_nobody_was_asked_for_speaks_neither_for_an_endpoint_nor_for_its_pace(self) -> None:
        made = scheduler(slots=4)
        add(made, "j", 10)
        fault(made, made.assign(0.0)[0], UNREACHABLE, 0.0)
        made.on_probe("a", BOTH_MODELS, None, 100.0)
        for lease in made.endpoint("a").held:
            assert made.answered(lease.ticket, "a", 101.0, None) == lease
        assert made.endpoint("a").health.state is EndpointState.SUSPECT
        assert made.endpoint("a").pace.mean is None

        answer(made, made.assign(102.0), 105.0)

        assert made.endpoint("a").health.state is EndpointState.UP
        assert made.endpoint("a").pace.mean == 3.0

    def test_suspect_endpoint_gets_one_at_a_time_until_it_answers(self) -> None:
        # given an endpoint that went down and came back
        made = scheduler("a", slots=4)
        add(made, "j", 20)
        leases = made.assign(0.0)
        fault(made, leases[0], UNREACHABLE, 0.0)
        answer(made, leases[1:], 0.5)
        made.on_probe("a", BOTH_MODELS, None, 100.0)

        # when, then
        trial = made.assign(100.0)
        assert len(trial) == 1
        assert made.assign(100.0) == []
        answer(made, trial, 101.0)
        assert len(made.assign(101.0)) == 4

    def test_each_lease_has_a_ticket_of_its_own(self) -> None:
        made = scheduler("a", "b", slots=8)
        add(made, "j", 16)

        assert len({lease.ticket for lease in made.assign(0.0)}) == 16


class TestTurns:
    def test_jobs_take_turns(self) -> None:
        made = scheduler("a", slots=6)
        for job in ("big", "mid", "small"):
            add(made, job, 10)

        assert [job for _, job, _ in asked(made.assign(0.0))] == ["big", "mid", "small"] * 2

    def test_late_small_job_does_not_wait_for_the_big_one(self) -> None:
        made = scheduler("a")
        add(made, "big", 1_000)
        answer(made, made.assign(0.0), 1.0)

        add(made, "small", 1, now=1.0)

        assert [job for _, job, _ in asked(made.assign(1.0))] == ["small"]

    def test_higher_priority_is_served_first(self) -> None:
        made = scheduler("a", slots=3)
        add(made, "low", 5)
        add(made, "high", 2, priority=10)

        assert [job for _, job, _ in asked(made.assign(0.0))] == ["high", "high", "low"]

    def test_submitters_take_turns_however_many_jobs_each_has(self) -> None:
        made = scheduler("a", slots=6)
        for number in range(5):
            add(made, f"ann{number}", 9)
        made.add_job(Backlog("bob", bytes(9), (LLAMA,), limit=LIMIT, submitter=1), 0.0)

        order = [job for _, job, _ in asked(made.assign(0.0))]

        assert order.count("bob") == 3

    def test_own_priority_orders_ones_own_jobs_and_nobody_elses(self) -> None:
        made = scheduler("a", slots=6)
        add(made, "ann", 9)
        for job, rank in (("low", Rank(0, -1)), ("high", Rank(0, 100))):
            made.add_job(Backlog(job, bytes(9), (LLAMA,), limit=LIMIT, submitter=1, rank=rank), 0.0)

        order = [job for _, job, _ in asked(made.assign(0.0))]

        assert (order.count("ann"), order.count("high")) == (3, 3)

    def test_paused_job_gets_no_slot_and_wakes_nobody(self) -> None:
        made = scheduler("a", slots=4)
        paused = add(made, "paused", 4)
        (first, *_) = made.assign(0.0)
        fault(made, first, TROUBLE, 1.0)
        paused.is_paused = True
        add(made, "goes on", 1)

        assert made.next_due(1.0) is None
        assert [job for _, job, _ in asked(made.assign(100.0))] == ["goes on"]

        paused.is_paused = False
        made.endpoint("a").set_slots(5)
        assert [job for _, job, _ in asked(made.assign(100.0))] == ["paused"]

    def test_model_of_a_paused_job_is_missed_by_nobody(self) -> None:
        made = scheduler("a")
        add_qwen(made, "paused", 2).is_paused = True
        made.on_probe("a", {LLAMA.model: "d"}, None, 0.0)

        made.take_unservable(9, 0.0)

        assert made.take_unservable(9, 1e6) == []

    def test_missing_model_is_waited_for_longer_while_hosts_may_come(self) -> None:
        made = scheduler("a")
        made.expect_hosts(True)
        add_qwen(made, "j", 1)
        made.on_probe("a", {LLAMA.model: "d"}, None, 0.0)

        assert made.take_unservable(9, 0.0) == []
        assert made.take_unservable(9, MODEL_WAIT_HOSTS_SECONDS) == []
        assert made.missing()
        assert [item.job for item in made.take_unservable(9, MODEL_WAIT_HOSTS_SECONDS + 1.0)] == ["j"]

    def test_removed_job_gets_no_slot(self) -> None:
        made = scheduler("a", slots=4)
        add(made, "gone", 4)
        add(made, "stays", 1)

        made.remove_job("gone")

        assert asked(made.assign(0.0)) == [("a", "stays", 0)]


class TestFaults:
    def test_failed_attempt_goes_elsewhere_first(self) -> None:
        made = scheduler("a", "b")
        add(made, "j", 1)
        (lease,) = made.assign(0.0)
        assert lease.endpoint == "a"

        assert not fault(made, lease, TROUBLE, 1.0)

        (second,) = made.assign(10.0)
        assert (second.endpoint, second.ordinal, second.attempt) == ("b", 0, 2)

    def test_request_that_failed_on_every_endpoint_is_tried_until_its_attempts_are_over(self) -> None:
        # given two endpoints, both of which could take it
        made = scheduler("a", "b")
        backlog = add(made, "j", 1)

        # when it fails wherever it is sent; answers of others keep the endpoints up
        seen, now = [], 0.0
        while backlog.unfinished:
            now += REQUEST_LIMIT
            for name in ("a", "b"):
                made.endpoint(name).health.on_answer(now)
            (lease,) = made.assign(now)
            seen.append(lease.endpoint)
            fault(made, lease, TROUBLE, now)

        # then it went round, and did not hang
        assert seen == ["a", "b", "a", "b"]

    def test_one_endpoint_alone_gets_it_again_after_a_pause(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)
        fault(made, made.assign(0.0)[0], TROUBLE, 0.0)

        assert made.assign(0.1) == []
        due = made.next_due(0.1)
        assert due is not None
        assert [lease.attempt for lease in made.assign(due)] == [2]

    def test_what_one_endpoint_may_not_take_does_not_keep_it_from_other_work(self) -> None:
        # given a and b with llama loaded, b busy, and a request that failed at a
        made = scheduler("a", "b")
        add(made, "j", 2)
        first, second = made.assign(0.0)
        fault(made, first, TROUBLE, 0.0)
        assert second.endpoint == "b"

        # when only work of another model is left that a may take
        add_qwen(made, "q", 1)

        # then a does not stand idle
        assert asked(made.assign(5.0)) == [("a", "q", 0)]

    def test_elsewhere_is_not_waited_for_without_end(self) -> None:
        made = scheduler("a", "b")
        add(made, "j", 2)
        first, _ = made.assign(0.0)
        fault(made, first, TROUBLE, 0.0)

        assert made.assign(ELSEWHERE_SECONDS - 1) == []
        assert asked(made.assign(ELSEWHERE_SECONDS + 1)) == [("a", "j", 0)]

    def test_never_ends_the_request_at_once(self) -> None:
        made = scheduler("a")
        backlog = add(made, "j", 1)

        assert fault(made, made.assign(0.0)[0], REFUSED, 1.0)

        assert backlog.unfinished == 0
        assert made.assign(100.0) == []

    @pytest.mark.parametrize("endpoints", [("a",), ("a", "b", "c")])
    def test_r24_refused_request_is_sent_twice_at_most_and_harms_no_endpoint(self, endpoints: tuple[str, ...]) -> None:
        # given sixty requests that every endpoint refuses
        made = scheduler(*endpoints, slots=4)
        backlog = add(made, "j", 60)
        sent: dict[int, list[str]] = {}

        # when all are sent until they fail
        now = 0.0
        while backlog.unfinished:
            now += 1.0
            for lease in made.assign(now):
                sent.setdefault(lease.ordinal, []).append(lease.endpoint)
                fault(made, lease, IS_REFUSED, now)

        # then each was sent twice, elsewhere the second time where there is another endpoint
        assert {len(names) for names in sent.values()} == {2}
        assert {len(set(names)) for names in sent.values()} == {min(2, len(endpoints))}
        assert {made.endpoint(name).health.state for name in endpoints} == {EndpointState.UP}

    def test_r24_request_whose_fault_is_examined_occupies_no_slot(self) -> None:
        made = scheduler("a", slots=2)
        add(made, "j", 5)
        first, second = made.assign(0.0)

        for lease in (first, second):
            made.endpoint("a").on_weighed(lease.ticket)
        others = made.assign(0.0)
        assert len(others) == 2
        assert made.assign(0.0) == []

        fault(made, first, IS_REFUSED, 1.0)
        fault(made, second, IS_REFUSED, 1.0)
        assert made.assign(1.0) == []
        answer(made, others, 2.0)
        assert made.endpoint("a").health.state is EndpointState.UP

    def test_suspect_endpoint_gets_nothing_beside_what_is_examined(self) -> None:
        made = scheduler("a", slots=4)
        add(made, "j", 9)
        for lease in made.assign(0.0)[:3]:
            fault(made, lease, TROUBLE, 1.0)
        assert made.endpoint("a").health.state is EndpointState.SUSPECT
        (last,) = made.endpoint("a").held

        made.endpoint("a").on_weighed(last.ticket)

        assert made.assign(100.0) == []

    def test_one_refusal_and_one_fault_of_an_endpoint_are_two_attempts(self) -> None:
        made = scheduler("a", slots=1)
        backlog = add(made, "j", 1)
        outcomes = []
        for now, what in ((0.0, IS_REFUSED), (100.0, TROUBLE), (200.0, IS_REFUSED)):
            (lease,) = made.assign(now)
            outcomes.append(fault(made, lease, what, now))

        assert outcomes == [False, False, True]
        assert backlog.unfinished == 0

    def test_request_out_of_attempts_has_failed(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)

        endings = []
        for attempt in range(1, LIMIT + 1):
            made.endpoint("a").health.on_answer(attempt * 100.0)
            (lease,) = made.assign(attempt * 100.0)
            assert lease.attempt == attempt
            endings.append(fault(made, lease, TROUBLE, attempt * 100.0))

        assert endings == [False, False, False, True]

    def test_fault_of_the_endpoint_costs_the_request_nothing_and_goes_elsewhere_at_once(self) -> None:
        made = scheduler("a", "b")
        add(made, "j", 1)

        fault(made, made.assign(0.0)[0], UNREACHABLE, 1.0)

        (lease,) = made.assign(1.0)
        assert (lease.endpoint, lease.attempt) == ("b", 1)
        assert made.endpoint("a").health.state is EndpointState.DOWN

    def test_busy_server_is_asked_more_and_more_seldom(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)

        now, waits = 0.0, []
        for _ in range(10):
            (lease,) = made.assign(now)
            assert lease.attempt == 1
            assert not fault(made, lease, BUSY, now)
            due = made.next_due(now)
            assert due is not None
            waits.append(due - now)
            now = due

        assert waits[0] <= 0.5
        assert waits[-1] >= REQUEST_LIMIT * 0.75

    def test_free_faults_come_to_an_end(self) -> None:
        made = scheduler("a")
        backlog = add(made, "j", 1)

        now, count = 0.0, 0
        while backlog.unfinished:
            (lease,) = made.assign(now)
            fault(made, lease, BUSY, now)
            count += 1
            now += 100.0

        assert count == FREE_FAULTS + LIMIT

    def test_server_that_says_when_to_come_back_is_obeyed(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)
        patient = Fault(FaultKind.BUSY, "busy", Remedy.HERE, retry_after=120.0)

        fault(made, made.assign(0.0)[0], patient, 10.0)

        assert made.next_due(10.0) == 130.0

    def test_due_request_without_a_free_slot_is_no_reason_for_another_turn(self) -> None:
        # given one slot, taken, and a request whose back-off is over
        made = scheduler("a")
        add(made, "j", 2)
        fault(made, made.assign(0.0)[0], BUSY, 0.0)
        assert len(made.assign(0.0)) == 1
        due = made.next_due(0.0)
        assert due is not None

        # when nothing can be assigned
        assert made.assign(due) == []

        # then the loop may sleep until something happens
        assert made.next_due(due) is None

    def test_lost_worker_gives_all_its_requests_back(self) -> None:
        made = scheduler("a", "b", slots=2)
        add(made, "j", 4)
        made.assign(0.0)

        made.on_probe("a", None, "its worker ended", 1.0)
        for lease in made.endpoint("a").held:
            assert not fault(made, lease, worker_lost(), 1.0)

        assert made.endpoint("a").in_flight == 0
        answer(made, made.endpoint("b").held, 5.0)
        assert asked(made.assign(5.0)) == [("b", "j", 0), ("b", "j", 2)]

    def test_request_that_kills_every_worker_fails_alone(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)

        now = 0.0
        for attempt in range(1, CRASHES + 1):
            (lease,) = made.assign(now)
            made.on_probe("a", None, "its worker ended", now)
            assert fault(made, lease, worker_lost(), now) == (attempt == CRASHES)
            now += 100.0
            made.on_probe("a", BOTH_MODELS, None, now)

    def test_late_answer_is_dropped(self) -> None:
        made = scheduler("a", "b")
        backlog = add(made, "j", 1)
        (lease,) = made.assign(0.0)
        fault(made, lease, worker_lost(), 1.0)
        (second,) = made.assign(10.0)

        assert made.answered(lease.ticket, lease.endpoint, 11.0) is None
        assert made.faulted(lease.ticket, lease.endpoint, TROUBLE, 11.0) is None
        assert backlog.unfinished == 1
        assert made.answered(second.ticket, second.endpoint, 12.0) == second
        assert made.answered(second.ticket, second.endpoint, 13.0) is None
        assert backlog.unfinished == 0

    def test_answer_for_a_removed_job_frees_its_slot(self) -> None:
        made = scheduler("a")
        add(made, "gone", 1)
        (lease,) = made.assign(0.0)
        made.remove_job("gone")
        add(made, "j", 1)
        assert made.assign(0.0) == []

        assert made.answered(lease.ticket, "a", 1.0) is None

        assert asked(made.assign(1.0)) == [("a", "j", 0)]

    def test_lease_that_is_too_old_names_its_endpoint(self) -> None:
        made = scheduler("a", "b")
        add(made, "j", 1)
        made.assign(0.0)

        assert made.overdue(100.0, 100.0) == set()
        assert made.overdue(100.0, 100.1) == {"a"}


class TestMissingModels:
    def test_request_goes_where_the_model_is(self) -> None:
        made = scheduler("a", "b")
        made.on_probe("a", {QWEN.model: "d"}, None, 0.0)
        add(made, "j", 1)

        assert asked(made.assign(0.0)) == [("b", "j", 0)]

    def test_404_takes_the_model_off_the_endpoint_until_the_next_probe(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)

        assert not fault(made, made.assign(0.0)[0], MISSING, 0.0)

        assert made.endpoint("a").digests == {QWEN.model: "d"}
        assert made.assign(10.0) == []
        made.on_probe("a", BOTH_MODELS, None, 10.0)
        assert len(made.assign(10.0)) == 1

    def test_server_that_lists_a_model_and_answers_404_does_not_keep_a_job_going_for_ever(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)
        now = 0.0

        for _ in range(LIMIT - 1):
            assert not fault(made, made.assign(now)[0], MISSING, now)
            now += 1000.0
            made.on_probe("a", BOTH_MODELS, None, now)

        assert fault(made, made.assign(now)[0], MISSING, now)

    def test_model_that_nobody_has_fails_its_requests_after_the_wait(self) -> None:
        made = scheduler("a", "b", models={})
        backlog = add(made, "j", 3)

        assert made.take_unservable(9, 0.0) == []
        assert made.missing() == {MissingModel(LLAMA.model)}
        assert made.take_unservable(9, MODEL_WAIT_SECONDS) == []
        assert made.take_unservable(2, MODEL_WAIT_SECONDS + 1) == [
            ("j", 0, MissingModel(LLAMA.model)),
            ("j", 1, MissingModel(LLAMA.model)),
        ]
        assert made.take_unservable(2, MODEL_WAIT_SECONDS + 1) == [("j", 2, MissingModel(LLAMA.model))]
        assert backlog.unfinished == 0

    def test_model_that_is_pulled_in_time_saves_the_requests(self) -> None:
        made = scheduler("a", models={})
        add(made, "j", 1)
        made.take_unservable(9, 0.0)

        made.on_probe("a", BOTH_MODELS, None, MODEL_WAIT_SECONDS)

        assert made.take_unservable(9, MODEL_WAIT_SECONDS * 2) == []
        assert made.missing() == set()
        assert len(made.assign(MODEL_WAIT_SECONDS * 2)) == 1

    def test_endpoint_that_was_never_reached_is_waited_for_longer(self) -> None:
        made = scheduler("a", models={})
        made.add_endpoint("b", 1, 0.0)
        add(made, "j", 1)

        assert made.take_unservable(9, 0.0) == []
        assert made.take_unservable(9, MODEL_WAIT_SECONDS + 1) == []
        assert len(made.take_unservable(9, MODEL_WAIT_UNREACHED_SECONDS + 1)) == 1

    def test_nothing_fails_while_no_endpoint_was_ever_reached(self) -> None:
        made = Scheduler()
        made.add_endpoint("a", 1, 0.0)
        add(made, "j", 1)

        made.take_unservable(9, 0.0)

        assert made.take_unservable(9, 1e6) == []

    def test_endpoint_that_is_down_still_has_its_model(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)
        made.on_probe("a", None, "refused", 1.0)

        made.take_unservable(9, 2.0)

        assert made.take_unservable(9, 1e6) == []

    def test_missing_model_is_no_trouble_once_its_requests_have_ended(self) -> None:
        # given a job whose qwen request failed for want of the model, and whose llama requests go on
        made = scheduler("a", models={LLAMA.model: "d"})
        add(made, "j", 3, column=bytes([0, 1, 0]))
        made.assign(0.0)
        made.take_unservable(9, 0.0)
        assert len(made.take_unservable(9, MODEL_WAIT_SECONDS + 1)) == 1

        made.take_unservable(9, MODEL_WAIT_SECONDS + 2)

        assert made.missing() == set()


#: Two contexts of one model, and one job's requests for them: the longest stand at its begin and in its middle.
SHORT, LONG = (Signature("llama:latest", (("num_ctx", length),)) for length in (2048, 8192))
TOO_LONG = Fault(FaultKind.TOO_LONG, "it does not fit", Remedy.NEVER, needs=5000)


def add_planned(made: Scheduler, job: str, column: bytes) -> Backlog:
    backlog = Backlog(job, bytes(len(column)), (SHORT, LONG), column, larger={0: 1}, limit=LIMIT)
    made.add_job(backlog, 0.0)
    return backlog


class TestContexts:
    def test_outliers_come_in_one_pass_however_long_they_wait(self) -> None:
        # given
        made = scheduler("a", "b", slots=2)
        add_planned(made, "j", bytes([1] + [0] * 300 + [1] + [0] * 300 + [1, 1, 1]))

        # when every request takes a second: the common ones are at it for five times the collation time
        passes: dict[str, list[int]] = {"a": [], "b": []}
        for second in range(200):
            for lease in made.assign(float(second)):
                passes[lease.endpoint].append(lease.signature)
            answer(made, [*made.endpoint("a").held, *made.endpoint("b").held], second + 0.9)

        # then each endpoint went over once, at the most
        assert sum(map(len, passes.values())) == 605
        for order in passes.values():
            assert order == sorted(order)

    def test_wrong_estimate_is_asked_again_with_the_larger_context_at_no_cost(self) -> None:
        # given a job whose last request is longer than was estimated
        made = scheduler("a", slots=3)
        backlog = add_planned(made, "j", bytes([0, 0, 1]))
        first, second = made.assign(0.0)

        # when
        assert not fault(made, second, TOO_LONG, 1.0)

        # then it waits for its pass
        assert made.assign(1.0) == []
        answer(made, [first], 2.0)
        again = made.assign(2.0)
        assert [(lease.ordinal, lease.signature, lease.attempt) for lease in again] == [(1, 1, 1), (2, 1, 1)]
        assert backlog.attempts == {}

    def test_what_does_not_fit_there_either_fails(self) -> None:
        made = scheduler("a", slots=3)
        backlog = add_planned(made, "j", bytes([0]))
        (lease,) = made.assign(0.0)

        assert fault(made, lease, replace(TOO_LONG, needs=8193), 1.0)

        assert backlog.unfinished == 0

    def test_what_is_too_long_for_the_larger_context_fails(self) -> None:
        made = scheduler("a", slots=3)
        add_planned(made, "j", bytes([1]))
        (lease,) = made.assign(0.0)

        assert fault(made, lease, TOO_LONG, 1.0)


class TestCollation:
    def test_endpoint_stays_with_what_it_has_loaded(self) -> None:
        made = scheduler("a")
        add(made, "j", 4, column=bytes([0, 1, 0, 1]))

        order = []
        for second in range(4):
            leases = made.assign(float(second))
            order += [lease.ordinal for lease in leases]
            answer(made, leases, float(second))

        assert order == [0, 2, 1, 3]

    def test_endpoint_drains_before_it_switches(self) -> None:
        made = scheduler("a", slots=2)
        add(made, "j", 2)
        add_qwen(made, "q", 2)
        leases = made.assign(0.0)
        assert {lease.job for lease in leases} == {"j"}

        answer(made, leases[:1], 1.0)
        assert made.assign(1.0) == []
        answer(made, leases[1:], 2.0)

        assert asked(made.assign(2.0)) == [("a", "q", 0), ("a", "q", 1)]

    def test_other_work_does_not_wait_longer_than_the_collation_time(self) -> None:
        made = scheduler("a", slots=2)
        add(made, "j", 1_000)
        add_qwen(made, "q", 1)

        now = 0.0
        while True:
            leases = made.assign(now)
            if any(lease.job == "q" for lease in leases):
                break
            answer(made, made.endpoint("a").held, now + 1.0)
            now += 1.0

        assert COLLATE_SECONDS < now <= COLLATE_SECONDS + 2
        assert {lease.job for lease in made.endpoint("a").held} == {"q"}

    def test_only_one_endpoint_drains_for_the_work_that_waits(self) -> None:
        # given four endpoints at work for one model, and one request for another
        made = scheduler("a", "b", "c", "d", slots=2)
        add(made, "j", 1_000)
        leases = made.assign(0.0)
        add_qwen(made, "q", 1)

        # when it has waited long enough and one request of each endpoint is answered
        now = COLLATE_SECONDS + 1
        answer(made, [next(lease for lease in leases if lease.endpoint == name) for name in "abcd"], now)
        more = made.assign(now)

        # then three go on, and one switches when it has drained
        assert [lease.endpoint for lease in more] == ["b", "c", "d"]
        answer(made, made.endpoint("a").held, now + 1)
        assert asked(made.assign(now + 1)) == [("a", "q", 0)]

    def test_idle_endpoint_takes_other_work_at_once(self) -> None:
        made = scheduler("a", "b")
        add(made, "j", 1)
        add_qwen(made, "q", 1)

        assert asked(made.assign(0.0)) == [("a", "j", 0), ("b", "q", 0)]

    def test_two_models_share_one_endpoint_by_turns(self) -> None:
        made = scheduler("a")
        add(made, "j", 1_000)
        add_qwen(made, "q", 1_000)

        served: dict[str, int] = {"j": 0, "q": 0}
        switches, last = 0, ""
        for second in range(600):
            (lease,) = made.assign(float(second))
            served[lease.job] += 1
            switches += lease.job != last
            last = lease.job
            answer(made, [lease], second + 0.9)

        assert min(served.values()) > 200
        assert switches <= 600 / COLLATE_SECONDS + 1


@pytest.mark.parametrize("endpoints", [1, 3, 28])
@pytest.mark.parametrize("column", [b"", bytes([0, 1]) * 150], ids=["one model", "two models"])
def test_everything_is_answered_in_the_end(endpoints: int, column: bytes) -> None:
    made = scheduler(*(f"e{number}" for number in range(endpoints)), slots=4)
    backlog = add(made, "j", 300, column=column)

    turns = 0
    while backlog.unfinished:
        made.assign(float(turns))
        for number in range(endpoints):
            answer(made, made.endpoint(f"e{number}").held, float(turns))
        turns += 1

    assert turns <= 300 / 4 / endpoints + 3


class TestEndpointsThatChange:
    def test_one_that_drains_gets_nothing_and_its_answers_count(self) -> None:
        made = scheduler("a", "b", slots=2)
        backlog = add(made, "j", 6)
        held = [lease for lease in made.assign(0.0) if lease.endpoint == "a"]

        made.endpoint("a").drain(1.0)
        answer(made, held, 1.0)

        assert made.assign(1.0) == []
        assert (made.endpoint("a").in_flight, made.endpoint("b").in_flight, backlog.unfinished) == (0, 2, 4)

    def test_what_fails_while_it_drains_goes_to_another_one(self) -> None:
        made = scheduler("a", "b")
        add(made, "j", 2)
        leases = {lease.endpoint: lease for lease in made.assign(0.0)}
        made.endpoint("a").drain(1.0)

        assert not fault(made, leases["a"], UNREACHABLE, 1.0)
        answer(made, [leases["b"]], 1.0)

        assert asked(made.assign(9.0)) == [("b", "j", leases["a"].ordinal)]

    def test_one_that_is_taken_back_gets_work_after_a_probe_and_never_above_its_slots(self) -> None:
        made = scheduler("a", slots=3)
        add(made, "j", 9)
        held = made.assign(0.0)
        made.endpoint("a").drain(1.0)
        answer(made, held[:1], 1.0)

        made.endpoint("a").undrain(2.0)
        assert made.assign(2.0) == []
        made.on_probe("a", BOTH_MODELS, None, 2.0)

        assert len(made.assign(2.0)) == 1
        assert made.endpoint("a").in_flight == 3

    def test_one_that_is_forgotten_holds_nothing(self) -> None:
        made = scheduler("a", "b")
        add(made, "j", 3)
        held = made.assign(0.0)
        made.endpoint("a").drain(1.0)

        with pytest.raises(ValueError, match=wording("a-still-holds-requests")):
            made.remove_endpoint("a")
        answer(made, held, 1.0)
        made.remove_endpoint("a")

        assert asked(made.assign(1.0)) == [("b", "j", 2)]

    def test_more_slots_are_filled_and_fewer_let_the_surplus_finish(self) -> None:
        made = scheduler("a", slots=2)
        add(made, "j", 20)
        held = made.assign(0.0)

        made.endpoint("a").set_slots(5)
        held += made.assign(1.0)
        assert len(held) == 5

        made.endpoint("a").set_slots(2)
        answer(made, held[:3], 2.0)
        assert made.assign(2.0) == []
        answer(made, held[3:4], 2.0)
        assert len(made.assign(2.0)) == 1

    def test_model_that_only_one_which_left_had_fails_after_its_time(self) -> None:
        made = scheduler("a", models={LLAMA.model: "d"})
        made.add_endpoint("b", 1, 0.0)
        made.on_probe("b", {QWEN.model: "d"}, None, 0.0)
        add(made, "j", 1)
        made.endpoint("a").drain(0.0)
        made.remove_endpoint("a")

        assert made.take_unservable(9, 1.0) == []
        assert made.take_unservable(9, 2.0 + MODEL_WAIT_SECONDS) == [("j", 0, MissingModel(LLAMA.model))]

    def test_work_waits_while_the_only_endpoint_is_exchanged(self) -> None:
        made = scheduler("a")
        add(made, "j", 1)
        made.endpoint("a").drain(0.0)
        made.remove_endpoint("a")
        assert made.take_unservable(9, 1.0) == []

        made.add_endpoint("b", 1, 1.0)
        assert made.take_unservable(9, 1.0 + MODEL_WAIT_UNREACHED_SECONDS * 2) == []
        made.on_probe("b", BOTH_MODELS, None, 2.0)

        assert asked(made.assign(2.0)) == [("b", "j", 0)]
