"""The main loop's sleep: until a descriptor is ready, `wake` is called, or the time is over."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from obcd.clock import monotonic
from obcd.errors import naming

#: Minimum delay between two ticks: share of a request's time, and limit in seconds; a slot waits for half of it.
REST_SHARE, REST_SECONDS = 0.015, 0.015
#: Weight of the newest request in the mean; a shorter one counts at once.
NEWEST = 0.1


class Waker:
    """Wakes the main loop. Any thread may call `wake`; only the main thread calls the other methods."""

    def __init__(self) -> None:
        with naming("the pipe that wakes the main loop"):
            self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptors: AbstractSet[int] = frozenset()
        self._poll = self._make_poll()

    def wake(self) -> None:
        """End the present `sleep` early, or the next one."""
        try:
            os.write(self._writer, b".")
        except BlockingIOError:  # the pipe is full of wake-ups already
            return

    @contextlib.contextmanager
    def woken_by_signals(self) -> Iterator[None]:
        """Let every caught signal end the sleep inside the block, at once and without running Python code."""
        old = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old)

    def sleep(self, descriptors: AbstractSet[int], seconds: float) -> frozenset[int]:
        """Sleep until one of these descriptors can be read or `wake` is called, at most this long.

        The wake-up is consumed here: one that comes while the loop works ends the next sleep.

        Returns:
            The descriptors that can be read, or whose other end is gone.
        """
        if descriptors != self._descriptors:  # usually they are the same, and the poll object can be reused
            self._descriptors = frozenset(descriptors)
            self._poll = self._make_poll()
        found = {descriptor for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000)}
        if self._reader in found:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 4096)
        return frozenset(found)

    def _make_poll(self) -> select.poll:
        poll = select.poll()
        for descriptor in (self._reader, *self._descriptors):
            poll.register(descriptor, select.POLLIN)
        return poll


class TickPacing:
    """The minimum delay between ticks, so that several responses are handled per tick: each tick has a fixed cost.

    The delay is a small share of the time that requests take, so that slots lose next to nothing; if responses come one
    by one, or while no request has ended, there is no delay. Main thread only.
    """

    def __init__(self) -> None:
        self._usual = 0.0
        self._began = 0.0

    @property
    def seconds(self) -> float:
        """The delay now."""
        return min(REST_SECONDS, REST_SHARE * self._usual)

    def on_answer(self, taken: float) -> None:
        """Record how long a request took, in seconds; if requests differ, the short ones decide."""
        self._usual = min(taken, self._usual + NEWEST * (taken - self._usual))

    def begin(self, now: float) -> None:
        """Record when a tick begins."""
        self._began = now

    def wait(self) -> None:
        """Sleep for the rest of the delay, which is so short that nothing needs to end it early."""
        left = self._began + self.seconds - monotonic()  # between two ticks, so there is no `now`
        if left > 0:
            time.sleep(left)
