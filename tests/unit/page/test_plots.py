from __future__ import annotations

import re
from pathlib import Path

import pytest

from obcd.page.plots import SPANS, PlotSource, PlotSpan, columns, nice_top, show_plots
from obcd.spool.history.history_files import write_history
from obcd.spool.history.thinning import HistoryPoint
from tests.unit.page.made import make_history

END = 1_795_373_880.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for line in make_history(END, 90):
        write_history(tmp_path, line)
    return tmp_path


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 1), (0.03, 0.05), (1, 1), (1.01, 2), (480, 500), (504, 1000), (9999, 10000)]
)
def test_scale_ends_at_a_round_number(highest: float, top: float) -> None:
    assert nice_top(highest) == pytest.approx(top)


@pytest.mark.parametrize("span", PlotSpan)
def test_span_has_its_points_in_order(span: PlotSpan, root: Path) -> None:
    points = PlotSource(root, lambda: END).points(span)

    assert len(points) == SPANS[span].seconds // SPANS[span].width
    assert [point.time for point in points] == sorted(point.time for point in points)
    assert END - SPANS[span].width <= points[-1].time <= END + SPANS[span].width


def test_points_are_read_again_when_a_new_one_may_be_there(root: Path) -> None:
    now = END
    source = PlotSource(root, lambda: now)
    first = source.points(PlotSpan.HOUR)

    now = END + 30
    same = source.points(PlotSpan.HOUR)
    now = END + 61
    later = source.points(PlotSpan.HOUR)

    assert same is first
    assert later is not first


def test_gap_breaks_the_line(root: Path) -> None:
    drawn = show_plots(PlotSource(root, lambda: END).points(PlotSpan.HOUR), PlotSpan.HOUR)

    first = re.search(r'class="stroke stroke-0" d="(M0[^"]*)"', drawn)
    assert first is not None
    assert first[1].count("M") == 2  # no coordinator ran for six minutes


def test_plots_of_cards_are_left_out_where_no_card_reports(root: Path) -> None:
    with_cards = PlotSource(root, lambda: END).points(PlotSpan.HOUR)
    without = [HistoryPoint(time=point.time, responses=point.responses) for point in with_cards]

    assert show_plots(with_cards, PlotSpan.HOUR).count("<figure") == 6
    assert show_plots(without, PlotSpan.HOUR).count("<figure") == 4
    assert "power_watts" in columns(with_cards)
    assert "power_watts" not in columns(without)


def test_no_history_is_named(tmp_path: Path) -> None:
    source = PlotSource(tmp_path, lambda: END)

    drawn = show_plots(source.points(PlotSpan.HOUR), PlotSpan.HOUR)

    assert "no history of this time yet" in drawn
    assert source.last_time() is None


def test_last_sign_of_a_coordinator_is_its_newest_line(root: Path) -> None:
    assert PlotSource(root, lambda: END).last_time() == END
