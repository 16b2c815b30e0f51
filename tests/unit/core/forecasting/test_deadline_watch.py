from __future__ import annotations

from datetime import datetime

from obcd.core.forecasting.deadline_watch import HOLD_SECONDS, DeadlineWatch, raised_ranks
from obcd.core.pending.fair_share import FOREMOST, Rank
from tests.golden.wording import wording

HOUR = 3600.0


def watched(by: float = 8 * HOUR) -> DeadlineWatch:
    return DeadlineWatch(by)


def test_job_that_ends_well_before_its_deadline_is_left_alone() -> None:
    watch = watched()

    assert not watch.look(5 * HOUR, 5 * HOUR, 0.0)
    assert (watch.is_in_danger, watch.is_late, watch.late_seconds) == (False, False, None)


def test_deadline_in_danger_stays_so_until_there_is_room_again() -> None:
    watch = watched()

    watch.look(7 * HOUR, 7 * HOUR, 0.0)
    assert watch.is_in_danger
    watch.look(6.5 * HOUR, 6 * HOUR, 10.0)
    assert watch.is_in_danger
    watch.look(4 * HOUR, 4 * HOUR, 20.0)
    assert not watch.is_in_danger


def test_deadline_that_was_missed_needs_no_raised_rank_any_more() -> None:
    watch = watched()
    dangers = []

    for at in (7 * HOUR, 8 * HOUR):
        watch.look(9 * HOUR, 9 * HOUR, at)
        dangers.append(watch.is_in_danger)

    assert dangers == [True, False]
    assert raised_ranks([("late", 1, Rank(), watch)]) == {}


def test_late_job_is_reported_once_the_forecast_stays() -> None:
    watch = watched()

    looks = [watch.look(9 * HOUR, 9 * HOUR, at) for at in (0.0, HOLD_SECONDS / 2, HOLD_SECONDS, HOLD_SECONDS + 5)]

    assert looks == [False, False, True, False]
    assert watch.late_seconds == HOUR


def test_forecast_that_was_late_for_a_moment_is_not_reported() -> None:
    watch = watched()

    looks = [watch.look(end, end, at) for at, end in ((0.0, 9 * HOUR), (10.0, 7 * HOUR), (25.0, 9 * HOUR))]

    assert looks == [False, False, False]


def test_job_that_catches_up_is_reported_too() -> None:
    watch = watched()
    watch.look(9 * HOUR, 9 * HOUR, 0.0)
    watch.look(9 * HOUR, 9 * HOUR, HOLD_SECONDS)

    looks = [watch.look(7 * HOUR, 7 * HOUR, at) for at in (100.0, 100.0 + HOLD_SECONDS)]

    assert (looks, watch.is_late) == ([False, True], False)


def test_few_minutes_in_many_hours_are_within_the_margin_and_count_when_the_end_is_near() -> None:
    watch = watched()
    for at in (0.0, 100.0):
        assert not watch.look(8 * HOUR + 300, 8 * HOUR + 300, at)

    looks = [watch.look(8 * HOUR + 300, 8 * HOUR + 300, 7 * HOUR + step) for step in (0.0, HOLD_SECONDS)]

    assert looks == [False, True]


def test_few_answers_leave_a_doubt() -> None:
    few, many = watched(), watched()

    for at in (0.0, HOLD_SECONDS):
        few.look(9 * HOUR, 9 * HOUR, at, seen=9)
        many.look(9 * HOUR, 9 * HOUR, at, seen=900)

    assert (few.is_late, many.is_late) == (False, True)


def test_deadline_that_has_passed_needs_no_forecast() -> None:
    watch = watched()
    watch.look(None, None, 7 * HOUR)
    assert not watch.is_late

    assert watch.look(None, None, 8 * HOUR)
    assert (watch.is_late, watch.late_seconds) == (True, None)


def test_sentence_names_the_time_and_by_how_much() -> None:
    day = 20_000 * 86400.0 - _offset(20_000 * 86400.0)
    watch = DeadlineWatch(day + 6 * HOUR, is_late=True, ends_at=day + 6 * HOUR + 2400)

    assert watch.describe("notes.jsonl", day) == wording("notes-jsonl-will-miss-06-00-by-40-min")
    assert watch.describe("notes.jsonl", day + 7 * HOUR) == wording("notes-jsonl-has-missed-06-00")


def _offset(at: float) -> float:
    offset = datetime.fromtimestamp(at).astimezone().utcoffset()
    assert offset is not None
    return offset.total_seconds()


def test_ranks_rise_above_all_other_jobs_of_the_submitter_and_nobody_elses() -> None:
    danger, safe = DeadlineWatch(10.0, is_in_danger=True), DeadlineWatch(5.0)
    jobs = [("late", 1, Rank(0, 100), DeadlineWatch(20.0, is_in_danger=True)), ("safe", 1, Rank(), safe)]

    ranks = raised_ranks([*jobs, ("soon", 1, Rank(3, -5), danger)])

    assert ranks.keys() == {"late", "soon"}
    assert FOREMOST > ranks["soon"].among_own > ranks["late"].among_own > 100
    assert (ranks["soon"].among_all, ranks["late"].among_all) == (3, 0)
