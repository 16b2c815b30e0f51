"""Log events that come in bursts: the first few are told one by one, the rest of a while as a number. Floor 0.

A job of a million lines on an endpoint that fails says the same a million times; whoever reads the log at night wants
to know what, since when and how often. Every single one is in the job's errors.jsonl. Only what says the same apart
from names and numbers is one burst: a file that is rejected for another reason than the others is told.
"""

from __future__ import annotations

import heapq
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

#: {action: the fields that make two of its events the same}; all other events are told one by one.
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
    "endpoint_state": ("endpoint",),  # one that flaps
}
#: Of these the text does not count, so that the last one told is the last that was.
ANY_TEXT = {"endpoint_state"}
#: Of the same events so many are told before the rest of a while is counted, and so many in each while after that.
FIRST, LATER = 5, 1
#: Seconds of the first while; each that follows a full one is longer, up to the limit: ten lines an hour do.
SECONDS, GROWTH, MOST_SECONDS = 60.0, 5.0, 600.0


#: Different texts of one key that are told apart; the rest is one burst, or a server could flood us with new words.
MOST_TEXTS = 10
#: A word with a digit in it: a number, a line, a job's id.
_NUMBER = re.compile(r"\w*\d\w*")

_Key = tuple[str, ...]


@dataclass(slots=True)
class _Burst:
    began: float
    ends: float
    seconds: float
    left: int  # to be told yet
    held: int = 0
    last: logging.LogRecord | None = None


def start_timer(seconds: float, call: Callable[[], None]) -> None:
    """Call from a thread of its own after a while, unless the process ends before."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class Gathering(logging.Handler):
    """Stands before another handler. Any thread; the number is told when its while is over, or at the process's end."""

    def __init__(
        self,
        target: logging.Handler,
        now: Callable[[], float] = time.monotonic,
        start: Callable[[float, Callable[[], None]], None] = start_timer,
    ) -> None:
        super().__init__()
        self._target = target
        self._now = now
        self._start = start
        self._bursts: dict[_Key, _Burst] = {}
        #: {action and its fields: how many bursts it has}
        self._texts: Counter[_Key] = Counter()
        #: When each burst ends, the first on top: an event looks at what is due and not at all of them.
        self._ends: list[tuple[float, _Key]] = []
        self._is_timed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on, or count it."""
        action = getattr(record, "action", "")
        if action not in SAME:
            self._target.handle(record)
            return
        now = self._now()
        self._end_due(now)
        burst = self._burst_of((action, *(str(getattr(record, name, "")) for name in SAME[action])), record, now)
        if burst.left:
            burst.left -= 1
            self._target.handle(record)
            return
        burst.held += 1
        burst.last = record
        self._time(burst.ends - now)

    def _burst_of(self, group: _Key, record: logging.LogRecord, now: float) -> _Burst:
        key = (*group, _shape(record))
        if key not in self._bursts and self._texts[group] >= MOST_TEXTS:
            key = (*group, "")
        if key not in self._bursts:
            self._texts[group] += 1
            self._begin(key, now, SECONDS, FIRST)
        return self._bursts[key]

    def _begin(self, key: _Key, now: float, seconds: float, left: int) -> None:
        self._bursts[key] = _Burst(now, now + seconds, seconds, left)
        heapq.heappush(self._ends, (now + seconds, key))

    def flush(self) -> None:
        """Tell all numbers now."""
        self.acquire()
        try:
            now = self._now()
            for burst in self._bursts.values():
                self._tell(burst, now)
        finally:
            self.release()
        self._target.flush()

    def close(self) -> None:
        """Tell all numbers, once and for all; what stands behind is closed too."""
        self.flush()
        self._target.close()
        super().close()

    def _end_due(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            burst = self._bursts.pop(key)
            if burst.held:
                self._tell(burst, burst.ends)
                self._begin(key, now, min(burst.seconds * GROWTH, MOST_SECONDS), LATER)
                continue
            self._texts[key[:-1]] -= 1
            if not self._texts[key[:-1]]:
                del self._texts[key[:-1]]

    def _tell(self, burst: _Burst, now: float) -> None:
        if burst.held and burst.last is not None:
            self._target.handle(_sum_up(burst.last, burst.held, max(1.0, now - burst.began)))
            burst.held, burst.began = 0, now

    def _time(self, seconds: float) -> None:
        if not self._is_timed:
            self._is_timed = True
            self._start(max(0.0, seconds), self._take_time)

    def _take_time(self) -> None:
        self.acquire()
        try:
            self._is_timed = False
            now = self._now()
            self._end_due(now)
            held = [burst.ends for burst in self._bursts.values() if burst.held]
            if held:
                self._time(min(held) - now)
        finally:
            self.release()


def _shape(record: logging.LogRecord) -> str:
    """Return a record's text without what differs from one file or request to the next: names and numbers."""
    if getattr(record, "action", "") in ANY_TEXT:
        return ""
    text = record.getMessage()
    name = getattr(record, "file", "")
    for part in (name, name.rpartition("/")[2]):
        text = text.replace(part, "*") if part else text
    return _NUMBER.sub("#", text)


def _sum_up(last: logging.LogRecord, count: int, seconds: float) -> logging.LogRecord:
    """Return one record for many: the last one's words, without its line."""
    text = f"… and {count} more like it within {seconds:.0f} s, the last: {last.getMessage()}"
    return logging.makeLogRecord({**last.__dict__, "msg": text, "args": (), "line": "", "repeats": count})
