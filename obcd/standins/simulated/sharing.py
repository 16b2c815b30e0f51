"""How a GPU's speed is shared: tokens a second of each generation fall as more of them run together.

With c generations in progress the whole server makes R · c / (1 + k(c - 1)) tokens a second, each one 1/c of that:
k = 0 is a GPU that batches for nothing, k = 1 one that gains nothing by batching.

The rate changes with every start and end, so finish times are kept in work done per generation, which all of them
collect at the same pace; only the next to finish needs a timer.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from obcd.clock import monotonic


class SharedRate:
    """The arithmetic: who is done when. Pure, time is an argument, in monotonic seconds."""

    def __init__(self, tokens_per_second: float, slowdown: float) -> None:
        self._single = tokens_per_second
        self._slowdown = slowdown
        self._done = 0.0  # tokens that one generation present all the time would have made
        self._at = 0.0  # when `_done` was true
        self._ends: list[tuple[float, int]] = []  # heap of (`_done` at which it ends, key)
        self._active: set[int] = set()

    def rate(self) -> float:
        """Return tokens a second of each generation now."""
        return self._single / (1.0 + self._slowdown * max(0, len(self._active) - 1))

    def start(self, key: int, tokens: float, now: float) -> None:
        """Add a generation that needs so many tokens."""
        self._advance(now)
        self._active.add(key)
        heapq.heappush(self._ends, (self._done + tokens, key))

    def stop(self, key: int, now: float) -> None:
        """Take a generation out, done or not."""
        self._advance(now)
        self._active.discard(key)

    def next_end(self) -> float | None:
        """Return when the next generation is done if nothing changes, or None when none is in progress."""
        self._drop_stopped()
        return self._at + max(0.0, self._ends[0][0] - self._done) / self.rate() if self._ends else None

    def take_done(self, now: float) -> list[int]:
        """Return those that are done, and take them out."""
        self._advance(now)
        done: list[int] = []
        self._drop_stopped()
        while self._ends and self._ends[0][0] <= self._done + 1e-6:
            key = heapq.heappop(self._ends)[1]
            self._active.discard(key)
            done.append(key)
            self._drop_stopped()
        return done

    def _advance(self, now: float) -> None:
        self._done += self.rate() * (now - self._at)
        self._at = now

    def _drop_stopped(self) -> None:
        while self._ends and self._ends[0][1] not in self._active:
            heapq.heappop(self._ends)


class TokenClock:
    """A `SharedRate` on the event loop: generations wait on it until their tokens are made."""

    def __init__(self, tokens_per_second: float, slowdown: float) -> None:
        self._rate = SharedRate(tokens_per_second, slowdown)
        self._keys = count()
        self._waiting: dict[int, asyncio.Future[None]] = {}  #: {key: what its generation waits on}
        self._timer: asyncio.TimerHandle | None = None

    async def spend(self, tokens: float) -> None:
        """Wait until so many tokens are made; a cancellation leaves the others the speed."""
        key = next(self._keys)
        future = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        self._rate.start(key, tokens, monotonic())
        self._set_timer()
        try:
            await future
        finally:
            if self._waiting.pop(key, None) is not None:
                self._rate.stop(key, monotonic())
                self._set_timer()

    def fail(self, error: Exception) -> None:
        """End every generation with an error: the process they ran in crashed."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        end = self._rate.next_end()
        self._timer = None if end is None else asyncio.get_running_loop().call_later(end - monotonic(), self._wake)

    def _wake(self) -> None:
        for key in self._rate.take_done(monotonic()):
            future = self._waiting.pop(key)
            if not future.done():
                future.set_result(None)
        self._set_timer()
