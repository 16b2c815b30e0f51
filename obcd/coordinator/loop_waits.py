"""The main loop's sleep: until a descriptor has something, somebody wakes it, or the time is over."""

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

#: Share of a request's time that passes between two turns, and most seconds: a slot waits for half of it.
REST_SHARE, REST_SECONDS = 0.015, 0.015
#: Weight of the newest request in the mean; a shorter one counts at once.
NEWEST = 0.1


class Waker:
    """`wake` from any thread; the rest is the main thread's."""

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
        """Inside the block every signal that is caught ends the sleep too, at once and with no Python code run."""
        old = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old)

    def sleep(self, descriptors: AbstractSet[int], seconds: float) -> frozenset[int]:
        """Sleep until one of these can be read or `wake` is called, at most this long.

        The wake-up is forgotten here: one that comes while the loop works ends the next sleep.

        Returns:
            Those that can be read, or whose other end is gone.
        """
        if descriptors != self._descriptors:  # most often they are the same, and the poll object can stay
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
    """The time from one turn to the next, so that answers come in company: a turn has costs of its own.

    It is a small share of what requests take, so that slots lose next to nothing by it; where they come one by one, or
    before anything is known, there is none. Main thread only.
    """

    def __init__(self) -> None:
        self._usual = 0.0
        self._began = 0.0

    @property
    def seconds(self) -> float:
        """How long it is now."""
        return min(REST_SECONDS, REST_SHARE * self._usual)

    def on_answer(self, taken: float) -> None:
        """Learn how long a request took, in seconds; where they differ, the short ones decide."""
        self._usual = min(taken, self._usual + NEWEST * (taken - self._usual))

    def begin(self, now: float) -> None:
        """Learn when a turn begins."""
        self._began = now

    def wait(self) -> None:
        """Sleep for what is left of it. Not longer than a moment, so that nothing needs to end it early."""
        left = self._began + self.seconds - monotonic()  # between two turns, so there is no `now`
        if left > 0:
            time.sleep(left)
