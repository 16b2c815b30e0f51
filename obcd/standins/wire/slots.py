"""Slots of a loaded model: a first-in first-out semaphore without a limit on those who wait (llm/llama_server.go:1893).

Free of I/O; used on the event loop's thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Room for `count` generations at a time; the others wait in the order in which they came."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a slot and take it; a cancellation leaves the queue, or hands the slot on."""
        if self._free > 0:  # free slots and waiters never exist together: `free` hands a slot to the first waiter
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was given to us in the same turn
                self.free()
            raise

    def free(self) -> None:
        """Give a slot back: to the first who still waits, else to nobody."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
