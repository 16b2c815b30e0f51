"""Plots of the history: points for the script, and drawings that need no script.

root/history ─► PlotSource.points ─► Plots ─► figures of the page (SVG) and history.json (columns)
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from obcd.core.markup import Child, Markup, join, tag
from obcd.page import figures
from obcd.page.tables import RowGroup, TableColumn, TableRow, table
from obcd.spool.history.history_files import read_history
from obcd.spool.history.thinning import HistoryPoint, thin


class PlotSpan(StrEnum):
    """How much of the past the plots show."""

    HOUR = "hour"
    DAY = "day"
    FORTNIGHT = "fortnight"


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """The words of a span, its length and the width of one point, in seconds."""

    words: str
    seconds: int
    width: int


SPANS = {
    PlotSpan.HOUR: SpanFacts("Last hour", 3600, 60),
    PlotSpan.DAY: SpanFacts("Last day", 86400, 600),
    PlotSpan.FORTNIGHT: SpanFacts("Last fortnight", 14 * 86400, 7200),
}


@dataclass(frozen=True, slots=True)
class PlotLine:
    """A line of a plot: the field of `HistoryPoint`, and its name for people."""

    field: str
    name: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot. Lines differ by colour and by dashes, in the order of their places."""

    key: str
    title: str
    lines: tuple[PlotLine, ...]


PLOTS = (
    Plot("answers", "Answers a second", (PlotLine("responses", "answered"), PlotLine("failures", "failed"))),
    Plot("tokens", "Tokens a second", (PlotLine("output_tokens", "generated"), PlotLine("prompt_tokens", "read"))),
    Plot("waiting", "Requests waiting", (PlotLine("waiting", "waiting"),)),
    Plot(
        "slots",
        "Slots",
        (PlotLine("busy", "in use"), PlotLine("idle", "idle while prompts wait"), PlotLine("slots", "all")),
    ),
)
#: Shown too where cards report it.
CARD_PLOTS = (
    Plot("power", "Power of all cards, in watts", (PlotLine("power_watts", "power"),)),
    Plot("utilization", "Utilisation of the cards, in percent", (PlotLine("utilization", "mean"),)),
)
#: Size of a drawing, in its own units; it is stretched to its place.
WIDTH, HEIGHT = 600, 120
#: The rows of the table that says what the plots show.
TABLE_ROWS = 12


class PlotSource:
    """The points of each span, read again when a new one may be there. Any thread.

    Args:
        root: The root of the spool.
        clock: Returns Unix seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._root, self._clock = root, clock
        self._lock = threading.Lock()
        self._points: dict[PlotSpan, tuple[int, Sequence[HistoryPoint]]] = {}

    def points(self, span: PlotSpan) -> Sequence[HistoryPoint]:
        """Return the points of a span, the oldest first; none if the history cannot be read."""
        facts = SPANS[span]
        end = math.ceil(self._clock() / facts.width) * facts.width
        with self._lock:  # one reader at a time: a fortnight takes half a second
            # The last point of a long span is that of an unfinished width: it grows each minute, and may be late.
            number = math.floor(self._clock() / max(60, facts.width / 8))
            known = self._points.get(span)
            if known is None or known[0] != number:
                known = self._points[span] = number, self._read(end, facts)
            return known[1]

    def _read(self, end: float, facts: SpanFacts) -> Sequence[HistoryPoint]:
        start, count = end - facts.seconds, facts.seconds // facts.width
        try:
            return thin(read_history(self._root, start, is_brief=True), start, end, count)
        except (OSError, ValueError, OverflowError):
            return []

    def last_time(self) -> float | None:
        """Return when the newest line of the last day was written, in Unix seconds; None if there is none."""
        last = None
        try:
            for line in read_history(self._root, self._clock() - 86400, is_brief=True):
                last = line.time
        except (OSError, ValueError):
            return None
        return last


def columns(points: Sequence[HistoryPoint]) -> dict[str, list[float | None]]:
    """Return `{"time": [...], field of a line: [...]}`, with None where nothing is known."""
    fields = [line.field for plot in used_plots(points) for line in plot.lines]
    return {"time": [point.time for point in points], **{name: _values(points, name) for name in fields}}


def used_plots(points: Sequence[HistoryPoint]) -> tuple[Plot, ...]:
    """Return the plots: those of cards only where one of them reports."""
    known = (plot for plot in CARD_PLOTS if any(getattr(point, plot.lines[0].field) is not None for point in points))
    return (*PLOTS, *known)


def _values(points: Sequence[HistoryPoint], field: str) -> list[float | None]:
    factor = 100 if field == "utilization" else 1
    values = (getattr(point, field) for point in points)
    return [None if value is None else round(figures.bounded(value * factor), 3) for value in values]


# --- drawings --------------------------------------------------------------------------------------------------------


def show_plots(points: Sequence[HistoryPoint], span: PlotSpan) -> Markup:
    """Return the section of the plots."""
    links = tag("nav", {"aria-label": "Span of the plots", "class": "spans"}, [_link(each, span) for each in PlotSpan])
    heading = tag("div", {"class": "bar-of-title"}, tag("h2", {"id": "plots-title"}, "History"), links)
    if not any(point.responses is not None for point in points):
        nothing = "There is no history of this time yet: the coordinator writes a line each minute."
        return join([heading, tag("p", {"class": "faint", "id": "no-plots"}, nothing)])
    plots = used_plots(points)
    drawn = [_figure(plot, points) for plot in plots]
    return join([heading, tag("div", {"class": f"plots of-{len(plots)}"}, drawn), _table(plots, points)])


def _link(span: PlotSpan, shown: PlotSpan) -> Markup:
    current = "true" if span is shown else None
    return tag("a", {"href": f"?span={span}", "data-span": span, "aria-current": current}, SPANS[span].words)


def _figure(plot: Plot, points: Sequence[HistoryPoint]) -> Markup:
    series = [_values(points, line.field) for line in plot.lines]
    top = nice_top(max((value for values in series for value in values if value is not None), default=0.0))
    names = [
        tag("li", {"class": f"line-{number}"}, _key(number), line.name, " ", tag("b", {}, _last(values)))
        for number, (line, values) in enumerate(zip(plot.lines, series, strict=True))
    ]
    box = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "preserveAspectRatio": "none", "aria-hidden": "true", "class": "drawing"}
    lines = [_path(values, top, number) for number, values in enumerate(series)]
    grid = tag("path", {"class": "grid", "d": f"M0 0.5H{WIDTH}M0 {HEIGHT // 2}H{WIDTH}M0 {HEIGHT - 0.5}H{WIDTH}"})
    drawing = tag("svg", box, grid, lines[::-1])
    scale = tag(
        "span", {"class": "scale", "aria-hidden": "true"}, tag("span", {}, figures.rate(top)), tag("span", {}, "0")
    )
    ends = tag(
        "p", {"class": "ends", "aria-hidden": "true"},
        [tag("span", {}, tag("time", {"datetime": figures.machine_time(point.time)}, figures.hour(point.time)))
         for point in (points[0], points[-1])],
    )  # fmt: skip
    named = ";".join(f"{line.field}:{line.name}" for line in plot.lines)
    return tag(
        "figure", {"id": f"plot-{plot.key}", "data-lines": named},
        tag("figcaption", {}, tag("h3", {}, plot.title), tag("ul", {"class": "legend"}, names)),
        tag("div", {"class": "canvas"}, scale, drawing), ends,
    )  # fmt: skip


def _key(number: int) -> Markup:
    """Return the sample of a line beside its name."""
    line = tag("path", {"d": "M0 4H18", "class": f"stroke stroke-{number}"})
    return tag("svg", {"viewBox": "0 0 18 8", "class": "key", "aria-hidden": "true"}, line)


def _last(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return figures.rate(known[-1]) if known else figures.UNKNOWN


def _path(values: Sequence[float | None], top: float, number: int) -> Markup:
    """Return a line that is broken where nothing is known."""
    step = WIDTH / max(1, len(values) - 1)
    parts, is_drawing = list[str](), False
    for place, value in enumerate(values):
        if value is not None:
            parts.append(
                f"{'L' if is_drawing else 'M'}{place * step:.1f} {HEIGHT - HEIGHT * min(1.0, value / top):.1f}"
            )
        is_drawing = value is not None
    return tag("path", {"class": f"stroke stroke-{number}", "d": "".join(parts)})


def nice_top(highest: float) -> float:
    """Return the upper end of a scale: 1, 2 or 5 times a power of ten."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= highest * 0.999999)


def _table(plots: Sequence[Plot], points: Sequence[HistoryPoint]) -> Markup:
    """Return the same as a table of a few rows, folded."""
    lines = [(plot, line) for plot in plots for line in plot.lines]
    heads = [TableColumn("Time (UTC)")] + [TableColumn(f"{plot.title}: {line.name}", "num") for plot, line in lines]
    size = math.ceil(len(points) / TABLE_ROWS)
    rows = [_table_row(points[start : start + size], lines) for start in range(0, len(points), size)]
    summary = tag("summary", {}, "These figures as a table")
    listed = table(heads, [RowGroup(None, rows)], "plots-title")
    return tag("details", {"class": "as-table"}, summary, listed)


def _table_row(points: Sequence[HistoryPoint], lines: Sequence[tuple[Plot, PlotLine]]) -> TableRow:
    cells: list[Child] = [tag("time", {"datetime": figures.machine_time(points[0].time)}, figures.hour(points[0].time))]
    for _, line in lines:
        known = [value for value in _values(points, line.field) if value is not None]
        cells.append(figures.rate(sum(known) / len(known)) if known else figures.UNKNOWN)
    return TableRow(cells)
