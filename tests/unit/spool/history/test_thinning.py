"""What plots show of the history: means over equal parts of the time, and gaps where no coordinator ran."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obcd.spool.history.history_line import HistoryLine
from obcd.spool.history.thinning import HistoryPoint, thin


def line(time: float, responses: int, seconds: float = 60.0, **more: float) -> HistoryLine:
    return HistoryLine(time=time, seconds=seconds, responses=responses, **more)  # type: ignore[arg-type]


def test_point_is_the_mean_of_its_lines() -> None:
    lines = [
        line(60, 60, waiting=10, slot_seconds=960, busy_seconds=480, power_watts=100.0, utilization=0.5),
        line(120, 180, waiting=30, slot_seconds=960, busy_seconds=960, power_watts=300.0),
    ]

    (point,) = thin(lines, 0.0, 120.0, 1)

    assert point == HistoryPoint(
        time=60.0, responses=2.0, failures=0.0, prompt_tokens=0.0, output_tokens=0.0, waiting=20.0, slots=16.0,
        busy=12.0, idle=0.0, utilization=0.5, power_watts=200.0,
    )  # fmt: skip


def test_line_across_two_points_counts_in_both_by_its_time() -> None:
    first, second = thin([line(90, 60)], 0.0, 120.0, 2)

    assert (first.responses, second.responses) == (1.0, 1.0)
    assert thin([line(70, 60), line(130, 120)], 0.0, 120.0, 2)[1].responses == 1.833


def test_time_without_a_coordinator_is_a_gap() -> None:
    points = thin([line(60, 60), line(600, 60)], 0.0, 600.0, 10)

    assert [point.responses for point in points] == [1.0, *[None] * 8, 1.0]


def test_lines_that_are_not_quite_a_minute_apart_leave_no_gap() -> None:
    lines = [line(60.4 * number, 60, 60.4) for number in range(1, 60)]

    assert None not in [point.responses for point in thin(lines, 0.0, 3500.0, 58)]


@given(st.lists(st.tuples(st.floats(1, 200), st.integers(0, 1000)), min_size=1, max_size=20), st.integers(1, 50))
def test_no_answer_is_lost_or_counted_twice(items: list[tuple[float, int]], points: int) -> None:
    lines, end = [], 0.0
    for seconds, responses in items:
        end += seconds
        lines.append(line(end, responses, seconds))

    found = thin(lines, 0.0, end, points)

    total = sum(point.responses or 0.0 for point in found) * end / points
    assert total == pytest.approx(sum(responses for _, responses in items), abs=0.001 * end)
