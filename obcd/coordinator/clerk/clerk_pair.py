"""Two clerks for one kind of work: large calls have their own clerk, so that no small call ever waits for them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from obcd.coordinator.clerk.calls import CallFailed, ClerkCall, Result
from obcd.coordinator.clerk.clerk_process import Clerk
from obcd.spool.folders.layout import Layout


class ClerkPair:
    """Two clerks. Main thread only; `now` is in monotonic seconds. The second one starts with the first large call.

    Args:
        name: The name of both in the list of processes.
    """

    def __init__(self, name: str, layout: Layout) -> None:
        self._usual, self._large = Clerk(name, layout), Clerk(f"{name} large", layout)
        self._both = (self._usual, self._large)

    def submit(self, call: ClerkCall[Result], then: Callable[[Result | CallFailed], None]) -> None:
        """Queue a call; `tick` calls `then` with its outcome."""
        (self._large if call.is_large else self._usual).submit(call, then)

    @property
    def pending(self) -> int:
        """The number of calls that are not done yet."""
        return sum(clerk.pending for clerk in self._both)

    def filenos(self) -> set[int]:
        """Return the descriptors to wait on."""
        return {descriptor for clerk in self._both if (descriptor := clerk.fileno()) is not None}

    def pids(self) -> dict[str, int | None]:
        """Return `{name: pid}` of the child processes; the clerk for large calls is included only while it runs."""
        pids = {f"clerk {clerk.name}": clerk.pid for clerk in self._both}
        return {name: pid for name, pid in pids.items() if pid is not None or name == f"clerk {self._usual.name}"}

    def tick(self, now: float, readable: Collection[int]) -> None:
        """Receive the outcomes of clerks whose descriptors are in `readable`, or retry a start that was refused."""
        for clerk in self._both:
            clerk.tick(now, readable)

    def replace_stopped(self) -> None:
        """Replace each clerk that was stopped from outside (SIGSTOP)."""
        for clerk in self._both:
            clerk.replace_stopped()

    def stop(self) -> None:
        """Stop both clerks."""
        for clerk in self._both:
            clerk.stop()
