"""The main loop's sleep: until a descriptor has something, somebody wakes it, or the time is over."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable, Iterator


class Sleeper:
    """`wake` from any thread; the rest is the main thread's."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

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

    def sleep(self, descriptors: Iterable[int], seconds: float) -> None:
        """Sleep until one of these can be read or `wake` is called, at most this long.

        The wake-up is forgotten here: one that comes while the loop works ends the next sleep.
        """
        poll = select.poll()
        for descriptor in (self._reader, *descriptors):
            poll.register(descriptor, select.POLLIN)
        if any(descriptor == self._reader for descriptor, _ in poll.poll(max(0.0, seconds) * 1000)):
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 4096)
