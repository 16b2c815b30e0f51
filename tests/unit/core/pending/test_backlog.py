"""A job's requests: each is taken once, goes elsewhere first after a failure, and ends once."""

from __future__ import annotations

import time

from obcd.core.pending.backlog import ELSEWHERE_SECONDS, Backlog
from obcd.core.request.records import Signature

SMALL, LARGE, HUGE = (Signature(f"m{number}:latest", ()) for number in range(3))
#: No endpoint but the one that asks.
NOBODY: frozenset[str] = frozenset()
BOTH = frozenset(("a", "b"))


def backlog(count: int = 3, column: bytes = b"", signatures: tuple[Signature, ...] = (SMALL,)) -> Backlog:
    return Backlog("job", bytes(count), signatures, column, limit=4)


def lease_all(jobs: Backlog, number: int = 0, endpoint: str = "a") -> list[int]:
    found = []
    while (ordinal := jobs.lease(number, endpoint, NOBODY, 0.0)) is not None:
        found.append(ordinal)
    return found


def test_requests_are_leased_in_input_order_and_each_once() -> None:
    jobs = backlog(5)

    assert lease_all(jobs) == [0, 1, 2, 3, 4]
    assert not jobs.has_ready(0, "a", NOBODY, 0.0)


def test_what_the_ledger_holds_is_not_leased_again() -> None:
    jobs = Backlog("job", bytes([1, 0, 1, 0]), (SMALL,), limit=4)

    assert jobs.unfinished == 2
    assert len(jobs) == 4
    assert lease_all(jobs) == [1, 3]


def test_empty_job_has_nothing_to_lease() -> None:
    jobs = backlog(0)

    assert jobs.unfinished == 0
    assert jobs.lease(0, "a", NOBODY, 0.0) is None


def test_each_signature_has_its_own_place_in_the_input() -> None:
    jobs = backlog(7, bytes([1, 0, 2, 1, 1, 0, 2]), (SMALL, LARGE, HUGE))

    assert jobs.lease(1, "a", NOBODY, 0.0) == 0
    assert lease_all(jobs, 2) == [2, 6]
    assert lease_all(jobs, 0) == [1, 5]
    assert lease_all(jobs, 1) == [3, 4]
    assert [jobs.signature_number(ordinal) for ordinal in range(7)] == [1, 0, 2, 1, 1, 0, 2]


def test_signature_without_requests_finds_none() -> None:
    jobs = backlog(2, bytes([0, 0]), (SMALL, LARGE))

    assert lease_all(jobs, 1) == []
    assert lease_all(jobs, 0) == [0, 1]


def test_postponed_request_waits_until_it_is_due_and_then_comes_first() -> None:
    jobs = backlog(3)
    assert jobs.lease(0, "a", NOBODY, 0.0) == 0

    jobs.postpone(0, due=10.0)

    assert jobs.next_due(0.0) == 10.0
    assert jobs.lease(0, "a", NOBODY, 9.9) == 1
    assert jobs.lease(0, "a", NOBODY, 10.0) == 0


def test_request_that_is_due_is_no_reason_to_wake_up_again() -> None:
    # given two requests in back-off, one of them due, and no slot to take it
    jobs = backlog(2)
    lease_all(jobs)
    jobs.postpone(0, due=10.0)
    jobs.postpone(1, due=20.0)

    # when, then: only the future counts, else the loop that asks would spin
    assert jobs.next_due(15.0) == 20.0
    assert jobs.next_due(25.0) is None
    assert lease_all(jobs) == [0, 1]


def test_what_failed_here_is_left_for_an_endpoint_that_has_not_failed_it() -> None:
    jobs = backlog(1)
    lease_all(jobs)
    assert jobs.on_failed_on(0, "a", BOTH)
    jobs.postpone(0, due=1.0)

    assert not jobs.has_ready(0, "a", BOTH, 1.0)
    assert jobs.lease(0, "a", BOTH, 1.0) is None
    assert jobs.has_ready(0, "b", BOTH, 1.0)
    assert jobs.lease(0, "b", BOTH, 1.0) == 0


def test_what_failed_here_is_taken_here_again_where_there_is_no_other() -> None:
    jobs = backlog(1)
    lease_all(jobs)
    assert not jobs.on_failed_on(0, "a", frozenset("a"))
    jobs.postpone(0, due=1.0)

    assert jobs.lease(0, "a", frozenset("a"), 1.0) == 0


def test_what_failed_everywhere_begins_a_new_round_that_spares_the_last() -> None:
    jobs = backlog(1)
    for endpoint in ("a", "b"):
        assert jobs.lease(0, endpoint, BOTH, 1.0) == 0
        jobs.on_failed_on(0, endpoint, BOTH)
        jobs.postpone(0, due=1.0)

    assert jobs.failed_on == {0: {"b"}}
    assert jobs.lease(0, "b", BOTH, 1.0) is None
    assert jobs.lease(0, "a", BOTH, 1.0) == 0


def test_nobody_else_in_time_lets_the_endpoint_that_failed_it_take_it() -> None:
    # given a request that failed at a, and b, which could take it, but has other work
    jobs = backlog(1)
    lease_all(jobs)
    jobs.on_failed_on(0, "a", BOTH)
    jobs.postpone(0, due=1.0)

    # when, then
    assert jobs.lease(0, "a", BOTH, 0.9 + ELSEWHERE_SECONDS) is None
    assert jobs.lease(0, "a", BOTH, 1.0 + ELSEWHERE_SECONDS) == 0


def test_a_request_that_is_passed_over_does_not_hide_the_ones_behind_it() -> None:
    jobs = backlog(3)
    assert [jobs.lease(0, "a", BOTH, 0.0) for _ in range(2)] == [0, 1]
    jobs.on_failed_on(0, "a", BOTH)
    jobs.postpone(0, due=1.0)
    jobs.postpone(1, due=2.0)

    assert jobs.lease(0, "a", BOTH, 5.0) == 1
    assert jobs.lease(0, "a", BOTH, 5.0) == 2
    assert jobs.lease(0, "a", BOTH, 5.0) is None
    assert jobs.lease(0, "b", BOTH, 5.0) == 0


def test_end_counts_each_request_once_and_forgets_its_failures() -> None:
    jobs = backlog(2)
    lease_all(jobs)
    jobs.attempts[0] = 2
    jobs.on_failed_on(0, "a", NOBODY)

    jobs.end(0)
    jobs.end(0)

    assert jobs.unfinished == 1
    assert (jobs.attempts, jobs.failed_on) == ({}, {})


def test_request_ended_while_it_waits_is_never_leased() -> None:
    # given one that is in back-off and one that is due
    jobs = backlog(2)
    lease_all(jobs)
    jobs.postpone(0, due=1.0)
    jobs.postpone(1, due=5.0)
    assert jobs.next_due(2.0) == 5.0

    # when both are ended where they wait
    jobs.end(0)
    jobs.end(1)

    # then
    assert lease_all(jobs) == []
    assert jobs.lease(0, "a", NOBODY, 9.0) is None


def test_unservable_requests_are_taken_with_a_limit_and_those_in_back_off_when_due() -> None:
    jobs = backlog(4)
    assert jobs.lease(0, "a", NOBODY, 0.0) == 0
    jobs.postpone(0, due=5.0)

    assert jobs.take_unservable(0, 2, 1.0) == [1, 2]
    assert jobs.take_unservable(0, 9, 1.0) == [3]
    assert jobs.has_unleased(0)
    assert jobs.take_unservable(0, 9, 5.0) == [0]
    assert not jobs.has_unleased(0)


SHORT, LONG, OTHER = (Signature("m:latest", (("num_ctx", length),)) for length in (2048, 8192, 512))


def planned(column: bytes, done: bytes | None = None) -> Backlog:
    """Return requests of SHORT (0), of LONG (1), its larger context, and of OTHER (2), which has none."""
    return Backlog("job", done or bytes(len(column)), (SHORT, LONG, OTHER), column, larger={0: 1}, limit=4)


def test_what_needs_a_larger_context_waits_until_all_others_were_given_out() -> None:
    jobs = planned(bytes([1, 0, 1, 0]))
    assert not jobs.has_ready(1, "a", NOBODY, 0.0)
    assert jobs.lease(1, "a", NOBODY, 0.0) is None
    assert jobs.lease(0, "a", NOBODY, 0.0) == 1
    assert jobs.lease(1, "a", NOBODY, 0.0) is None
    assert jobs.has_unleased(1)

    assert jobs.lease(0, "a", NOBODY, 0.0) == 3

    assert jobs.has_ready(1, "a", NOBODY, 0.0)
    assert lease_all(jobs, 1) == [0, 2]


def test_pass_of_the_larger_context_goes_on_once_it_has_begun() -> None:
    jobs = planned(bytes([0, 1, 1]))
    lease_all(jobs)
    assert jobs.lease(1, "a", NOBODY, 0.0) == 1

    jobs.postpone(0, due=0.0)  # its endpoint went away, say

    assert jobs.lease(1, "a", NOBODY, 0.0) == 2
    assert lease_all(jobs) == [0]


def test_request_that_proves_too_long_goes_over_to_the_larger_context() -> None:
    jobs = planned(bytes([0, 0, 1]))
    assert lease_all(jobs) == [0, 1]

    assert jobs.enlarge(1, 8192, 0.0)

    assert (jobs.signature_number(0), jobs.signature_number(1)) == (0, 1)
    assert lease_all(jobs) == []
    assert lease_all(jobs, 1) == [1, 2]
    jobs.end(1)
    assert jobs.unfinished == 2


def test_request_that_proves_too_long_early_waits_for_the_pass_too() -> None:
    jobs = planned(bytes([0, 0, 1]))
    assert jobs.lease(0, "a", NOBODY, 0.0) == 0
    assert jobs.enlarge(0, 8192, 0.0)

    assert jobs.lease(1, "a", NOBODY, 1.0) is None
    assert not jobs.has_ready(1, "a", NOBODY, 1.0)
    assert (jobs.has_unleased(1), jobs.next_due(1.0)) == (True, None)

    assert lease_all(jobs) == [1]
    assert jobs.has_ready(1, "a", NOBODY, 1.0)
    assert [jobs.lease(1, "a", NOBODY, 1.0) for _ in range(3)] == [0, 2, None]


def test_request_that_fits_no_larger_context_stays_where_it_is() -> None:
    jobs = planned(bytes([0, 1, 2]))
    assert [lease_all(jobs, number) for number in (0, 1, 2)] == [[0], [1], [2]]

    assert not any(jobs.enlarge(ordinal, needs, 0.0) for ordinal, needs in ((0, 8193), (1, 100), (2, 100)))

    assert [jobs.signature_number(ordinal) for ordinal in range(3)] == [0, 1, 2]
    assert [lease_all(jobs, number) for number in (0, 1, 2)] == [[], [], []]


def test_what_is_left_after_a_restart_is_found_among_a_million_at_once() -> None:
    count = 1_000_000
    column = bytearray(count)
    column[::100] = b"\1" * (count // 100)
    done = bytes([1]) * (count - 1) + b"\0"
    jobs = Backlog("job", done, (SHORT, LONG), bytes(column), larger={0: 1}, limit=4)

    began = time.process_time()
    assert jobs.lease(1, "a", NOBODY, 0.0) is None
    assert jobs.lease(0, "a", NOBODY, 0.0) == count - 1

    assert time.process_time() - began < 0.05
