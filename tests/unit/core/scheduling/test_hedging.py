"""Stragglers are asked again by idle endpoints; the first answer counts, and little is asked twice."""

from __future__ import annotations

import heapq
import random

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.health import EndpointState, Health
from obcd.core.endpoint.latency import MeanLatency
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.hedging import LEAST, HedgedRequests
from obcd.core.scheduling.holder import Holder
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler

MODEL = Signature("llama3.2:latest", ())
HANGS = 1e9


class Cluster:
    """Endpoints on a simulated clock; each request takes the seconds of its endpoint, give or take a quarter."""

    def __init__(self, seconds: dict[str, float], slots: int, requests: int) -> None:
        self.seconds, self.requests = seconds, requests
        self.scheduler = Scheduler()
        self.backlog = Backlog("job", bytes(requests), (MODEL,), limit=4)
        self.now, self.asked, self.answered = 0.0, 0, 0
        self._dice = random.Random(1)
        self._events: list[tuple[float, int, Lease]] = []
        for name in seconds:
            self.scheduler.add_endpoint(name, slots, 0.0)
            self.scheduler.on_probe(name, {MODEL.model: "d"}, None, 0.0)
        self.scheduler.add_job(self.backlog, 0.0)

    def run(self, until: float = HANGS) -> None:
        """Go on until all is answered, or till some time."""
        while self.backlog.unfinished and self.now < until:
            for lease in self.scheduler.assign(self.now):
                self.asked += 1
                taken = self.seconds[lease.endpoint] * self._dice.uniform(0.75, 1.25)
                heapq.heappush(self._events, (self.now + taken, lease.ticket, lease))
            wake = self.scheduler.next_due(self.now) or HANGS
            first = self._events[0][0] if self._events else HANGS
            if min(first, wake) >= until:
                self.now = until
            elif first <= wake:
                self.now, ticket, lease = heapq.heappop(self._events)
                self.answered += self.scheduler.answered(ticket, lease.endpoint, self.now) is not None
            else:
                self.now = wake
            self.scheduler.take_overtaken()

    def hang(self, name: str) -> None:
        """From now on this endpoint answers nothing."""
        self.seconds[name] = HANGS
        self._events = [(HANGS if lease.endpoint == name else at, ticket, lease) for at, ticket, lease in self._events]
        heapq.heapify(self._events)


def test_slow_endpoint_and_one_that_hangs_hold_nobody_up_and_little_is_asked_twice() -> None:
    # given four endpoints of 16 slots, one of them three times slower
    seconds = {"a": 0.5, "b": 0.5, "slow": 1.5, "hangs": 0.5}
    cluster = Cluster(seconds, 16, 10_000)

    # when one hangs in the middle
    cluster.run(until=40.0)
    left = cluster.backlog.unfinished
    cluster.hang("hangs")
    cluster.run()

    # then it takes little longer than the slots that are left need
    ideal = 40.0 + left / (16 * (1 / 0.5 + 1 / 0.5 + 1 / 1.5))
    assert cluster.now < 1.05 * ideal
    assert cluster.answered == 10_000
    assert cluster.asked <= 1.02 * 10_000


def test_endpoint_that_hangs_is_doubted_when_others_were_first() -> None:
    cluster = Cluster({"a": 0.5, "hangs": 0.5}, 4, 100)

    cluster.run(until=2.0)
    cluster.hang("hangs")
    cluster.run()

    health = cluster.scheduler.endpoint("hangs").health
    assert health.state is not EndpointState.UP
    assert "longer" in health.reason
    assert cluster.scheduler.endpoint("hangs").in_flight == 0


def test_slow_endpoint_is_not_doubted() -> None:
    cluster = Cluster({"a": 0.5, "slow": 1.5}, 4, 100)

    cluster.run()

    assert cluster.scheduler.endpoint("slow").health.state is EndpointState.UP
    assert cluster.asked <= 102


def test_nothing_is_asked_twice_while_something_waits_or_where_all_are_alike() -> None:
    cluster = Cluster({"a": 0.5, "b": 0.5, "c": 0.5}, 4, 1000)

    cluster.run()

    assert cluster.asked == 1000


def hedged() -> tuple[Cluster, Lease, Lease]:
    """Return a cluster that asks its last request on both endpoints."""
    cluster = Cluster({"a": 0.5, "b": 0.5}, 1, 21)
    cluster.run(until=5.0)
    cluster.hang("b")
    while cluster.backlog.unfinished > 1 or not cluster.scheduler.endpoint("a").held:
        cluster.run(until=cluster.now + 0.01)
    (copy,), (first,) = cluster.scheduler.endpoint("a").held, cluster.scheduler.endpoint("b").held
    assert copy.request == first.request
    return cluster, first, copy


def test_first_answer_counts_and_the_other_one_is_late() -> None:
    cluster, first, copy = hedged()

    assert cluster.scheduler.answered(copy.ticket, "a", cluster.now) == copy

    assert [item.lease for item in cluster.scheduler.take_overtaken()] == [first]
    assert cluster.scheduler.answered(first.ticket, "b", cluster.now) is None
    assert cluster.backlog.unfinished == 0


def test_fault_of_one_leaves_it_to_the_other() -> None:
    cluster, first, copy = hedged()
    fault = Fault(FaultKind.TIMEOUT, "no answer", Remedy.ELSEWHERE, harm=Harm.STRIKE)

    assert cluster.scheduler.faulted(first.ticket, "b", fault, cluster.now) is None

    assert cluster.scheduler.take_overtaken() == []
    settled = cluster.scheduler.faulted(copy.ticket, "a", fault, cluster.now)
    assert settled is not None
    assert not settled[1]
    assert cluster.scheduler.next_due(cluster.now) is not None


def test_fault_that_every_endpoint_would_have_ends_both() -> None:
    cluster, first, copy = hedged()

    settled = cluster.scheduler.faulted(
        copy.ticket, "a", Fault(FaultKind.BAD_REQUEST, "bad", Remedy.NEVER), cluster.now
    )

    assert settled is not None
    assert settled[1]
    assert [item.lease for item in cluster.scheduler.take_overtaken()] == [first]
    assert cluster.scheduler.endpoint("b").in_flight == 0


def test_failure_tells_the_attempts_of_both_whichever_is_the_last() -> None:
    cluster, first, copy = hedged()
    cluster.backlog.limit = 2
    fault = Fault(FaultKind.TIMEOUT, "no answer", Remedy.ELSEWHERE, harm=Harm.NONE)
    assert cluster.scheduler.faulted(copy.ticket, "a", fault, cluster.now) is None

    settled = cluster.scheduler.faulted(first.ticket, "b", fault, cluster.now)

    assert settled is not None
    lease, is_final, _ = settled
    assert (lease.attempt, is_final) == (2, True)


def test_no_copy_is_made_of_what_is_paused() -> None:
    cluster = Cluster({"a": 0.5, "b": 0.5}, 1, 21)
    cluster.run(until=5.0)
    cluster.hang("b")
    cluster.backlog.is_paused = True

    cluster.run(until=30.0)

    assert cluster.scheduler.endpoint("a").in_flight == 0


def test_request_that_hangs_everywhere_is_copied_once_and_both_count_as_attempts() -> None:
    # given a request that is asked on both endpoints, of which each answers nothing
    cluster, first, copy = hedged()
    fault = Fault(FaultKind.TIMEOUT, "no answer", Remedy.ELSEWHERE, harm=Harm.NONE)

    # when the first one is given up, the other one stays alone, however long it takes
    assert cluster.scheduler.faulted(first.ticket, "b", fault, cluster.now) is None
    for later in range(1, 60):
        assert cluster.scheduler.assign(cluster.now + later) == []

    # then both have cost an attempt, when that fails too
    assert cluster.scheduler.faulted(copy.ticket, "a", fault, cluster.now + 60) is not None
    assert cluster.backlog.attempts[copy.ordinal] == 2


def test_copy_is_no_attempt_more_and_says_that_it_is_one() -> None:
    _, first, copy = hedged()

    assert (first.attempt, first.is_hedged) == (1, False)
    assert (copy.attempt, copy.is_hedged) == (1, True)


@pytest.mark.parametrize(("mean", "age", "is_copied"), [(0.01, 1.5, False), (0.01, 1.7, True), (1.3, 0.1, True)])
def test_what_ends_within_a_second_is_not_worth_a_copy(mean: float, age: float, is_copied: bool) -> None:
    # given a request that has been with an endpoint for some time, of which longer than usual; another one is idle
    backlog = Backlog("job", bytes(40), (MODEL,), limit=4)
    backlog.weights = None
    slow, quick = holder("slow", mean), holder("quick", 0.01)
    slow.leases = {1: Lease(1, "job", 1, "slow", 1, 0.0)}

    found = HedgedRequests().choose([slow, quick], [quick], {"job": backlog}, age)

    assert bool(found) is is_copied


@pytest.mark.parametrize(("has_cache", "age", "is_copied"), [(True, 0.1, False), (True, 1.0, True), (False, 0.1, True)])
def test_what_the_cache_may_know_is_not_copied_before_that_is_seen(
    has_cache: bool, age: float, is_copied: bool
) -> None:
    backlog = Backlog("job", bytes(40), (MODEL,), limit=4)
    backlog.weights, backlog.has_cache = None, has_cache
    slow, quick = holder("slow", 10.0), holder("quick", 0.5)
    slow.leases = {1: Lease(1, "job", 1, "slow", 1, 0.0)}

    found = HedgedRequests().choose([slow, quick], [quick], {"job": backlog}, age)

    assert bool(found) is is_copied


def test_copies_for_speed_are_counted_within_one_look_too() -> None:
    # given ten requests that have just begun at a slow endpoint, and an idle quick one with room for all
    backlog = Backlog("job", bytes(40), (MODEL,), limit=4)
    backlog.weights = None
    slow, quick = holder("slow", 10.0), holder("quick", 0.5)
    slow.leases = {ticket: Lease(ticket, "job", ticket, "slow", 1, 0.0) for ticket in range(10)}

    found = HedgedRequests().choose([slow, quick], [slow, quick], {"job": backlog}, 1.0)

    assert [name for _, name in found] == ["quick"] * LEAST


def holder(name: str, seconds: float) -> Holder:
    health = Health(name, EndpointState.UP)
    return Holder(name, 20, health, {MODEL.model: "digest"}, MODEL, pace=MeanLatency(seconds))
