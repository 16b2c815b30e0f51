"""Lanes: which request of which lane goes to which slot, and what that brings on a simulated clock."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.concurrency import Span
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.pending.backlog import ELSEWHERE_SECONDS, Backlog
from obcd.core.pending.lanes import REST_SECONDS, LaneIndex
from obcd.core.request.records import Signature
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.missing_models import MODEL_WAIT_SECONDS
from obcd.core.scheduling.scheduler import Scheduler
from tests.bench.lanes import (
    CPU,
    CPU_KIND,
    Job,
    Prompt,
    Speed,
    by_hand,
    cluster,
    distinct,
    documents,
    interleaved,
    lead,
    shuffled,
    sized_documents,
)

MODEL, LARGER = Signature("m:latest", (("num_ctx", 1000),)), Signature("m:latest", (("num_ctx", 4000),))
HERE = Fault(FaultKind.BUSY, "busy", Remedy.HERE, costs_attempt=False)
ELSEWHERE = Fault(FaultKind.SERVER_ERROR, "in trouble", Remedy.ELSEWHERE)
AWAY = Fault(FaultKind.UNREACHABLE, "refused", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN)
TOO_LONG = Fault(FaultKind.BAD_REQUEST, "too long", Remedy.NEVER, needs=3000)
NATURAL = documents(10, 6, CPU_KIND)
SCHEDULE = documents(64, 8)


def index(lanes: str) -> LaneIndex:
    """Return the index of requests by the letters of their lanes; `.` is a request without one."""
    letters = sorted(set(lanes) - {"."}, key=lanes.index)
    members = [[ordinal for ordinal, letter in enumerate(lanes) if letter == wanted] for wanted in letters]
    starts = array("I", [sum(map(len, members[:place])) for place in range(len(members) + 1)])
    flat = array("I", [ordinal for lane in members for ordinal in lane])
    return LaneIndex(flat, starts, array("I", [1000] * len(members)))


class Bench:
    """One job on endpoints `a`, `b`, … of some slots."""

    def __init__(self, lanes: str, *slots: int | None, done: bytes = b"", column: bytes = b"") -> None:
        self.lanes = lanes
        self.scheduler = Scheduler()
        self.now = 0.0
        for name, count in zip("abc", slots, strict=False):
            self.scheduler.add_endpoint(name, count, 0.0)
            self.scheduler.on_probe(name, {MODEL.model: "d"}, None, 0.0)
        signatures = (MODEL, LARGER) if column else (MODEL,)
        larger = {0: 1} if column else {}
        self.backlog = Backlog(
            "j", done or bytes(len(lanes)), signatures, column, larger=larger, limit=4, lanes=index(lanes)
        )
        self.scheduler.add_job(self.backlog, 0.0)
        self.out: list[Lease] = []

    def assign(self, *, after: float = 0.0) -> str:
        """Return what is leased, e.g. `a0 b3`."""
        self.now += after
        fresh = self.scheduler.assign(self.now)
        self.out += fresh
        return " ".join(f"{lease.endpoint}{lease.ordinal}" for lease in fresh)

    def take(self, ordinal: int) -> Lease:
        lease = next(lease for lease in self.out if lease.ordinal == ordinal)
        self.out.remove(lease)
        return lease

    def answer(self, *ordinals: int, work: float = 1.0, after: float = 0.0) -> str:
        """Answer requests; return what is leased then."""
        self.now += after
        for ordinal in ordinals:
            lease = self.take(ordinal)
            assert self.scheduler.answered(lease.ticket, lease.endpoint, self.now, Span(work)) == lease
        return self.assign()

    def fail(self, ordinal: int, fault: Fault) -> None:
        lease = self.take(ordinal)
        self.scheduler.faulted(lease.ticket, lease.endpoint, fault, self.now)


class TestOrder:
    def test_lane_gets_one_slot_and_keeps_it(self) -> None:
        bench = Bench("AAAABBBBCCCC", 2)

        assert bench.assign() == "a0 a4"
        assert bench.answer(0) == "a1"
        assert bench.answer(4) == "a5"
        assert bench.answer(5, 1) in ("a2 a6", "a6 a2")
        assert [bench.answer(2), bench.answer(3)] == ["a3", "a8"]

    def test_lanes_and_other_requests_begin_in_the_order_of_the_file(self) -> None:
        bench = Bench(".AA.BB.", 5)

        assert bench.assign() == "a0 a1 a3 a4 a6"

    def test_lane_is_opened_wider_only_after_its_first_reply(self) -> None:
        bench = Bench("A" * 12, 3)
        assert bench.assign() == "a0"

        assert bench.answer(0, work=3.0) == "a1 a2 a3"

    def test_lane_is_split_where_many_wait_and_not_where_few_do(self) -> None:
        assert Bench("A" * 12, 1, 1).assign() == "a0 b1"
        assert Bench("A" * 4, 1, 1).assign() == "a0"

    def test_lane_is_not_split_where_its_beginning_takes_longer_than_the_rest(self) -> None:
        bench = Bench("AAAAAABBBBB", 1, 1)
        bench.assign()
        bench.answer(0, 6, work=10.0)
        bench.answer(1, 7, work=1.0)

        bench.answer(8), bench.answer(9), bench.answer(10)

        assert {lease.endpoint for lease in bench.out} == {"a"}

    def test_requests_that_have_their_result_are_not_sent_again(self) -> None:
        bench = Bench("AABB.AABB.", 9, done=bytes([1, 1, 0, 1, 1, 0, 0, 1, 1, 0]))

        assert bench.assign() == "a5 a2 a9"
        assert bench.answer(5) == "a6"
        assert bench.backlog.unfinished == 3

    def test_lane_that_was_answered_last_goes_on_where_there_are_more_lanes_than_slots(self) -> None:
        bench = Bench("AAAABBBBCCCC", 3)
        bench.assign()
        bench.scheduler.endpoint("a").set_slots(1)

        assert bench.answer(8) == bench.answer(0) == ""
        assert [bench.answer(4), bench.answer(5), bench.answer(6), bench.answer(7)] == ["a5", "a6", "a7", "a1"]

    def test_index_of_other_requests_is_not_used(self) -> None:
        bench = Bench("AAAA", 4, column=bytes([0, 1, 0, 0]))

        assert not bench.backlog.is_laned
        assert bench.assign() == "a0 a2 a3"


def test_slot_goes_on_with_its_lane_before_the_turn_of_another_submitter_once() -> None:
    bench = Bench("A" * 9, 2)
    bench.scheduler.add_job(Backlog("other", bytes(9), (MODEL,), limit=4, submitter=1), 0.0)
    bench.assign()
    assert [lease.job for lease in bench.out] == ["j", "other"]
    mine = [bench.out.pop(0)]
    for _ in range(4):
        lease = mine[-1]
        bench.scheduler.answered(lease.ticket, "a", bench.now, Span(1.0))
        mine += bench.scheduler.assign(bench.now)

    # its turn, ahead of the other's, the other's, the other's again because it went ahead
    assert [lease.job for lease in mine[1:]] == ["j", "j", "other", "other"]


class TestFaults:
    def test_request_that_is_sent_again_returns_to_the_endpoint_of_its_lane(self) -> None:
        bench = Bench("AAAABBBB", 1, 2)
        assert bench.assign() == "a0 b4"
        bench.scheduler.endpoint("a").set_slots(1)

        bench.fail(0, HERE)

        assert bench.assign(after=5.0) == "a0"

    def test_request_goes_elsewhere_if_the_endpoint_of_its_lane_failed_it_or_is_busy_for_long(self) -> None:
        bench = Bench("AAAABBBB", 1, 2)
        bench.assign()
        bench.fail(0, ELSEWHERE)
        assert "b0" in bench.assign(after=5.0)

        bench = Bench("AAAA....", 1, 1)
        assert bench.assign() == "a0 b4"
        bench.fail(0, HERE)
        assert bench.assign() == "a1"
        assert bench.answer(4, after=5.0) == "b5"
        assert bench.answer(5, after=ELSEWHERE_SECONDS) == "b0"

    def test_lane_whose_endpoint_is_away_is_taken_over_and_stays_there(self) -> None:
        bench = Bench("AAA", 1, 1)
        bench.assign()
        bench.answer(0)
        bench.fail(1, AWAY)
        assert bench.assign() == "b1"
        bench.scheduler.on_probe("a", {MODEL.model: "d"}, None, 1000.0)

        assert bench.answer(1, after=1000.0) == "b2"

    def test_lane_that_rests_is_taken_over_after_a_while_and_the_main_loop_is_called_then(self) -> None:
        bench = Bench("AAA.", 1, 1)
        assert bench.assign() == "a0 b3"
        bench.scheduler.endpoint("a").set_slots(0)
        bench.answer(0)

        assert bench.answer(3) == ""
        due = bench.scheduler.next_due(bench.now)
        assert due == bench.now + REST_SECONDS
        assert bench.assign(after=REST_SECONDS) == "b1"

    def test_request_that_needs_a_larger_context_leaves_its_lane(self) -> None:
        bench = Bench("AAA.", 1, column=bytes(4))
        bench.assign()

        bench.fail(0, TOO_LONG)

        assert [bench.assign(), bench.answer(1), bench.answer(2), bench.answer(3)] == ["a1", "a2", "a3", "a0"]

    def test_lanes_of_a_model_that_no_endpoint_has_fail(self) -> None:
        bench = Bench("AAA.BB", 1)
        bench.scheduler.on_probe("a", {"other:latest": "d"}, None, 0.0)
        bench.scheduler.take_unservable(9, 0.0)

        taken = bench.scheduler.take_unservable(9, MODEL_WAIT_SECONDS + 1)

        assert sorted(item.ordinal for item in taken) == list(range(6))
        assert bench.backlog.unfinished == 0


@pytest.mark.parametrize("order", [NATURAL, shuffled(NATURAL), interleaved(NATURAL, 6)])
def test_lanes_are_twice_as_fast_as_the_order_in_which_people_write(order: Sequence[Prompt]) -> None:
    plain = cluster(1, CPU).run(Job(NATURAL, has_lanes=False))

    run = cluster(1, CPU).run(Job(order))

    assert plain.seconds / run.seconds >= 2.2
    assert run.evaluated == distinct(NATURAL)


def test_lanes_are_twice_as_fast_while_slots_are_searched_for() -> None:
    plain = cluster(1, CPU, finds=True).run(Job(NATURAL, has_lanes=False))

    assert plain.seconds / cluster(1, CPU, finds=True).run(Job(NATURAL)).seconds >= 2.2


def test_several_endpoints_evaluate_each_beginning_once_and_are_as_fast_as_lanes_by_hand() -> None:
    run = cluster(4, Speed(4)).run(Job(SCHEDULE))

    assert run.evaluated / distinct(SCHEDULE) <= 1.15
    assert by_hand(SCHEDULE, 4, Speed(4)) / run.seconds >= 0.97


def test_requests_that_evaluate_a_beginning_are_not_hedged_because_they_take_long() -> None:
    prompts = documents(64, 8, CPU_KIND)

    run = cluster(4, CPU).run(Job(prompts))

    assert run.evaluated == distinct(prompts)
    assert len(run.order) == len(prompts)


def test_one_large_lane_uses_all_slots() -> None:
    prompts = documents(1, 800) + documents(1, 30, Prompt(0, 0, 50, 1.5))

    assert cluster(2, Speed(16)).run(Job(prompts)).in_use >= 0.95


def test_lanes_of_very_different_sizes_end_together() -> None:
    prompts = sized_documents(20)

    plain, run = (cluster(2, Speed(4)).run(Job(prompts, has_lanes=has_lanes)) for has_lanes in (False, True))

    assert run.seconds < plain.seconds
    assert run.seconds < by_hand(prompts, 2, Speed(4))


def test_endpoint_that_is_away_for_a_while_costs_no_more_than_its_share() -> None:
    plain = cluster(4, Speed(4), outage={"e1": (20.0, 35.0)}).run(Job(SCHEDULE, has_lanes=False))

    run = cluster(4, Speed(4), outage={"e1": (20.0, 35.0)}).run(Job(SCHEDULE))

    assert plain.seconds / run.seconds >= 1.3
    assert run.evaluated / distinct(SCHEDULE) <= 1.4


@pytest.mark.parametrize("has_lanes", [(True, False), (False, True), (True, True)])
def test_submitters_share_slots_to_one_reply_whether_they_have_lanes_or_not(has_lanes: tuple[bool, bool]) -> None:
    jobs = [Job(documents(15, 8, seed=seed), has_lanes[seed], submitter=seed) for seed in (0, 1)]

    assert lead(cluster(1, Speed(4)).run(*jobs)) <= 2


@pytest.mark.parametrize("slots", [1, 4, 8, 16])
def test_slots_are_found_while_lanes_are_served(slots: int) -> None:
    run = cluster(1, Speed(slots), finds=True).run(Job(documents(12 * slots, 8)))

    assert run.slots_found == {"e0": pytest.approx(slots, abs=slots // 16)}
