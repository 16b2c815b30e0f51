"""What a measurement hands back, and the table that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        most: The goal, where little is good; None where there is none.
        least: The goal, where much is good.
        is_worst: Whether several runs are told by their highest value instead of their median: for what may never be.
    """

    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    is_worst: bool = False

    @property
    def goal(self) -> str:
        """The goal as it is shown; "" where there is none."""
        sign, limit = ("≤", self.most) if self.most is not None else ("≥", self.least)
        sign = "=" if self.most == self.least else sign
        return "" if limit is None else f"{sign} {_number(limit)} {self.unit}".rstrip()


#: A measurement: does one run, from nothing to nothing, and returns its figures in a fixed order.
Measurement = Callable[[], list[Figure]]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure over all runs."""

    measurement: str
    figure: Figure  # with the median, or the highest value
    values: tuple[float, ...]
    load: float  # highest load average of the last minute at the end of a run

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or "" without a goal."""
        most, least, value = self.figure.most, self.figure.least, self.figure.value
        if most is None and least is None:
            return ""
        met = (most is None or value <= most) and (least is None or value >= least)
        return "met" if met else "missed"

    def as_json(self) -> dict[str, Any]:
        """Return e.g. `{"measurement": "slots", "figure": "…", "value": 1.05, "goal": "≤ 1.08", …}`."""
        return {
            "measurement": self.measurement,
            "figure": self.figure.name,
            "value": self.figure.value,
            "unit": self.figure.unit,
            "goal": self.figure.goal,
            "verdict": self.verdict,
            "runs": list(self.values),
            "load": self.load,
        }


def combine(measurement: str, runs: Sequence[Sequence[Figure]], load: float) -> list[Row]:
    """Return one row a figure over all its runs."""
    rows = []
    for same in zip(*runs, strict=True):
        first, values = same[0], tuple(figure.value for figure in same)
        value = max(values) if first.is_worst else median(values)
        rows.append(Row(measurement, replace(first, value=value), values, load))
    return rows


def render(rows: Sequence[Row], machine: str) -> str:
    """Return the table."""
    cells = [("", "measured", "value", "goal", "", "runs", "load")]
    for before, row in zip([None, *rows], rows, strict=False):
        is_new = before is None or before.measurement != row.measurement
        value = f"{_number(row.figure.value)} {row.figure.unit}".rstrip()
        runs = " ".join(map(_number, row.values)) if len(row.values) > 1 else ""
        name, load = (row.measurement, f"{row.load:.1f}") if is_new else ("", "")
        cells.append((name, row.figure.name, value, row.figure.goal, row.verdict, runs, load))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    rule = "-" * max(map(len, lines))
    return "\n".join([machine, rule, lines[0], rule, *lines[1:], rule])


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
