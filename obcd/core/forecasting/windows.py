"""Windows: the hours of the week in which requests may be sent, e.g. `mon-fri 20:00-07:00`. Pure; time is an argument.

A window opens and closes by the clock on the wall. Where summer time begins or ends, a time that the clock skips counts
as the moment of the change (02:30 on a night without the hour from 2 to 3 is 03:00), and a time that comes twice counts
when it comes first (a window that ends at 02:30 stays closed when that hour comes again).

Moments are Unix seconds. They never jump, so a change of the machine's clock only means another argument next time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo

from obcd.core.forecasting.local_times import DAY_MINUTES, DAYS, FULL_DAYS, moment_of

EXAMPLE = '"mon-fri 20:00-07:00"'
EXAMPLE_OF_LIST = '["mon-fri 20:00-07:00", "sat-sun"]'
EXAMPLE_OF_SEVERAL = '"mon-fri 20:00-07:00; sat-sun"'
#: Most windows of one list: more would be a calendar.
MOST_WINDOWS = 50

_HOURS = re.compile(r"(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})")
#: Days of which the windows are looked at before and after a moment: a window lasts at most one day, and comes again
#: within a week, or within two where a country skipped a day (Samoa, 30 December 2011).
_BEFORE, _AFTER = 2, 15


@dataclass(frozen=True, slots=True)
class Window:
    """One window of the week.

    Attributes:
        days: The weekdays on which it opens, 0 for Monday.
        start: When it opens, in minutes after midnight.
        end: When it closes, in minutes after the midnight before it opens: more than 1440 on the next day.
    """

    days: frozenset[int]
    start: int
    end: int

    def span(self, day: date, zone: tzinfo | None) -> tuple[float, float]:
        """Return when it opens and closes, if it opens on this day."""
        return moment_of(day, self.start, zone), moment_of(day, self.end, zone)


def parse_window(text: str) -> Window:
    """Parse one window: days, e.g. `mon-fri` or `sat,sun` (left out: every day), and hours, e.g. `20:00-07:00`.

    Without hours the days are whole. A window that ends before it begins ends on the next day.

    Raises:
        ValueError: If it is not a window; the message is the reason.
    """
    words = text.strip().lower()
    found = _HOURS.search(words)
    if found is None or found.end() != len(words):
        if any(char.isdigit() for char in words):
            raise ValueError(f"it must be days and hours, e.g. {EXAMPLE}, not {text!r:.60}")
        return Window(_days(words, text), 0, DAY_MINUTES)
    start, end = _minutes(found[1], found[2], text), _minutes(found[3], found[4], text)
    if start == DAY_MINUTES:
        raise ValueError(f"a window that begins at 24:00 begins at 00:00 of the next day: {text!r:.60}")
    if start == end:
        raise ValueError(f"{text!r:.60} begins when it ends: write 00:00-24:00 for whole days")
    days = words[: found.start()].strip()
    return Window(_days(days, text) if days else frozenset(range(7)), start, end if end > start else end + DAY_MINUTES)


def _minutes(hours: str, minutes: str, text: str) -> int:
    value = 60 * int(hours) + int(minutes)
    if int(minutes) > 59 or value > DAY_MINUTES:
        raise ValueError(f"{hours}:{minutes} is not a time of the day: {text!r:.60}")
    return value


def _days(words: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in re.split(r"[,\s]+", re.sub(r"\s*[-–]\s*", "-", words)):
        first, dash, last = part.partition("-")
        if part in ("daily", "every-day"):
            found.update(range(7))
            continue
        begin, end = _day(first, text), _day(last if dash else first, text)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def _day(word: str, text: str) -> int:
    for number, (short, long) in enumerate(zip(DAYS, FULL_DAYS, strict=True)):
        if word in (short, long):
            return number
    raise ValueError(f"'{word[:20]}' is no day of the week: write e.g. {EXAMPLE}, not {text!r:.60}")


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a profile or an endpoint; those that meet or overlap are one. None of them: always open.

    Attributes:
        windows: The windows of the week.
        zone: The time zone of their hours; None: that of the machine.
    """

    windows: tuple[Window, ...] = ()
    zone: tzinfo | None = field(default=None, compare=False)
    #: The spell found last: the coordinator asks in every tick.
    _last: list[Spell] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def parse(cls, texts: str | Sequence[str], zone: tzinfo | None = None) -> Windows:
        """Parse windows: one a text, or several in one, separated by semicolons.

        Raises:
            ValueError: If one is not valid; the message is the reason.
        """
        parts = []
        for text in [texts] if isinstance(texts, str) else texts:
            if not text.strip():
                raise ValueError(f"a text is empty: write days and hours, e.g. {EXAMPLE}, or leave `window` out")
            parts += text.split(";")
            if not all(part.strip() for part in parts):
                raise ValueError(
                    f"there is no window beside a semicolon: write e.g. {EXAMPLE_OF_SEVERAL}, not {text!r:.60}"
                )
        if len(parts) > MOST_WINDOWS:
            raise ValueError(f"more than {MOST_WINDOWS} windows")
        return cls(tuple(parse_window(part) for part in parts), zone)

    def __bool__(self) -> bool:
        """Return whether there are any windows."""
        return bool(self.windows)

    def is_open(self, at: float) -> bool:
        """Return whether requests may be sent at a moment."""
        return not self.windows or self.around(at).is_open

    def closes_at(self, at: float) -> float | None:
        """Return when the window that is open closes; `at` itself if all are closed; None: it never closes."""
        if not self.windows:
            return None
        spell = self.around(at)
        return spell.until if spell.is_open else at

    def opens_at(self, at: float) -> float:
        """Return when the next window opens; `at` itself if one is open."""
        if not self.windows:
            return at
        spell = self.around(at)
        return at if spell.is_open or spell.until is None else spell.until

    def around(self, at: float) -> Spell:
        """Return the spell of time around a moment in which nothing changes: it answers until the clock leaves it."""
        if not self.windows:
            return Spell(is_open=True)
        if not (self._last and self._last[0].holds(at)):
            self._last[:] = [self._find_spell(at)]
        return self._last[0]

    def _find_spell(self, at: float) -> Spell:
        today = datetime.fromtimestamp(at, self.zone).date()
        before: float | None = moment_of(today - timedelta(days=_BEFORE - 1), 0, self.zone)  # an earlier one is over
        for start, end in self._spans(today):
            if at < start:
                return Spell(before, start, is_open=False)
            if at < end:
                is_endless = end - at > (_AFTER - 2) * 86400
                return Spell(start, None if is_endless else end, is_open=True)
            before = end
        return Spell(before, None, is_open=False)  # no day of the week comes in two weeks: there is no such zone

    def after(self, at: float, seconds: float) -> float:
        """Return the moment at which the windows have been open for so many seconds since `at`."""
        while True:
            spell = self.around(at)
            if spell.until is None:
                return at + seconds
            if spell.is_open:
                if at + seconds <= spell.until:
                    return at + seconds
                seconds -= spell.until - at
            at = spell.until

    def open_seconds(self, start: float, end: float) -> float:
        """Return for how many seconds the windows are open between two moments."""
        total = 0.0
        while start < end:
            spell = self.around(start)
            until = end if spell.until is None else min(end, spell.until)
            total += (until - start) * spell.is_open
            start = until
        return total

    def _spans(self, today: date) -> Iterator[tuple[float, float]]:
        """Yield when windows open and close, in order and merged, from some days before a day to long after it."""
        days = [today + timedelta(days=step) for step in range(-_BEFORE, _AFTER)]
        found = sorted(w.span(day, self.zone) for day in days for w in self.windows if day.weekday() in w.days)
        return _merged(found)


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which windows stay open, or stay closed.

    Attributes:
        since: When it began, or a later moment in it, in Unix seconds; None: it has always been.
        until: When it ends; None: never.
    """

    since: float | None = None
    until: float | None = None
    is_open: bool = True

    def holds(self, at: float) -> bool:
        """Return whether a moment is in it."""
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


def _merged(spans: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    start: float | None = None
    end = 0.0
    for begin, close in spans:
        if start is not None and begin <= end:
            end = max(end, close)
            continue
        if start is not None and end > start:
            yield start, end
        start, end = begin, close
    if start is not None and end > start:
        yield start, end
