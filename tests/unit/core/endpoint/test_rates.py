"""Rates over the last seconds."""

from __future__ import annotations

import pytest

from obcd.core.endpoint.rates import BUCKET, WINDOW, Rate


def test_steady_work_has_its_rate() -> None:
    rate = Rate(0.0)
    for tenth in range(1, 1000):
        rate.add(2.0, tenth / 10)

    assert rate.per_second(99.9) == pytest.approx(20.0, rel=0.05)


def test_young_rate_counts_from_its_beginning() -> None:
    rate = Rate(100.0)
    rate.add(50.0, 105.0)

    assert rate.per_second(105.0) == pytest.approx(10.0)


def test_first_moment_does_not_divide_by_nothing() -> None:
    rate = Rate(5.0)
    rate.add(3.0, 5.0)

    assert rate.per_second(5.0) == pytest.approx(3.0 / BUCKET)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    rate = Rate(0.0)
    rate.add(0.1, 1.0)
    rate.add(0.2, 1.5)

    assert rate.per_second(1.5 + WINDOW + 2 * BUCKET) == 0.0


def test_million_results_need_a_handful_of_buckets() -> None:
    rate = Rate(0.0)
    for number in range(100_000):
        rate.add(1.0, number / 1000)

    assert len(rate._buckets) <= WINDOW / BUCKET + 2
