"""States as a sign with its word, and bars: colour is never the only carrier of a meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from obcd.coordinator.view import JobState
from obcd.core.endpoint.health import EndpointState
from obcd.core.markup import Child, Markup, tag
from obcd.page.figures import share


class Sign(NamedTuple):
    """How a state is shown: a shape that differs without colour, the word, and the kind, which chooses the colour."""

    shape: str
    word: str
    kind: str


GOOD, BUSY, WARN, BAD, QUIET = "good", "busy", "warn", "bad", "quiet"

#: {state of an endpoint: its sign}
ENDPOINTS: dict[str, Sign] = {
    EndpointState.UP: Sign("●", "up", GOOD),
    EndpointState.SUSPECT: Sign("▲", "suspect", WARN),
    EndpointState.DOWN: Sign("✕", "down", BAD),
    EndpointState.STARTING: Sign("○", "starting", BUSY),
    EndpointState.DRAINING: Sign("▽", "draining", QUIET),
}
#: {state of a job: its sign}
JOBS: dict[str, Sign] = {
    JobState.ACCEPTED: Sign("○", "waiting", QUIET),
    JobState.RUNNING: Sign("●", "running", GOOD),
    JobState.PAUSED: Sign("‖", "paused", WARN),
    JobState.CANCELLED: Sign("✕", "cancelled", QUIET),
    JobState.COMPLETE: Sign("✓", "complete", GOOD),
    JobState.QUARANTINED: Sign("▲", "set aside", BAD),
}
#: {state of a host's record: its sign}
HOSTS: dict[str, Sign] = {
    "serving": Sign("●", "serving", GOOD),
    "draining": Sign("▽", "draining", QUIET),
    "gone": Sign("○", "gone", QUIET),
    "silent": Sign("▲", "silent", WARN),
    "dead": Sign("✕", "dead", BAD),
    "refused": Sign("✕", "refused", BAD),
}


def state(signs: dict[str, Sign], name: str) -> Markup:
    """Return the sign of a state; one of a newer version is its word."""
    return show(signs.get(name) or Sign("?", name.lower(), QUIET))


def show(sign: Sign) -> Markup:
    """Return a sign."""
    shape = tag("span", {"aria-hidden": "true", "class": "shape"}, sign.shape)
    return tag("span", {"class": f"state {sign.kind}"}, shape, sign.word)


def faint(text: str) -> Markup:
    """Return a text of less weight."""
    return tag("span", {"class": "faint"}, text)


def bar(*parts: tuple[float, str]) -> Markup:
    """Return a bar of parts (share from 0 to 1, kind); the figures beside it say the same, so it is not read out."""
    left, rects = 0.0, list[Child]()
    for part, kind in parts:
        width = min(max(part, 0.0), 1.0 - left)
        if width > 0:
            rects.append(tag("rect", {"class": kind, "x": _units(left), "width": _units(width), "height": 8}))
        left += width
    box = {"class": "bar", "viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria-hidden": "true"}
    return tag("svg", box, *rects)


def gauge(parts: Sequence[tuple[float, str]], text: str, note: str = "") -> Markup:
    """Return a bar with its figures beside it, which say the same."""
    figures = [tag("span", {"class": "nums"}, text), faint(note) if note else None]
    return tag("div", {"class": "gauge" if note else "gauge plain"}, bar(*parts), figures)


def progress(good: float, bad: float, total: float) -> tuple[tuple[float, str], ...]:
    """Return the parts of the bar of a job: the shares of its responses and of its failures."""
    return (share(good, total), "fill"), (share(bad, total), "miss")


def _units(value: float) -> str:
    return f"{100 * value:.2f}".rstrip("0").rstrip(".")
