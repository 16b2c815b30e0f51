"""The figures of a step: whole rounds after the first, latencies, how many the server worked on."""

from __future__ import annotations

import pytest

from obcd.benchmark.samples import Sample, measure_step, percentile, spread_tokens


def answer(began: float, ended: float, *, tokens: int = 10, work: float | None = None) -> Sample:
    worked = ended - began if work is None else work
    return Sample(
        prompt=0,
        began=began,
        ended=ended,
        tokens=tokens,
        eval_seconds=worked,
        work_seconds=worked,
        wait_seconds=ended - began - worked,
    )


def rounds(count: int, in_flight: int, seconds: float) -> list[Sample]:
    """Return rounds of equal requests that begin and end together."""
    return [answer(number * seconds, (number + 1) * seconds) for number in range(count) for _ in range(in_flight)]


def test_first_round_does_not_count() -> None:
    slow_start = [answer(0.0, 50.0), answer(0.0, 50.0)]
    steady = [answer(50.0 + number, 51.0 + number) for number in range(4) for _ in range(2)]

    step = measure_step(slow_start + steady, 2)

    assert step is not None
    assert step.requests == 8
    assert step.requests_per_second == pytest.approx(2.0)
    assert step.tokens_per_second == pytest.approx(20.0)
    assert step.p95_seconds == pytest.approx(1.0)


def test_part_of_a_round_does_not_count() -> None:
    step = measure_step(rounds(3, 4, 2.0)[:-3], 4)

    assert step is not None
    assert step.requests == 4
    assert step.requests_per_second == pytest.approx(2.0)


def test_order_in_which_samples_come_does_not_matter() -> None:
    samples = rounds(4, 3, 1.0)

    assert measure_step(samples[::-1], 3) == measure_step(samples, 3)


def test_without_a_round_after_the_first_there_are_no_figures() -> None:
    assert measure_step(rounds(1, 4, 1.0), 4) is None
    assert measure_step([], 1) is None


def test_request_that_failed_is_counted_and_nothing_else() -> None:
    failed = Sample(prompt=1, began=0.0, ended=9.0, fault="timeout", message="no answer")

    step = measure_step([*rounds(3, 2, 1.0), failed], 2)

    assert step is not None
    assert (step.failed, step.requests) == (1, 4)
    assert step.p95_seconds == pytest.approx(1.0)


def test_requests_that_wait_for_a_slot_show_how_many_slots_there_are() -> None:
    # Eight in flight, two worked on at a time for a second each: each waits for three seconds.
    samples = [answer(number / 2, number / 2 + 4.0, work=1.0) for number in range(40)]

    step = measure_step(samples, 8)

    assert step is not None
    assert step.busy_slots == pytest.approx(2.0)
    assert step.wait_seconds == pytest.approx(3.0)


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(1, 21)]

    assert percentile(values, 50) == 10.0
    assert percentile(values, 95) == 19.0
    assert percentile([7.0], 95) == 7.0


def test_tokens_are_spread_over_the_time_in_which_they_were_made() -> None:
    sample = answer(0.0, 4.0, tokens=30, work=3.0)

    assert dict(spread_tokens(sample, 0.0, 1.0, 10)) == pytest.approx({1: 10.0, 2: 10.0, 3: 10.0})
    assert dict(spread_tokens(sample, 0.0, 1.0, 3)) == pytest.approx({1: 10.0, 2: 10.0})
    assert dict(spread_tokens(sample, 2.5, 1.0, 3)) == pytest.approx({0: 10.0, 1: 5.0})
    assert dict(spread_tokens(sample, 9.0, 1.0, 3)) == {}
