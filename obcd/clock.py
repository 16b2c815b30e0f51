"""The two clocks: monotonic seconds for every limit and interval, wall time only for output that people read."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def monotonic() -> float:
    """Return seconds on a clock that never jumps; only differences have a meaning."""
    return time.monotonic()


def wall() -> float:
    """Return Unix seconds; for file names and reports, never for a time limit."""
    return time.time()


def timestamp(seconds: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC, e.g. `2026-11-22T18:01:05.250Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(text: str) -> float:
    """Return the Unix seconds of a text that `timestamp` wrote.

    Raises:
        ValueError, TypeError: If it is anything else.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.timestamp()
