"""Numbers for people: short, aligned, and bounded whatever a status file holds. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from obcd.core.markup import GAP
from obcd.text import duration

#: What stands where a number is not known.
UNKNOWN = "–"
#: Numbers beyond this are shown as this: no cluster has them.
_MOST = 10**15
#: The year 9999, in Unix seconds.
_MOST_TIME = 253_402_300_799.0


def bounded(number: float) -> float:
    """Return a number between 0 and a quadrillion; 0 for NaN."""
    if number != number:  # noqa: PLR0124 - NaN
        return 0
    return min(max(number, 0), _MOST)


def count(number: float) -> str:
    """Return a whole number, e.g. `12 345`."""
    return f"{int(bounded(number)):,}".replace(",", GAP)


def rate(number: float) -> str:
    """Return a rate with two or three digits, e.g. `0.42`, `7.3`, `128`, `12 345`."""
    number = bounded(number)
    if number == 0:
        return "0"
    if number < 1:
        return f"{number:.2f}"
    return f"{number:.1f}" if number < 10 else count(round(number))


def share(part: float, whole: float) -> float:
    """Return a part of a whole, from 0 to 1; 0 of nothing."""
    part, whole = bounded(part), bounded(whole)
    return min(1.0, part / whole) if whole else 0.0


def percent(value: float | None) -> str:
    """Return a share as e.g. `41 %`; only what is whole is 100 %."""
    if value is None:
        return UNKNOWN
    return f"{math.floor(100 * min(bounded(value), 1)):d}{GAP}%"


def span(seconds: float | None) -> str:
    """Return a duration, e.g. `3 min 20 s`."""
    if seconds is None:
        return UNKNOWN
    seconds = min(bounded(seconds), 1e9)
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.0f} days"
    return duration(seconds)


def size(number: int | None) -> str:
    """Return bytes as e.g. `17.2 GB`, in units of 1000."""
    if number is None:
        return UNKNOWN
    value, unit = float(bounded(number)), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):  # noqa: B007 - the unit is what remains
        if value < 999.5:
            break
        value /= 1000
    return f"{value:.0f}{GAP}{unit}" if value >= 99.5 or unit == "B" else f"{value:.1f}{GAP}{unit}"


def moment(seconds: float) -> str:
    """Return a time in UTC for people, e.g. `2026-11-30 14:03:11 UTC`."""
    return _time(seconds).strftime("%Y-%m-%d %H:%M:%S UTC")


def hour(seconds: float) -> str:
    """Return a time in UTC without its year, e.g. `30 Nov 14:03`."""
    return _time(seconds).strftime("%d %b %H:%M").lstrip("0")


def machine_time(seconds: float) -> str:
    """Return a time in UTC as ISO 8601, for the attribute of an element."""
    return _time(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(bounded(seconds), _MOST_TIME), UTC)
