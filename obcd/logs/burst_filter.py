"""Log events that come in bursts: the first few are logged one by one, the rest of a while as a number. Floor 0.

A job of a million lines on an endpoint that fails says the same a million times; the log's reader wants to know what,
since when and how often. Every single one is in the job's errors.jsonl.
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
    "endpoint_state": ("endpoint",),  # one that flaps
}
#: Of these the text does not count, so that the last one logged is the last that was.
ANY_TEXT = {"endpoint_state"}
#: Of the same events so many are logged before the rest of a while is counted, and so many in each while after that.
FIRST, LATER = 5, 1
#: Seconds of the first while; each that follows a full one is longer, up to the limit: ten lines an hour do.
SECONDS, GROWTH, MOST_SECONDS = 60.0, 5.0, 600.0
#: Seconds between two looks at the bursts at least.
LOOK_SECONDS = 1.0
#: Different texts of one burst that are logged, however many events it had; a server must not flood us with new words.
MOST_TEXTS = 10
#: A word with a digit in it: a number, a line, a job's id.
_NUMBER = re.compile(r"\w*\d\w*")


@dataclass(slots=True)
class _Burst:
    began: float
    ends: float
    seconds: float = SECONDS
    left: int = FIRST  # to be logged yet
    held: int = 0
    last: logging.LogRecord | None = None
    texts: set[str] = field(default_factory=set)


def start_timer(seconds: float, call: Callable[[], None]) -> None:
    """Make a call in another thread after a while, unless the process ends before."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class BurstFilter(logging.Filter):
    """Counts what repeats, by action and ids; the handler that it is put on logs the number when its while is over.

    Any thread. `flush` has to be called at the process's end.
    """

    def __init__(
        self,
        handler: logging.Handler,
        now: Callable[[], float] = time.monotonic,
        start: Callable[[float, Callable[[], None]], None] = start_timer,
    ) -> None:
        super().__init__()
        self._handler, self._now, self._start = handler, now, start
        #: {action and ids: its burst}; while there is one, a timer runs
        self._bursts: dict[tuple[str, ...], _Burst] = {}
        self._lock = threading.Lock()
        handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; else it is counted."""
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
        """Log all numbers now."""
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
        """Log one record for those that were held back: the last one's words, without its line."""
        now = self._now()
        if burst.last is not None:
            seconds = max(1.0, now - burst.began)
            text = f"… and {burst.held} more like it within {seconds:.0f} s, the last: {burst.last.getMessage()}"
            fields = {**burst.last.__dict__, "msg": text, "args": (), "line": "", "repeats": burst.held}
            self._handler.handle(logging.makeLogRecord(fields))
        burst.began, burst.held, burst.last = now, 0, None


def _without_names(record: logging.LogRecord) -> str:
    """Return a record's text without what differs from one file or request to the next: names and numbers."""
    if getattr(record, "action", "") in ANY_TEXT:
        return ""
    text = record.getMessage()
    name = getattr(record, "file", "")
    for part in (name, name.rpartition("/")[2]):
        text = text.replace(part, "*") if part else text
    return _NUMBER.sub("#", text)
