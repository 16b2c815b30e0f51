"""Rates over the last seconds: a few buckets, so that a million results need no memory. Pure."""

from __future__ import annotations

from collections import deque

#: Width of the window and of one bucket, in seconds.
WINDOW, BUCKET = 30.0, 1.0


class Rate:
    """Amount per second over the last seconds.

    Example: `rate = Rate(now); rate.add(20, now); rate.per_second(now)`.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        #: [(start of bucket, amount), …]
        self._buckets: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def add(self, amount: float, now: float) -> None:
        """Count an amount."""
        self._sum += amount
        if self._buckets and now - self._buckets[-1][0] < BUCKET:
            start, held = self._buckets[-1]
            self._buckets[-1] = (start, held + amount)
        else:
            self._buckets.append((now, amount))
        self._forget(now)

    def per_second(self, now: float) -> float:
        """Return the amount per second over the window, or since the beginning if that is shorter."""
        self._forget(now)
        return self._sum / max(BUCKET, min(WINDOW, now - self._began))

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0][0] > WINDOW:
            self._sum -= self._buckets.popleft()[1]
        if not self._buckets:
            self._sum = 0.0
