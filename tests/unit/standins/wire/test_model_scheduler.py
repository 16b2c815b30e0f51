"""Models are loaded, kept and unloaded as Ollama does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from obcd.standins.wire.engine import (
    Embeddings,
    EngineError,
    EngineReply,
    LoadSignature,
    ModelCard,
    Texts,
    Work,
    WorkOutcome,
)
from obcd.standins.wire.model_scheduler import BUSY, ModelScheduler, SchedulerLimits

SMALL = LoadSignature("m:latest", 2048)
LARGE = LoadSignature("m:latest", 8192)
OTHER = LoadSignature("n:latest", 2048)


class Loader:
    """An engine that only notes what it loads, when its gate is open."""

    version = "test"

    def __init__(self) -> None:
        self.events: list[tuple[str, LoadSignature]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: EngineError | None = None

    def models(self) -> Sequence[ModelCard]:
        return []

    async def describe(self) -> Sequence[ModelCard]:
        return []

    def vram_bytes(self, card: ModelCard) -> int:
        return 0

    def context_length(self, signature: LoadSignature) -> int:
        return signature.num_ctx

    async def load(self, signature: LoadSignature) -> None:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.events.append(("load", signature))

    async def unload(self, signature: LoadSignature) -> None:
        self.events.append(("unload", signature))

    async def generate(self, work: Work, reply: EngineReply) -> WorkOutcome | None:
        raise NotImplementedError

    async def embed(self, texts: Texts) -> Embeddings:
        raise NotImplementedError


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_same_signature_shares_a_runner_and_another_waits_until_it_is_idle() -> None:
    engine = Loader()
    scheduler = ModelScheduler(engine, SchedulerLimits())
    first, second = await scheduler.acquire(SMALL, None), await scheduler.acquire(SMALL, None)
    assert first is second
    larger = asyncio.ensure_future(scheduler.acquire(LARGE, None))
    await settle()
    scheduler.release(first)
    await settle()
    assert not larger.done()
    scheduler.release(second)
    assert (await larger).signature == LARGE
    assert engine.events == [("load", SMALL), ("unload", SMALL), ("load", LARGE)]
    scheduler.stop()


async def test_matching_requests_pass_one_that_waits_for_a_reload() -> None:
    scheduler = ModelScheduler(Loader(), SchedulerLimits())
    first = await scheduler.acquire(SMALL, None)
    larger = asyncio.ensure_future(scheduler.acquire(LARGE, None))
    await settle()
    assert await scheduler.acquire(SMALL, None) is first
    scheduler.release(first)
    await settle()
    assert not larger.done()
    larger.cancel()
    await settle()
    scheduler.stop()


async def test_pending_queue_is_limited_while_loading_and_the_rest_is_told_busy() -> None:
    engine = Loader()
    engine.gate.clear()
    scheduler = ModelScheduler(engine, SchedulerLimits(max_queue=2))
    waiting = []
    for _ in range(3):  # the first is taken out of the queue, and loads
        waiting.append(asyncio.ensure_future(scheduler.acquire(SMALL, None)))
        await settle()
    with pytest.raises(EngineError) as caught:
        await scheduler.acquire(SMALL, None)
    assert (caught.value.status, caught.value.text) == (503, BUSY)
    engine.gate.set()
    runners = await asyncio.gather(*waiting)
    assert len({id(runner) for runner in runners}) == 1
    assert engine.events == [("load", SMALL)]
    scheduler.stop()


async def test_failed_load_is_told_to_the_one_that_asked_and_the_next_tries_again() -> None:
    engine = Loader()
    engine.fault = EngineError(500, "no memory")
    scheduler = ModelScheduler(engine, SchedulerLimits())
    with pytest.raises(EngineError, match="no memory"):
        await scheduler.acquire(SMALL, None)
    engine.fault = None
    assert (await scheduler.acquire(SMALL, None)).signature == SMALL
    scheduler.stop()


async def test_client_that_leaves_ends_its_load_and_the_next_in_line_starts_it_again() -> None:
    engine = Loader()
    engine.gate.clear()
    scheduler = ModelScheduler(engine, SchedulerLimits())
    leaver = asyncio.ensure_future(scheduler.acquire(SMALL, None))
    stayer = asyncio.ensure_future(scheduler.acquire(SMALL, None))
    await settle()
    leaver.cancel()
    await settle()
    assert engine.events == []
    engine.gate.set()
    await stayer
    assert engine.events == [("load", SMALL)]
    scheduler.stop()


async def test_keep_alive_of_zero_unloads_when_idle_and_of_for_ever_never() -> None:
    engine = Loader()
    scheduler = ModelScheduler(engine, SchedulerLimits(keep_alive=math.inf))
    scheduler.release(await scheduler.acquire(SMALL, None))
    await settle()
    assert len(scheduler.runners()) == 1
    first, second = await scheduler.acquire(SMALL, 0.0), await scheduler.acquire(SMALL, None)
    scheduler.release(first)
    await settle()
    assert len(scheduler.runners()) == 1
    scheduler.release(second)
    await settle()
    assert scheduler.runners() == []
    assert engine.events[-1] == ("unload", SMALL)


async def test_unload_waits_for_what_is_in_flight_and_new_requests_wait_for_the_reload() -> None:
    engine = Loader()
    scheduler = ModelScheduler(engine, SchedulerLimits())
    runner = await scheduler.acquire(SMALL, None)
    scheduler.expire(SMALL.model)
    late = asyncio.ensure_future(scheduler.acquire(SMALL, None))
    await settle()
    assert not late.done()
    scheduler.release(runner)
    assert await late is not runner
    assert [name for name, _ in engine.events] == ["load", "unload", "load"]
    scheduler.stop()


async def test_another_model_is_loaded_beside_the_first_only_where_there_is_room() -> None:
    for room, names in ((1, ["load", "unload", "load"]), (2, ["load", "load"])):
        engine = Loader()
        scheduler = ModelScheduler(engine, SchedulerLimits(max_loaded=room))
        scheduler.release(await scheduler.acquire(SMALL, None))
        scheduler.release(await scheduler.acquire(OTHER, None))
        assert [name for name, _ in engine.events] == names
        scheduler.stop()


async def test_crashed_runner_is_replaced_without_an_unload() -> None:
    engine = Loader()
    scheduler = ModelScheduler(engine, SchedulerLimits())
    runner = await scheduler.acquire(SMALL, None)
    scheduler.discard(runner)
    fresh = await scheduler.acquire(SMALL, None)
    scheduler.release(runner)
    await settle()
    assert runner.is_dead
    assert scheduler.runners() == [fresh]
    assert engine.events == [("load", SMALL), ("load", SMALL)]
    scheduler.stop()
