"""Draw a ramp as SVG: tokens a second over requests in flight, one line for each endpoint, with its knee marked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from obcd.benchmark.ramp import Ramp

#: Size of the picture and of the plot in it, in pixels: left, top, right, bottom.
WIDTH, HEIGHT = 960, 540
LEFT, TOP, RIGHT, BOTTOM = 80, 84, 670, 470
#: Colours that most colour-blind people can distinguish (Okabe and Ito, without yellow and black).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
#: The number of lines for which the legend has room.
LEGEND = 18
_STYLE = "text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:12px;fill:#666}.title{font-size:18px}"


def draw_curves(ramps: Sequence[Ramp], title: str, remark: str) -> str:
    """Return the picture as SVG.

    Args:
        remark: The line below the title.
    """
    drawn = [ramp for ramp in ramps if ramp.steps]
    loads = sorted({step.in_flight for ramp in drawn for step in ramp.steps}) or [1]
    plot = _Plot(loads, max((ramp.best for ramp in drawn), default=1.0))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f'<style>{_STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 34, title, "title"),
        _text(LEFT, 58, remark, "small"),
        *plot.axes(),
    ]
    for number, ramp in enumerate(drawn):
        parts += plot.curve(ramp, COLOURS[number % len(COLOURS)])
    parts += _legend(drawn)
    return "\n".join([*parts, "</svg>", ""])


class _Plot:
    """The axes: requests in flight on a logarithmic scale (doublings), tokens a second from 0."""

    def __init__(self, loads: Sequence[int], best: float) -> None:
        self._loads = loads
        self._tick = _round_tick(best / 5)
        self._top = self._tick * math.ceil(1.04 * max(best, 1e-9) / self._tick)

    def x(self, in_flight: int) -> float:
        low, high = math.log2(self._loads[0]), math.log2(self._loads[-1])
        return LEFT + 24 + (RIGHT - LEFT - 48) * ((math.log2(in_flight) - low) / (high - low) if high > low else 0.5)

    def y(self, speed: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * speed / self._top

    def axes(self) -> Iterator[str]:
        for number in range(round(self._top / self._tick) + 1):
            y = self.y(number * self._tick)
            yield f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{"#444" if number == 0 else "#e2e2e2"}"/>'
            yield _text(LEFT - 8, y + 4, f"{number * self._tick:g}", anchor="end")
        for load in self._loads:
            yield f'<path d="M{self.x(load):.1f} {BOTTOM}v5" stroke="#444"/>'
            yield _text(self.x(load), BOTTOM + 21, str(load), anchor="middle")
        yield _text((LEFT + RIGHT) / 2, BOTTOM + 48, "requests in flight", anchor="middle")
        yield f'<g transform="translate(24 {(TOP + BOTTOM) / 2}) rotate(-90)">'
        yield _text(0, 0, "tokens/s", anchor="middle") + "</g>"

    def curve(self, ramp: Ramp, colour: str) -> Iterator[str]:
        points = [(self.x(step.in_flight), self.y(step.tokens_per_second)) for step in ramp.steps]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
        assert ramp.advice is not None
        x, y = next(point for point, step in zip(points, ramp.steps, strict=True) if step.in_flight == ramp.advice.knee)
        yield f'<path d="M{x:.1f} {y:.1f}V{BOTTOM}" stroke="{colour}" stroke-dasharray="3 4"/>'
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="none" stroke="{colour}" stroke-width="2"/>'


def _legend(drawn: Sequence[Ramp]) -> Iterator[str]:
    left = RIGHT + 24
    for number, ramp in enumerate(drawn[:LEGEND]):
        y = TOP + 14 + 20 * number
        assert ramp.advice is not None
        yield f'<path d="M{left} {y - 4}h18" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="3"/>'
        yield _text(left + 26, y, f"{ramp.endpoint.name}: knee at {ramp.advice.knee}")
    if len(drawn) > LEGEND:
        yield _text(left + 26, TOP + 14 + 20 * LEGEND, f"and {len(drawn) - LEGEND} more")
    yield f'<circle cx="{left + 9}" cy="{BOTTOM - 4}" r="7" fill="none" stroke="#666" stroke-width="2"/>'
    yield _text(left + 26, BOTTOM, "knee: more brings little", "small")


def _round_tick(least: float) -> float:
    """Return the next larger of 1, 2, 5, 10, … tokens a second."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= least * 0.999)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
