"""How many servers, and which: from what waits, with limits, and without a server that waits in Ray's queue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from obcd.coordinator.view import FurtherJobView, JobView, View
from obcd.ray.scaling import USUAL_SLOTS, Demand, KnownServer, Limits, Step, decide, waiting_requests

LIMITS = Limits(least=1, most=8, idle_seconds=300.0)


def members(count: int, **changes: bool) -> list[KnownServer]:
    return [replace(KnownServer(number=number, is_serving=True), **changes) for number in range(count)]


def target(demand: Demand, waiting: int | None, now: float, *, slots: int = 10, gpus: int = 8) -> int:
    return demand.target(waiting, slots, gpus, now)


@pytest.mark.parametrize(
    ("waiting", "slots", "expected"), [(0, 10, 1), (1, 10, 1), (11, 10, 2), (80, 10, 8), (10**6, 10, 8), (17, 0, 2)]
)
def test_each_slot_has_a_request_within_the_limits(waiting: int, slots: int, expected: int) -> None:
    assert USUAL_SLOTS == 16
    assert target(Demand(LIMITS, 0, 0.0), waiting, 1000.0, slots=slots) == expected


def test_no_more_than_the_cluster_has_unless_a_limit_is_given() -> None:
    assert target(Demand(replace(LIMITS, most=None), 0, 0.0), 10**6, 0.0, gpus=3) == 3
    assert target(Demand(LIMITS, 0, 0.0), 10**6, 0.0, gpus=3) == 8  # an autoscaler may bring the others


def test_the_least_is_kept_without_work_and_none_is_possible() -> None:
    assert target(Demand(replace(LIMITS, least=3), 0, 0.0), 0, 0.0) == 3
    assert target(Demand(replace(LIMITS, least=0), 0, 0.0), 0, 0.0) == 0


def test_servers_stay_until_fewer_were_enough_for_the_idle_time() -> None:
    demand = Demand(LIMITS, 0, 0.0)
    assert target(demand, 50, 0.0) == 5
    assert target(demand, 20, 100.0) == 5
    assert target(demand, 0, 300.0) == 5
    assert target(demand, 0, 301.0) == 2
    assert target(demand, 0, 401.0) == 1


def test_adopted_servers_stay_for_the_idle_time() -> None:
    demand = Demand(LIMITS, 6, 0.0)
    assert target(demand, 0, 1.0) == 6
    assert target(demand, 0, 302.0) == 1


def test_nothing_changes_while_the_status_cannot_be_read() -> None:
    demand = Demand(LIMITS, 0, 0.0)
    target(demand, 50, 0.0)
    assert target(demand, None, 1000.0) == 5
    assert target(demand, None, 2000.0) == 5


def test_servers_start_only_where_a_gpu_is_free() -> None:
    assert decide(members(1), 5, 3, {0}) == Step(start=(1, 2, 3))
    assert decide([*members(1), KnownServer(number=1, is_placed=False)], 5, 3, {0, 1}) == Step(start=(2, 3))
    assert decide([], 2, 0, set()) == Step()


def test_a_number_is_used_again_only_when_its_name_is_free() -> None:
    draining = [KnownServer(number=0, is_draining=True)]
    assert decide([*draining, KnownServer(number=2, is_serving=True)], 2, 5, {0, 2}).start == (1,)


def test_those_go_first_that_ray_has_not_placed_and_then_those_in_trouble() -> None:
    there = [
        *members(3),
        KnownServer(number=3, is_placed=False),
        KnownServer(number=4, is_serving=False),
        KnownServer(number=5, is_draining=True),
    ]
    assert decide(there, 4, 0, set(range(6))) == Step(withdraw=(3,))
    assert decide(there, 2, 0, set(range(6))) == Step(withdraw=(3,), drain=(4, 2))
    assert decide(there, 0, 0, set(range(6))).drain == (4, 2, 1, 0)


def test_servers_of_another_configuration_are_replaced_one_at_a_time() -> None:
    stale = members(3, is_stale=True)
    assert decide(stale, 3, 0, {0, 1, 2}) == Step(drain=(2,))
    going = [*stale[:2], replace(stale[2], is_draining=True)]
    assert decide(going, 3, 0, {0, 1, 2}) == Step()
    starting = [*stale[:2], KnownServer(number=2)]
    assert decide(starting, 3, 0, {0, 1, 2}) == Step()


def job(state: str, total: int, done: int) -> JobView:
    return JobView(job="j", name="n", profile="", state=state, total=total, done=done)


def test_only_jobs_that_wait_for_servers_count() -> None:
    view = View(
        version="1", pid=1, root="/r", inbox="/i", outbox="/o", state="READY", updated=0.0, updated_at="",
        jobs=(job("RUNNING", 100, 40), job("ACCEPTED", 5, 0), job("PAUSED", 1000, 0), job("QUARANTINED", 1000, 0)),
        further_jobs=(FurtherJobView(job="k", profile="", name="n", state="ACCEPTED"),),
    )  # fmt: skip
    assert waiting_requests(view) == 66
