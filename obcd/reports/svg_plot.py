"""Draw plots as SVG without script: lines over time, with gaps where nothing is known. Pure.

Lines differ by dashes as well as by colours, for those who do not see colours. Colours stand in the style
of the page, for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from obcd.core.markup import GAP, Markup, tag

#: The drawing, in its own units.
WIDTH, HEIGHT = 760, 190
LEFT, RIGHT, TOP, BOTTOM = 68, 8, 12, 26
#: Steps between marks of the time, in seconds, the least marks of it, and of the values.
TIME_STEPS = (60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800)
MOST_TIME_MARKS, VALUE_MARKS = 7, 4

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a plot; None in its values is a gap."""

    label: str
    values: Values


def draw_plot(
    title: str, unit: str, times: Sequence[float], series: Sequence[Series], span: tuple[float, float]
) -> Markup:
    """Return a figure with its legend, and with the means and maxima in words.

    Args:
        times: Of the values, in Unix seconds.
        span: The time from the left to the right edge.
    """
    known = [item for item in series if any(value is not None for value in item.values)]
    if not known:
        return tag("figure", None, tag("figcaption", None, title), tag("p", {"class": "none"}, "nothing is known"))
    top = _round_up(max(value for item in known for value in item.values if value is not None))
    described = "; ".join(f"{item.label}: {_describe(item.values, unit)}" for item in known)
    drawing = tag(
        "svg",
        {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": f"{title}. {described}"},
        _value_marks(top),
        _time_marks(*span),
        (_line(number, item, times, span, top) for number, item in enumerate(series) if item in known),
    )
    legend = (_legend(number, item, unit) for number, item in enumerate(series) if item in known)
    return tag(
        "figure",
        None,
        tag("figcaption", None, f"{title} ({unit})" if unit else title),
        drawing,
        tag("ul", {"class": "legend"}, legend),
    )


def show_number(value: float) -> str:
    """Return a number for people: `0.13`, `1.4`, `37`, `12 345` with a thin space that does not break."""
    if value and abs(value) < 1:
        return f"{value:.2g}"
    if abs(value) < 10 and value != round(value):
        return f"{value:.1f}"
    return f"{value:,.0f}".replace(",", GAP) if abs(value) < 1e15 else f"{value:.3g}"


def local_time(seconds: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a time on this machine's clock."""
    return datetime.fromtimestamp(seconds).astimezone().strftime(form)


def _describe(values: Values, unit: str) -> str:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known)
    return f"mean {show_number(mean)}, most {show_number(max(known))} {unit}".rstrip()


def _legend(number: int, item: Series, unit: str) -> Markup:
    sample = tag(
        "svg",
        {"viewBox": "0 0 28 8", "width": 28, "height": 8, "aria-hidden": "true"},
        tag("path", {"class": f"line s{number}", "d": "M1 4H27"}),
    )
    return tag("li", None, sample, f" {item.label}: {_describe(item.values, unit)}")


def _round_up(value: float) -> float:
    """Return the least of 1, 2, 4, 5, 8, 10 times a power of ten that is not below a value; 1 for none."""
    if value < 1e-9 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 4, 5, 8, 10, 20) if factor * power >= value * 0.999999)


def _x(moment: float, span: tuple[float, float]) -> float:
    return LEFT + (moment - span[0]) / (span[1] - span[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - min(max(value, 0.0), top) / top * (HEIGHT - TOP - BOTTOM)


def _value_marks(top: float) -> Iterator[Markup]:
    for number in range(VALUE_MARKS + 1):
        value = top * number / VALUE_MARKS
        y = round(_y(value, top), 1)
        yield tag("path", {"class": "grid", "d": f"M{LEFT} {y}H{WIDTH - RIGHT}"})
        yield tag("text", {"x": LEFT - 6, "y": y + 4, "text-anchor": "end"}, show_number(value))


def _time_marks(start: float, end: float) -> Iterator[Markup]:
    step = next((item for item in TIME_STEPS if (end - start) / item <= MOST_TIME_MARKS), TIME_STEPS[-1])
    offset = datetime.fromtimestamp(start).astimezone().utcoffset()
    shift = offset.total_seconds() if offset is not None else 0.0
    form = "%d %b" if step >= TIME_STEPS[-2] else "%d %b %H:%M" if end - start > TIME_STEPS[-2] else "%H:%M"
    moment = math.ceil((start + shift) / step) * step - shift
    while moment <= end:
        x = round(_x(moment, (start, end)), 1)
        yield tag("path", {"class": "grid", "d": f"M{x} {TOP}V{HEIGHT - BOTTOM}"})
        anchor = "end" if x > WIDTH - RIGHT - 20 else "middle"
        yield tag("text", {"x": x, "y": HEIGHT - 8, "text-anchor": anchor}, local_time(moment, form))
        moment += step


def _line(number: int, item: Series, times: Sequence[float], span: tuple[float, float], top: float) -> Markup:
    parts, is_drawing = [], False
    for moment, value in zip(times, item.values, strict=True):
        if value is None:
            is_drawing = False
            continue
        # A point alone, between two gaps, is a line of no length, which its round ends show.
        parts.append(
            f"{'L' if is_drawing else 'M'}{_x(moment, span):.1f} {_y(value, top):.1f}{'' if is_drawing else 'h0'}"
        )
        is_drawing = True
    return tag("path", {"class": f"line s{number}", "d": "".join(parts)})
