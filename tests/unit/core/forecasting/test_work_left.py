from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import Counter

import pytest

from obcd.core.forecasting.queue_forecast import Capacity, Load, forecast
from obcd.core.forecasting.work_left import (
    WorkLeft,
    _expected_after,
    choose_sample,
    estimate_work,
    size_of,
    sizes_of,
)
from obcd.core.pending.longest_first import LongestFirst, sort_sizes


def made_up_file(chance: random.Random) -> tuple[list[int], list[float]]:
    """Return the lengths of a file's lines, and what each request takes: a part goes with the length, and noise."""
    count, width = chance.randrange(1500, 6000), chance.choice([0.3, 0.6, 1.0])
    lengths = [int(200 * chance.lognormvariate(0, width)) + 20 for _ in range(count)]
    share, noise = chance.choice([0.0, 0.4, 0.9]), chance.uniform(0.2, 0.6)
    usual = statistics.mean(lengths)
    return lengths, [
        5 * (1 - share + share * length / usual) * chance.lognormvariate(-noise * noise / 2, noise)
        for length in lengths
    ]


def done_at(seconds: list[float], slots: int) -> float:
    """Return when a list of requests is done: each goes to the slot that is free first."""
    free = [0.0] * slots
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def error_of(work: WorkLeft, seconds: list[float], *, is_longest_first: bool = False) -> float:
    spread = work.spread(is_longest_first=is_longest_first)
    load = Load(job="job", requests=work.requests, seconds=work.seconds, spread=spread)
    end = forecast([load], [Capacity(name="gpu0", slots=16)], 0.0)["job"]
    assert end is not None
    return abs(end / done_at(seconds, 16) - 1)


def order_of(lengths: list[int], seconds: list[float]) -> tuple[list[int], bool]:
    """Return the order in which a job's lines are sent, and whether the scheduler puts the longest first."""
    sizes, rule = sort_sizes(lengths), LongestFirst()
    for place in range(64):
        rule.note(sizes[place], seconds[place])
    order = list(range(len(lengths)))
    if not rule.take_look():
        return order, False
    order[64:] = sorted(order[64:], key=lambda place: -sizes[place])
    return order, True


def errors_of(jobs: int, part: float) -> list[float]:
    """Return how wrong the forecast of the rest is after a part of each job's lines."""
    chance, found = random.Random(18), []
    for _ in range(jobs):
        lengths, seconds = made_up_file(chance)
        order, is_longest_first = order_of(lengths, seconds)
        tried, rest = order[: int(len(order) * part)], order[int(len(order) * part) :]
        work = estimate_work([(lengths[place], seconds[place]) for place in tried], [lengths[place] for place in rest])
        found.append(error_of(work, [seconds[place] for place in rest], is_longest_first=is_longest_first))
    return sorted(found)


def ninth(errors: list[float]) -> float:
    return errors[len(errors) * 9 // 10]


def test_end_is_foreseen_from_five_lines_within_40_percent_in_9_of_10_jobs() -> None:
    chance, errors = random.Random(5), []
    for _ in range(40):
        lengths, seconds = made_up_file(chance)
        tried = choose_sample(lengths, 5)
        work = estimate_work([(lengths[place], seconds[place]) for place in tried], lengths)
        errors.append(error_of(work, seconds))

    assert ninth(sorted(errors)) <= 0.40


@pytest.mark.parametrize(("part", "most"), [(0.01, 0.20), (0.05, 0.15)])
def test_end_is_foreseen_better_the_more_is_done(part: float, most: float) -> None:
    assert ninth(errors_of(40, part)) <= most


def test_long_lines_that_come_first_do_not_stand_for_all() -> None:
    work = WorkLeft(Counter({size_of(100): 880, size_of(1000): 50}))
    for length in [*[100] * 20, *[1000] * 50]:
        work.note(size_of(length), length / 100)

    assert work.seconds == pytest.approx(880 * 1.0 + 50 * 10.0, rel=0.05)
    assert work.mean == pytest.approx(520 / 70)  # what a plain mean would make of it


def test_sizes_that_were_not_seen_follow_from_a_line_through_the_others() -> None:
    work = WorkLeft(Counter({size_of(399): 10}))
    for _ in range(40):
        work.note(size_of(99), 1.0)
        work.note(size_of(199), 2.0)

    assert work.seconds == pytest.approx(40.0, rel=0.02)


def test_faster_server_is_noticed() -> None:
    work = WorkLeft(Counter({0: 1}))
    for _ in range(500):
        work.note(0, 4.0)
    for _ in range(600):
        work.note(0, 2.0)

    assert work.seconds == pytest.approx(2.0, rel=0.2)
    assert work.mean == pytest.approx((500 * 4 + 600 * 2) / 1100)


def test_failed_attempts_cost_time_too() -> None:
    work = WorkLeft(Counter({0: 100}))
    for _ in range(10):
        work.note(0, 2.0)
        work.note_lost(1.0)

    assert work.seconds == pytest.approx(300.0)


def test_what_an_earlier_coordinator_measured_is_the_start() -> None:
    work = WorkLeft(Counter({size_of(10): 10, size_of(20): 10}))
    assert (work.mean, work.seconds) == (None, 0.0)
    work.note_earlier(5000, 10_000.0)

    assert work.seconds == pytest.approx(40.0)


def test_requests_that_end_are_no_work_any_more() -> None:
    work = WorkLeft(Counter({0: 3}))
    work.note(0, 2.0)
    work.end(0)

    assert (work.requests, work.seconds, work.spread()) == (2, 4.0, 2.0)


def test_long_line_at_the_end_makes_the_end_uncertain_unless_long_lines_come_first() -> None:
    work = WorkLeft(Counter({size_of(100): 50, size_of(10_000): 5}))
    for length in (100, 10_000):
        for _ in range(50):
            work.note(size_of(length), length / 100)

    assert work.spread() > 20.0
    assert work.spread(is_longest_first=True) < 1.0


def test_requests_that_take_longer_than_those_that_were_answered_first_count() -> None:
    work = WorkLeft(Counter({0: 100}))
    for _ in range(10):
        work.note(0, 1.0)

    work.look_at([(0, 0.2), (0, 0.1)])
    assert work.seconds == pytest.approx(100.0, rel=0.001)  # young ones say nothing
    work.look_at([(0, 5.0)] * 6)
    assert work.seconds > 200.0
    work.look_at([])
    assert work.seconds == pytest.approx(100.0)


def test_long_lines_in_flight_say_what_long_lines_take_before_one_is_answered() -> None:
    short, long = size_of(100), size_of(1600)
    work = WorkLeft(Counter({short: 100, long: 100}))
    for _ in range(10):
        work.note(short, 1.0)

    work.look_at([(long, 8.0)] * 6)
    whole = work.seconds
    work.left[long] = 0

    assert work.seconds == pytest.approx(100.0, rel=0.3)
    assert whole > 700.0


def test_answers_count_as_they_are_once_there_are_many_for_each_request_in_flight() -> None:
    work = WorkLeft(Counter({0: 1000}))
    for _ in range(100):
        work.note(0, 1.0)

    work.look_at([(0, 50.0)])

    assert work.seconds == pytest.approx(1000.0)


@pytest.mark.parametrize(
    ("age", "least", "most"), [(0.0, 2.0, 2.0), (0.01, 2.0, 2.001), (4.0, 4.5, 6.0), (400.0, 400, 450)]
)
def test_request_that_has_lasted_longer_takes_longer(age: float, least: float, most: float) -> None:
    assert least <= _expected_after(2.0, age, 0.45) <= most


def test_expectation_has_no_step_where_the_tail_begins() -> None:
    ages = [2.0 * math.exp(0.45 * (place - 0.225)) for place in (5.99, 6.01)]

    near, far = (_expected_after(2.0, age, 0.45) / age for age in ages)

    assert near == pytest.approx(far, rel=0.03)


def test_size_of_a_line_takes_a_byte() -> None:
    assert sizes_of([0, 1, 3, 100, 2**28]) == bytes([0, 4, 8, 27, 112])
    assert size_of(2000) - size_of(1000) == 4


def test_sample_stands_for_all_lengths() -> None:
    lengths = [*range(1, 51), *range(100, 50, -1)]

    chosen = choose_sample(lengths, 5)

    assert chosen == sorted(chosen)
    assert sorted(lengths[place] for place in chosen) == [11, 31, 51, 71, 91]
    assert choose_sample([5, 6], 5) == [0, 1]
    assert choose_sample([], 5) == []
