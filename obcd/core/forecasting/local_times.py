"""Moments as people write and read them: `tomorrow 06:00`, in local time. Pure; time is an argument.

Moments are Unix seconds; a zone of None is that of the machine.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, tzinfo

#: Days by the first three letters of their names, in the order of `date.weekday`.
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FULL_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
DAY_MINUTES = 24 * 60
#: The moments that are understood: from 1970 to 9999, with room for every time zone.
_LEAST, _MOST = 0.0, 253_300_000_000.0
EXAMPLES = '"tomorrow 06:00", "fri 18:00", "06:00", "in 8 hours" or "2026-12-02T06:00+01:00"'

_TIME = re.compile(r"(?:(?P<day>[a-z]+),?\s+(?:at\s+)?)?(?P<hours>\d{1,2}):(?P<minutes>\d{2})")
_AHEAD = re.compile(r"in (?P<count>\d{1,5})\s*(?P<unit>min|minutes?|h|hours?|d|days?)")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_moment(text: str, now: float, zone: tzinfo | None = None) -> float:
    """Return the moment that a text means, seen from `now`.

    A time without a day is the next such time, a weekday the next such day, and a date without an offset is local. On
    nights with a change of summer time, see `moment_of`.

    Raises:
        ValueError: If it is not understood; the message is the reason.
    """
    words = " ".join(text.lower().split())
    found = _AHEAD.fullmatch(words)
    if found:
        return now + int(found["count"]) * _UNITS[found["unit"][0]]
    named = _TIME.fullmatch(words)
    try:
        moment = _of_day(named, now, zone) if named else _of_iso(text.strip(), zone)
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None or not _LEAST <= moment <= _MOST:
        raise ValueError(f"'{text[:40]}' is not a time that obcd understands: write e.g. {EXAMPLES}")
    return moment


def _of_iso(text: str, zone: tzinfo | None) -> float | None:
    moment = datetime.fromisoformat(text)
    if len(text) <= len("2026-12-02"):  # a date alone is the beginning of a day, which few would mean
        return None
    if moment.tzinfo is not None:
        return moment.timestamp()
    minutes = 60 * moment.hour + moment.minute
    return moment_of(moment.date(), minutes, zone) + moment.second + moment.microsecond / 1e6


def _of_day(found: re.Match[str], now: float, zone: tzinfo | None) -> float | None:
    minutes = 60 * int(found["hours"]) + int(found["minutes"])
    if int(found["minutes"]) > 59 or minutes > DAY_MINUTES:
        return None
    today, word = datetime.fromtimestamp(now, zone).date(), found["day"]
    if word in ("today", "tonight", "tomorrow"):
        return moment_of(today + timedelta(days=word == "tomorrow"), minutes, zone)
    days = range(9) if word is None else [step for step in range(15) if _is_day(word, today + timedelta(days=step))]
    moments = (moment_of(today + timedelta(days=step), minutes, zone) for step in days)
    return next((moment for moment in moments if moment > now), None)


def _is_day(word: str, day: date) -> bool:
    return word in (DAYS[day.weekday()], FULL_DAYS[day.weekday()])


def moment_of(day: date, minutes: int, zone: tzinfo | None = None) -> float:
    """Return when the clock on the wall first shows a time of a day, or a later one.

    Where summer time begins or ends, a time that the clock skips is the moment of the change, and of a time that comes
    twice the first counts.

    Args:
        minutes: After midnight; 1440 and more are on the next day.
    """
    days, rest = divmod(minutes, DAY_MINUTES)
    wall = datetime.combine(day + timedelta(days=days), time(*divmod(rest, 60)), tzinfo=zone)
    first, second = wall.timestamp(), wall.replace(fold=1).timestamp()
    if first <= second:  # usual, or the first of two
        return first
    # The clock skips it: `second` is before the change, `first` after it (PEP 495).
    low, high, shown = int(second), int(first), wall.replace(tzinfo=None)
    while high - low > 1:
        middle = (low + high) // 2
        is_after = datetime.fromtimestamp(middle, zone).replace(tzinfo=None) >= shown
        low, high = (low, middle) if is_after else (middle, high)
    return float(high)


def describe_moment(moment: float, now: float, zone: tzinfo | None = None) -> str:
    """Return a moment for people, as short as it is clear from `now`: `20:00`, `Mon 20:00` or `2026-12-24 20:00`."""
    then = datetime.fromtimestamp(moment, zone)
    if abs(moment - now) < 20 * 3600:
        return f"{then:%H:%M}"
    if 0 < moment - now < 6 * 86400:
        return f"{then:%a %H:%M}"
    return f"{then:%Y-%m-%d %H:%M}"


def describe_span(seconds: float) -> str:
    """Return a span of time in minutes for people: `1 min`, `40 min`, `2 h 05 min`, `3 days`."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours < 72 else f"{hours // 24} days"
