"""Texts for vectors: leased a call at a time, in turn, alone after a fault, and found out one by one after a crash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.concurrency import FIRST
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.group_size import GroupSize
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.holder import GROUP_CALLS
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.poison import CRASHES
from obcd.core.scheduling.scheduler import Scheduler

VECTORS, CHAT = Signature("nomic:latest", (), True), Signature("llama:latest", ())
CRASHED = Fault(
    FaultKind.CRASHED, "it crashed", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.STRIKE, is_shared=True
)
TIMEOUT = Fault(FaultKind.TIMEOUT, "late", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.STRIKE, is_shared=True)
BUSY = Fault(FaultKind.BUSY, "busy", Remedy.HERE, costs_attempt=False)


def scheduler(*endpoints: str, slots: int | None = None, size: int = 64) -> Scheduler:
    """Return a scheduler whose endpoints have found their size of groups."""
    made = Scheduler()
    for name in endpoints or ("a",):
        made.add_endpoint(name, slots, 0.0)
        made.on_probe(name, {VECTORS.model: "d", CHAT.model: "d"}, None, 0.0)
        found = made.endpoint(name).group_sizes[VECTORS.model] = GroupSize(size)
        found._left = None
    return made


def add(made: Scheduler, job: str, count: int, signature: Signature = VECTORS, submitter: int = 0) -> Backlog:
    backlog = Backlog(job, bytes(count), (signature,), limit=4, submitter=submitter)
    made.add_job(backlog, 0.0)
    return backlog


def answer(made: Scheduler, leases: Iterable[Lease], now: float = 1.0) -> None:
    for lease in leases:
        assert made.answered(lease.ticket, lease.endpoint, now) == lease


def counted(leases: Iterable[Lease]) -> Counter[str]:
    return Counter(lease.endpoint for lease in leases)


@pytest.mark.parametrize(("slots", "held"), [(None, 2 * 64), (1, 64), (16, 2 * 64)])
def test_endpoint_holds_two_calls_and_never_more_than_its_slots(slots: int | None, held: int) -> None:
    made = scheduler(slots=slots)
    add(made, "j", 10_000)

    leases = made.assign(0.0)

    assert len(leases) == held == made.endpoint("a").slots
    assert all(lease.may_share for lease in leases)
    assert made.calls_in_flight == held / 64


def test_single_calls_hold_as_many_as_before() -> None:
    made = scheduler(size=1)
    add(made, "j", 10_000)

    assert len(made.assign(0.0)) == FIRST == made.endpoint("a").slots


def test_chats_are_not_grouped() -> None:
    made = scheduler()
    add(made, "j", 100, CHAT)

    leases = made.assign(0.0)

    assert (len(leases), made.endpoint("a").group_size) == (FIRST, 0)
    assert not any(lease.may_share for lease in leases)


def test_room_is_filled_by_whole_calls() -> None:
    # given an endpoint one of whose calls comes back in parts
    made = scheduler()
    add(made, "j", 10_000)
    leases = made.assign(0.0)

    answer(made, leases[:10])
    assert made.assign(1.0) == []
    answer(made, leases[10:64])

    assert len(made.assign(1.0)) == 64


def test_little_work_is_divided_among_all_endpoints() -> None:
    made = scheduler("a", "b", "c", "d")
    add(made, "j", 200)

    shares = counted(made.assign(0.0)).values()

    assert sum(shares) == 200
    assert max(shares) <= 56


def test_call_is_one_turn_of_its_job() -> None:
    made = scheduler()
    for submitter, job in enumerate(("j", "k")):
        add(made, job, 5_000, submitter=submitter)

    jobs = [lease.job for lease in made.assign(0.0)]

    assert jobs == ["j"] * 64 + ["k"] * 64


def test_openai_lines_go_alone_and_hold_only_the_slots() -> None:
    made = scheduler()
    add(made, "j", 1_000).may_share = False

    leases = made.assign(0.0)

    assert len(leases) == FIRST
    assert not any(lease.may_share for lease in leases)


def test_after_a_late_group_each_goes_alone_and_nobody_is_charged() -> None:
    made = scheduler(size=4)
    backlog = add(made, "j", 4)
    for lease in made.assign(0.0):
        settled = made.faulted(lease.ticket, "a", TIMEOUT, 1.0)
        assert settled is not None
        assert not settled[1]
    made.endpoint("a").on_group_timeout()

    again = made.assign(100.0)

    assert {(lease.may_share, lease.attempt) for lease in again} == {(False, 1)}
    assert backlog.attempts == {}
    assert made.endpoint("a").group_size == 1


def test_group_that_a_busy_server_refused_goes_out_as_a_group_again() -> None:
    made = scheduler()
    add(made, "j", 64)
    for lease in made.assign(0.0):
        made.faulted(lease.ticket, "a", BUSY, 1.0)

    again = made.assign(100.0)

    assert (len(again), {lease.may_share for lease in again}) == (64, {True})


def test_endpoint_under_suspicion_gets_one_text() -> None:
    made = scheduler()
    add(made, "j", 1000)
    strike = Fault(FaultKind.SERVER_ERROR, "trouble", Remedy.ELSEWHERE, harm=Harm.STRIKE)
    for lease in made.assign(0.0):
        made.faulted(lease.ticket, "a", strike, 1.0)
    made.on_probe("a", {VECTORS.model: "d"}, None, 1000.0)

    assert len(made.assign(1000.0)) == 1


def test_text_that_crashes_its_server_each_time_fails_alone_after_three_crashes() -> None:
    # given two endpoints whose model's process ends with everything in flight when it gets request 70
    made = scheduler("a", "b")
    backlog = add(made, "j", 300)
    answered: Counter[int] = Counter()
    crashes, poison, now = 0, list[tuple[int, str]](), 0.0
    while backlog.unfinished:
        now += 100.0
        for name in ("a", "b"):
            made.on_probe(name, {VECTORS.model: "d"}, None, now)
        made.assign(now)
        for name in ("a", "b"):
            leases = made.endpoint(name).held
            if any(lease.ordinal == 70 for lease in leases):
                crashes += 1
                for lease in leases:
                    settled = made.faulted(lease.ticket, name, CRASHED, now + 1.0)
                    assert settled is not None
                    poison += [(lease.ordinal, settled[2].kind)] * settled[1]
            else:
                answer(made, leases, now + 1.0)
                answered.update(lease.ordinal for lease in leases)

    assert poison == [(70, FaultKind.POISON)]
    assert crashes == CRASHES
    assert answered == Counter(set(range(300)) - {70})  # once each


def test_room_of_calls_is_given_for_each_model() -> None:
    made = scheduler()
    add(made, "j", 64 * GROUP_CALLS)
    answer(made, made.assign(0.0))
    add(made, "k", 100, CHAT)

    assert len(made.assign(2.0)) == FIRST
