"""Limit bursts of log events: log the first few one by one, and the rest of a period as a count. Floor 0.

A job of a million lines on an endpoint that fails causes the same event a million times; the reader of the log wants
to know the event, its beginning and its count. The job's errors.jsonl holds every single one.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: {action: the ids that make two of its events the same}; all other events are logged one by one.
SAME: dict[str, tuple[str, ...]] = {
    "attempt_failed": ("job", "endpoint", "fault"),
    "request_failed": ("job", "endpoint", "fault"),
    "drop_waits": ("profile",),
    "drop_rejected": ("profile",),
    "accept_failed": ("profile",),
    "clerk_failed": (),
    "clerk_died": (),
    "worker_lost": ("endpoint",),
    "endpoint_rescue": ("endpoint",),
    "endpoint_state": ("endpoint",),  # an endpoint that flaps
}
#: Actions whose text is not compared, so that the last event that is logged is the last that happened.
ANY_TEXT = {"endpoint_state"}
#: How many equal events are logged in the first period before the rest is counted, and in each later period.
FIRST, LATER = 5, 1
#: Seconds of the first period, the factor by which the next one is longer if events were held back, and the maximum in
#: seconds: ten lines an hour are enough.
SECONDS, GROWTH, MOST_SECONDS = 60.0, 5.0, 600.0
#: Minimum seconds between two checks of the bursts.
LOOK_SECONDS = 1.0
#: Maximum number of different texts that one burst logs; a server must not flood the log with varying texts.
MOST_TEXTS = 10
#: A word with a digit in it: a number, a line, a job's id.
_NUMBER = re.compile(r"\w*\d\w*")


@dataclass(slots=True)
class _Burst:
    began: float
    ends: float
    seconds: float = SECONDS
    left: int = FIRST  # how many more are logged
    held: int = 0
    last: logging.LogRecord | None = None
    texts: set[str] = field(default_factory=set)


def start_timer(seconds: float, call: Callable[[], None]) -> None:
    """Call a function in another thread after a delay, unless the process ends before."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class BurstFilter(logging.Filter):
    """Counts repeated events by action and ids; its handler logs the count when the period ends.

    Any thread may call it. The process must call `flush` at its end.
    """

    def __init__(
        self,
        handler: logging.Handler,
        now: Callable[[], float] = time.monotonic,
        start: Callable[[float, Callable[[], None]], None] = start_timer,
    ) -> None:
        super().__init__()
        self._handler, self._now, self._start = handler, now, start
        #: {action and ids: its burst}; a timer runs while there is a burst
        self._bursts: dict[tuple[str, ...], _Burst] = {}
        self._lock = threading.Lock()
        handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; otherwise count it."""
        action = getattr(record, "action", "")
        if action not in SAME or hasattr(record, "repeats"):
            return True
        key, text = (action, *(str(getattr(record, name, "")) for name in SAME[action])), _without_names(record)
        with self._lock:
            if key not in self._bursts:
                now = self._now()
                self._bursts[key] = _Burst(now, now + SECONDS)
                if len(self._bursts) == 1:
                    self._start(SECONDS, self._end_due)
            burst = self._bursts[key]
            is_new = text not in burst.texts and len(burst.texts) < MOST_TEXTS
            if burst.left or is_new:
                burst.left -= burst.left > 0
                burst.texts.update((text,) * is_new)
                return True
            burst.held += 1
            burst.last = record
            return False

    def flush(self) -> None:
        """Log all counts now."""
        with self._lock:
            for burst in self._bursts.values():
                self._sum_up(burst)

    def _end_due(self) -> None:
        with self._lock:
            now = self._now()
            for key, burst in list(self._bursts.items()):
                if burst.ends > now:
                    continue
                if not burst.held:
                    del self._bursts[key]
                    continue
                self._sum_up(burst)
                burst.seconds = min(burst.seconds * GROWTH, MOST_SECONDS)
                burst.ends, burst.left = now + burst.seconds, LATER
            if self._bursts:
                first = min(burst.ends for burst in self._bursts.values())
                self._start(max(LOOK_SECONDS, first - now), self._end_due)

    def _sum_up(self, burst: _Burst) -> None:
        """Log one record for the events that were held back: the text of the last one, without its line number."""
        now = self._now()
        if burst.last is not None:
            seconds = max(1.0, now - burst.began)
            text = f"… and {burst.held} more like it within {seconds:.0f} s, the last: {burst.last.getMessage()}"
            fields = {**burst.last.__dict__, "msg": text, "args": (), "line": "", "repeats": burst.held}
            self._handler.handle(logging.makeLogRecord(fields))
        burst.began, burst.held, burst.last = now, 0, None


def _without_names(record: logging.LogRecord) -> str:
    """Return a record's text without names and numbers, which differ from one file or request to the next."""
    if getattr(record, "action", "") in ANY_TEXT:
        return ""
    text = record.getMessage()
    name = getattr(record, "file", "")
    for part in (name, name.rpartition("/")[2]):
        text = text.replace(part, "*") if part else text
    return _NUMBER.sub("#", text)
