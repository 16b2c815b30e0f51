"""Ollama's scheduler: which model is loaded, with which signature, for how long, and which requests use it.

    acquire ──► loaded and fits? ──yes──► runner (its slots are a queue without limit)
                     │ no
                     └──► pending, at most OLLAMA_MAX_QUEUE ──► one task pops them in order, and blocks on each:
                          wait until the old runner is idle, unload it, load the new one     (server/sched.go:195-240)

Requests that fit the loaded runner overtake those that wait for a reload, which can starve: #14407, reproduced.
Used on the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from obcd.clock import wall
from obcd.standins.wire.engine import Engine, EngineError, LoadSignature
from obcd.standins.wire.request_values import canonical_name

#: Ollama's message, with two spaces (contract 3.1)
BUSY = "server busy, please try again.  maximum pending requests exceeded"

#: What a keep-alive time without end is, in seconds: the longest time.Duration of Go (ollama envconfig/config.go)
LONGEST = 2**63 / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """The limits from Ollama's environment (contract 4.2)."""

    parallel: int = 1
    max_queue: int = 512
    max_loaded: int = 1
    keep_alive: float = 300.0  # seconds; infinity = for ever, 0 = unload when idle


class Runner:
    """One loaded model."""

    def __init__(self, signature: LoadSignature, parallel: int, keep_alive: float) -> None:
        self.signature = signature
        self.slots = asyncio.Semaphore(parallel)  # first in, first out, as in llm/llama_server.go:1893
        self.keep_alive = keep_alive
        self.users = 0  # requests that hold or wait for a slot
        self.expires_at = wall() + min(keep_alive, LONGEST)  # Unix seconds, as /api/ps shows it
        self.is_expiring = False  # unload as soon as it is idle
        self.is_dead = False  # it crashed
        self.timer: asyncio.TimerHandle | None = None
        self.idle = asyncio.Event()


@dataclass(slots=True)
class _Pending:
    signature: LoadSignature
    keep_alive: float | None
    runner: asyncio.Future[Runner]


class ModelScheduler:
    """Loads and unloads models for one server."""

    def __init__(self, engine: Engine, limits: SchedulerLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._runners: dict[str, Runner] = {}  #: {canonical model name: its runner}
        self._pending: asyncio.Queue[_Pending] = asyncio.Queue(limits.max_queue)
        self._task: asyncio.Task[None] | None = None
        self._unloads: set[asyncio.Task[None]] = set()  # kept here because the loop holds tasks weakly

    def runners(self) -> list[Runner]:
        """Return the loaded models, without one that is still loading."""
        return list(self._runners.values())

    async def acquire(self, signature: LoadSignature, keep_alive: float | None) -> Runner:
        """Return the runner for a signature, loading it if needed; the caller must `release` it.

        Raises:
            EngineError: 503 if the pending queue is full; the engine's error if it cannot load.
        """
        runner = self._runners.get(signature.model)
        if runner is None or runner.signature != signature or runner.is_expiring:
            runner = await self._wait_for_load(signature, keep_alive)
        else:
            self._take(runner, keep_alive)
        return runner

    def release(self, runner: Runner) -> None:
        """Release a runner; the release by the last user starts its keep-alive time."""
        runner.users -= 1
        if runner.users:
            return
        runner.idle.set()
        if runner.is_expiring or runner.keep_alive <= 0:
            self._expire(runner)
        elif runner.keep_alive != math.inf:
            loop = asyncio.get_running_loop()
            runner.timer = loop.call_later(runner.keep_alive, self._expire, runner)
        runner.expires_at = wall() + min(runner.keep_alive, LONGEST)

    def expire(self, model: str) -> None:
        """Unload a model as soon as no request uses it."""
        runner = self._runners.get(model)
        if runner is not None:
            runner.is_expiring = True
            if not runner.users:
                self._expire(runner)

    def discard(self, runner: Runner) -> None:
        """Remove a runner that crashed: the next request loads a new one; requests that wait for its slots fail."""
        if self._runners.get(runner.signature.model) is runner:
            del self._runners[runner.signature.model]
        runner.is_expiring = runner.is_dead = True

    def stop(self) -> None:
        """Stop loading; used when the server stops."""
        if self._task is not None:
            self._task.cancel()
        for runner in self._runners.values():
            if runner.timer is not None:
                runner.timer.cancel()

    def _take(self, runner: Runner, keep_alive: float | None) -> None:
        if runner.timer is not None:
            runner.timer.cancel()
            runner.timer = None
        if keep_alive is not None:
            runner.keep_alive = keep_alive
        runner.users += 1
        runner.idle.clear()

    async def _wait_for_load(self, signature: LoadSignature, keep_alive: float | None) -> Runner:
        pending = _Pending(signature, keep_alive, asyncio.get_running_loop().create_future())
        try:
            self._pending.put_nowait(pending)
        except asyncio.QueueFull as error:
            raise EngineError(503, BUSY) from error
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._serve_pending())
        try:
            return await pending.runner
        except asyncio.CancelledError:
            if pending.runner.done() and not pending.runner.cancelled() and pending.runner.exception() is None:
                self.release(pending.runner.result())  # the runner was assigned in the same turn of the loop
            raise

    async def _serve_pending(self) -> None:
        """Serve requests that wait for a load, strictly one after the other, until the queue is empty."""
        while not self._pending.empty():
            pending = self._pending.get_nowait()
            if pending.runner.done():  # the client has left; its request kept its place in the queue until now
                continue
            work = asyncio.get_running_loop().create_task(self._load_for(pending))
            # A client that leaves while its model loads ends the load (llm/llama_server.go:1300).
            pending.runner.add_done_callback(_canceller(work))
            try:
                await work
            except asyncio.CancelledError:
                if not pending.runner.cancelled():
                    raise

    async def _load_for(self, pending: _Pending) -> None:
        try:
            runner = await self._fitting_runner(pending.signature)
        except EngineError as error:
            if not pending.runner.done():
                pending.runner.set_exception(error)
            return
        self._take(runner, pending.keep_alive)
        if pending.runner.done():  # the client left in the same turn of the loop
            self.release(runner)
        else:
            pending.runner.set_result(runner)

    async def _fitting_runner(self, signature: LoadSignature) -> Runner:
        runner = self._runners.get(signature.model)
        if runner is not None and runner.signature == signature and not runner.is_expiring:
            return runner
        if runner is not None:
            await self._unload(runner)
        while len(self._runners) >= self._limits.max_loaded:
            await self._unload(self._victim())
        await self._engine.load(signature)
        runner = Runner(signature, self._slots(signature.model), self._limits.keep_alive)
        self._runners[signature.model] = runner
        return runner

    def _slots(self, model: str) -> int:
        """Return a model's slots: an embedding model has one, regardless of the settings (contract 1.3)."""
        cards = (card for card in self._engine.models() if canonical_name(card.name) == model)
        return 1 if any("embedding" in card.capabilities for card in cards) else self._limits.parallel

    def _victim(self) -> Runner:
        """Return the idle runner with the shortest keep-alive, else the one with the shortest of all."""
        return min(self._runners.values(), key=lambda runner: (runner.users > 0, runner.keep_alive))

    async def _unload(self, runner: Runner) -> None:
        """Wait until a runner is idle, and unload it."""
        while runner.users:
            runner.idle.clear()
            await runner.idle.wait()
        await self._forget(runner)

    def _expire(self, runner: Runner) -> None:
        if runner.users == 0:
            task = asyncio.get_running_loop().create_task(self._forget(runner))
            self._unloads.add(task)
            task.add_done_callback(self._unloads.discard)

    async def _forget(self, runner: Runner) -> None:
        if runner.timer is not None:
            runner.timer.cancel()
        if self._runners.get(runner.signature.model) is runner:
            del self._runners[runner.signature.model]
            await self._engine.unload(runner.signature)


def _canceller(task: asyncio.Task[None]) -> Callable[[asyncio.Future[Runner]], None]:
    def cancel_with(future: asyncio.Future[Runner]) -> None:
        if future.cancelled():
            task.cancel()

    return cancel_with
