"""Two clerks for one kind of work: what is large has one of its own, so that nothing small ever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from obcd.coordinator.clerk.calls import CallFailed, ClerkCall, Result
from obcd.coordinator.clerk.clerk_process import Clerk
from obcd.spool.folders.layout import Layout


class ClerkPair:
    """Main thread only; `now` is monotonic seconds. The second clerk starts with the first call that is large.

    Args:
        name: What both are called among the processes.
    """

    def __init__(self, name: str, layout: Layout) -> None:
        self._usual, self._large = Clerk(name, layout), Clerk(f"{name} large", layout)
        self._both = (self._usual, self._large)

    def submit(self, call: ClerkCall[Result], then: Callable[[Result | CallFailed], None]) -> None:
        """Queue a call; `then` is called from `tick` with what came of it."""
        (self._large if call.is_large else self._usual).submit(call, then)

    @property
    def pending(self) -> int:
        """How many calls are not done yet."""
        return sum(clerk.pending for clerk in self._both)

    def filenos(self) -> set[int]:
        """Return the descriptors to wait on."""
        return {descriptor for clerk in self._both if (descriptor := clerk.fileno()) is not None}

    def pids(self) -> dict[str, int | None]:
        """Return the child processes by name; the one for what is large only while it runs."""
        pids = {f"clerk {clerk.name}": clerk.pid for clerk in self._both}
        return {name: pid for name, pid in pids.items() if pid is not None or name == f"clerk {self._usual.name}"}

    def tick(self, now: float, readable: Collection[int]) -> None:
        """Take what they said, if their descriptors are among these, or try again a start that was refused."""
        for clerk in self._both:
            clerk.tick(now, readable)

    def replace_stopped(self) -> None:
        """Replace a clerk that somebody stopped (SIGSTOP)."""
        for clerk in self._both:
            clerk.replace_stopped()

    def stop(self) -> None:
        """End both."""
        for clerk in self._both:
            clerk.stop()
