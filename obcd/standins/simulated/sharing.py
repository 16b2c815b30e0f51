"""How a GPU's speed is shared: tokens per second of each generation fall as more of them run together.

With c generations in progress the server makes R · c / (1 + k(c - 1)) tokens per second, each one 1/c of that:
with k = 0 batching costs no speed, with k = 1 it gains nothing.

The rate changes with every start and end, so finish times are kept in work done per generation, which all generations
collect at the same pace; only the next one to finish needs a timer.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from obcd.clock import monotonic


class SharedRate:
    """The arithmetic of finish times. Pure; time is an argument, in monotonic seconds."""

    def __init__(self, tokens_per_second: float, slowdown: float) -> None:
        self._single = tokens_per_second
        self._slowdown = slowdown
        self._done = 0.0  # tokens of a generation that had been present all the time
        self._at = 0.0  # time at which `_done` was valid
        self._ends: list[tuple[float, int]] = []  # heap of (`_done` at which it ends, key)
        self._active: set[int] = set()

    def rate(self) -> float:
        """Return the tokens per second of each generation now."""
        return self._single / (1.0 + self._slowdown * max(0, len(self._active) - 1))

    def start(self, key: int, tokens: float, now: float) -> None:
        """Add a generation that needs this many tokens."""
        self._advance(now)
        self._active.add(key)
        heapq.heappush(self._ends, (self._done + tokens, key))

    def stop(self, key: int, now: float) -> None:
        """Remove a generation, done or not."""
        self._advance(now)
        self._active.discard(key)

    def next_end(self) -> float | None:
        """Return when the next generation is done if nothing changes, or None if there is no generation in progress."""
        self._drop_stopped()
        return self._at + max(0.0, self._ends[0][0] - self._done) / self.rate() if self._ends else None

    def take_done(self, now: float) -> list[int]:
        """Return the generations that are done, and remove them."""
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
        self._waiting: dict[int, asyncio.Future[None]] = {}  #: {key: the future of its generation}
        self._timer: asyncio.TimerHandle | None = None

    async def spend(self, tokens: float) -> None:
        """Wait until this many tokens are made; a cancellation returns the speed to the others."""
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
        """End every generation with an error: their process has crashed."""
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
