"""Whose job becomes active next."""

from __future__ import annotations

import pytest

from obcd.core.pending.fair_share import Candidate, Rank, choose_next

ANN, BOB = 1000, 1001


def waiting(*uids: int) -> list[Candidate]:
    return [Candidate(uid) for uid in uids]


def test_oldest_comes_first() -> None:
    assert choose_next(waiting(ANN, ANN), [], 2) == 0


def test_nothing_comes_when_all_room_is_taken() -> None:
    assert choose_next(waiting(ANN), waiting(ANN, ANN), 2) is None


def test_newcomer_waits_for_nobody_elses_jobs_to_end() -> None:
    crowd = waiting(*[ANN] * 5000, BOB)

    assert choose_next(crowd, waiting(ANN, ANN), 2) == 5000


def test_who_has_fewer_active_jobs_comes_first() -> None:
    assert choose_next(waiting(ANN, BOB), waiting(ANN, ANN, BOB), 9) == 1


@pytest.mark.parametrize(
    ("rank", "chosen"),
    [(Rank(0, 1), 1), (Rank(0, -1), 0), (Rank(1, 1), 1), (Rank(-1, -1), 0)],
)
def test_higher_of_ones_own_comes_first(rank: Rank, chosen: int) -> None:
    assert choose_next([Candidate(ANN), Candidate(ANN, rank)], [], 1) == chosen


def test_own_priority_says_nothing_to_others() -> None:
    held = [Candidate(ANN, Rank(0, 100)), Candidate(BOB)]

    assert choose_next([Candidate(ANN, Rank(0, 100)), Candidate(BOB), Candidate(BOB)], [*held, *held[:1]], 9) == 1


def test_rank_among_all_comes_before_everybody() -> None:
    active = waiting(BOB, BOB)

    assert choose_next([Candidate(ANN), Candidate(BOB, Rank(1, 1))], active, 9) == 1


def test_higher_rank_does_not_wait_for_lower_ones_to_end() -> None:
    active = waiting(ANN, ANN)

    assert choose_next([Candidate(ANN, Rank(0, 1))], active, 2) == 0
    assert choose_next([Candidate(ANN, Rank(0, 1))], [Candidate(ANN, Rank(0, 1))] * 2, 2) is None


def test_paused_job_does_not_start_and_keeps_nobody_back() -> None:
    assert choose_next([Candidate(ANN, can_start=False), Candidate(ANN)], [], 1) == 1
    assert choose_next([Candidate(ANN, can_start=False)], [], 1) is None


@pytest.mark.parametrize(
    ("suspicions", "is_on_trial", "chosen"),
    [
        ((2, 0, 0), False, 0),
        ((2, 0, 0), True, 1),
        ((0, 2, 0), False, 0),
        ((2, 2, 2), False, 0),
        ((4, 3, 2), False, 2),
        ((4, 0, 3), False, 2),
        ((2, 2, 2), True, None),
    ],
)
def test_suspects_begin_one_at_a_time_the_least_suspected_first(
    suspicions: tuple[int, ...], is_on_trial: bool, chosen: int | None
) -> None:
    crowd = [Candidate(ANN, suspicion=suspicion) for suspicion in suspicions]

    assert choose_next(crowd, [], 9, is_on_trial=is_on_trial) == chosen
