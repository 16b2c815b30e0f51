"""One request of /api/embed from its texts to the reply: load, wait for a slot, run the engine, update the account."""

from __future__ import annotations

import asyncio

from obcd.clock import monotonic
from obcd.standins.wire.account import Account, RequestRecord
from obcd.standins.wire.engine import Embeddings, Engine, EngineCrash, EngineError, JsonObject, ModelCard, Texts
from obcd.standins.wire.generation import RUNNER_GONE
from obcd.standins.wire.http import Exchange
from obcd.standins.wire.model_scheduler import ModelScheduler, Runner
from obcd.standins.wire.reply_shapes import encode
from obcd.standins.wire.request_values import EmbedRequest, canonical_name, check_options, signature_of


class Embedder:
    """Answers /api/embed for one server."""

    def __init__(self, engine: Engine, scheduler: ModelScheduler, account: Account, default_ctx: int) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._account = account
        self._default_ctx = default_ctx

    async def answer(self, exchange: Exchange, request: EmbedRequest, card: ModelCard) -> None:
        """Answer one request, or raise EngineError with its refusal. A request without texts only loads."""
        if request.inputs:
            exchange.send(200, encode(await self._embed(request, card)))
            return
        self._account.count_preload()
        self._scheduler.release(await self._acquire(request, card))
        exchange.send(200, encode({"model": request.model, "embeddings": []}))

    async def _embed(self, request: EmbedRequest, card: ModelCard) -> JsonObject:
        record = self._account.arrive(request.inputs[0])
        ended = "failed"
        try:
            runner = await self._acquire(request, card)
            load_seconds = monotonic() - record.arrived
            try:
                found = await self._run(request, runner, record)
            finally:
                self._scheduler.release(runner)
            ended = "answered"
        except asyncio.CancelledError:
            ended = "cancelled"
            raise
        finally:
            self._account.finish(record, ended)
        counters = {
            "total_duration": int((monotonic() - record.arrived) * 1e9),
            "load_duration": int(load_seconds * 1e9),
            "prompt_eval_count": found.prompt_tokens,
        }
        return {
            "model": request.model,
            "embeddings": found.vectors,
            **{key: value for key, value in counters.items() if value},
        }

    async def _run(self, request: EmbedRequest, runner: Runner, record: RequestRecord) -> Embeddings:
        await runner.slots.acquire()
        try:
            self._account.start(record)
            if runner.is_dead:
                raise EngineError(400, RUNNER_GONE)  # the status of an error that has none there
            return await self._engine.embed(
                Texts(
                    signature=runner.signature,
                    inputs=request.inputs,
                    truncate=request.truncate,
                    dimensions=request.dimensions,
                    attempts=[record.attempt, *map(self._account.count_text, request.inputs[1:])],
                )
            )
        except EngineCrash:
            self._scheduler.discard(runner)
            raise
        finally:
            runner.slots.release()

    async def _acquire(self, request: EmbedRequest, card: ModelCard) -> Runner:
        name = canonical_name(card.name)
        options = check_options(request.options)
        signature = signature_of(
            name, options, True, self._default_ctx, card.context_length
        )  # /api/embed has no `shift`
        return await self._scheduler.acquire(signature, request.keep_alive)
