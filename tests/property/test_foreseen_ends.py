"""The forecast against a simulated cluster with the real scheduler, with windows, other users and endpoints that go."""

from __future__ import annotations

import pytest

from tests.standins.foreseen_jobs import error_at, report_of


def test_end_is_foreseen_with_windows_from_a_twentieth_of_the_lines() -> None:
    assert [round(error_at(seed, 0.05, with_windows=True), 2) <= 0.15 for seed in range(3)] == [True] * 3


@pytest.mark.parametrize("breaks", [False, True])
def test_deadline_that_will_be_missed_is_reported_in_time(*, breaks: bool) -> None:
    assert report_of(7, breaks=breaks, late=3600.0).is_in_time


@pytest.mark.soak
@pytest.mark.parametrize(("part", "most"), [(0.01, 0.23), (0.05, 0.15)])
def test_nine_of_ten_ends_are_foreseen(part: float, most: float) -> None:
    errors = sorted(error_at(seed, part, with_windows=True) for seed in range(60))

    assert errors[53] <= most


@pytest.mark.soak
@pytest.mark.parametrize("breaks", [False, True])
def test_nine_of_ten_missed_deadlines_are_reported_in_time(*, breaks: bool) -> None:
    reports = [report_of(seed, breaks=breaks, late=late) for late in (1800.0, 7200.0) for seed in range(10)]

    assert sum(report.is_in_time for report in reports) >= 18
