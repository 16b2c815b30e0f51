"""One generation from request to reply: load, wait for a slot, run the engine, answer, update the account.

The order is Ollama's: refuse invalid requests, unload or find a runner, answer a preload, then queue for a slot
(server/routes.go:2457-2700). In every case slot and runner are released and the account's entry is closed.
"""

from __future__ import annotations

import asyncio

from obcd.clock import monotonic
from obcd.standins.wire.account import Account, PromptTokens, RequestRecord
from obcd.standins.wire.engine import Engine, EngineCrash, EngineError, LoadSignature, ModelCard, Work, WorkOutcome
from obcd.standins.wire.grammars import check_schema
from obcd.standins.wire.http import Exchange
from obcd.standins.wire.model_scheduler import ModelScheduler, Runner
from obcd.standins.wire.reply_shapes import ReplyShape, Times
from obcd.standins.wire.request_values import (
    GenerationRequest,
    canonical_name,
    check_format,
    check_options,
    llama_error,
    signature_of,
)

#: what Ollama puts before the name of a model from its own library
FULL_NAME = "registry.ollama.ai/library/"
NO_PICTURES = "Multimodal data provided, but model does not support multimodal requests."

#: the error of a request that waited for a slot of a runner that has ended
RUNNER_GONE = "llama-server process no longer running: unknown "


class PieceWriter:
    """The reply of one generation: one body, or a stream whose head is sent with its first piece."""

    def __init__(self, exchange: Exchange, shape: ReplyShape, model: str, stream: bool) -> None:
        self.exchange = exchange
        self.stream = stream
        self._shape = shape
        self._model = model

    async def send_piece(self, text: str, thinking: str = "") -> None:
        """Send a piece of a stream; do nothing if the reply is not streamed."""
        if self.stream:
            await self._send(self._shape.piece(self._model, text, thinking))

    def body_of(self, outcome: WorkOutcome) -> bytes:
        """Return the complete body of this outcome."""
        return self._shape.whole(self._model, outcome, Times(0.0, 0.0))

    async def finish(self, outcome: WorkOutcome, times: Times) -> None:
        """Send the end of the reply."""
        if not self.stream:
            self.exchange.send(200, self._shape.whole(self._model, outcome, times), self._shape.whole_type)
            return
        await self._send(self._shape.last(self._model, outcome, times))
        self.exchange.end_stream()

    async def fail(self, error: EngineError) -> None:
        """Send an error: with its status before the first piece, as a last line after it (server/routes.go:2097)."""
        if not self.exchange.started:
            self.exchange.send(error.status, self._shape.error(error.status, error.text), self._shape.whole_type)
            return
        await self._send(self._shape.late_error(error.text))
        self.exchange.end_stream()

    async def _send(self, data: bytes) -> None:
        if not self.exchange.started:
            self.exchange.start_stream(self._shape.stream_type)
        if data:
            await self.exchange.send_chunk(data)


class Generator:
    """Runs generations for one server."""

    def __init__(self, engine: Engine, scheduler: ModelScheduler, account: Account, default_ctx: int) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._account = account
        self._default_ctx = default_ctx

    async def answer(self, exchange: Exchange, request: GenerationRequest, shape: ReplyShape, card: ModelCard) -> None:
        """Answer one request, also one that is refused."""
        writer = PieceWriter(exchange, shape, request.model, request.stream)
        try:
            if request.messages:
                await self._answer_prompt(request, writer, card)
            else:  # Ollama does not stream these, regardless of `stream`
                exchange.send(200, await self._preload(request, shape, card))
        except EngineError as error:
            await writer.fail(error)

    async def _preload(self, request: GenerationRequest, shape: ReplyShape, card: ModelCard) -> bytes:
        """Load or unload a model; an unload is answered at once and done when the runner is idle (contract 4.5)."""
        self._account.count_preload()
        if request.keep_alive == 0:
            self._scheduler.expire(canonical_name(card.name))
            return shape.empty(request.model, "unload")
        check_capabilities(request, card)
        runner = await self._scheduler.acquire(self._signature(request, card), request.keep_alive)
        self._scheduler.release(runner)
        return shape.empty(request.model, "load")

    async def _answer_prompt(self, request: GenerationRequest, writer: PieceWriter, card: ModelCard) -> None:
        record = self._account.arrive(prompt_of(request))
        ended = "failed"
        try:
            check_capabilities(request, card)
            work = self._work(request, card, record)
            check_pictures(request, card)
            runner = await self._scheduler.acquire(work.signature, request.keep_alive)
            load_seconds = monotonic() - record.arrived
            try:
                outcome = await self._run(work, writer, runner, record)
            finally:
                self._scheduler.release(runner)
        except asyncio.CancelledError:
            ended = "cancelled"
            raise
        finally:
            if record.outcome is None:
                self._account.finish(record, ended)
        if outcome is not None:
            await writer.finish(outcome, Times(monotonic() - record.arrived, load_seconds))

    async def _run(self, work: Work, writer: PieceWriter, runner: Runner, record: RequestRecord) -> WorkOutcome | None:
        """Wait for a slot and use it; it is free again before the reply is sent."""
        await runner.slots.acquire()
        ended, tokens = "failed", None
        try:
            self._account.start(record)
            if runner.is_dead:
                raise EngineError(500, RUNNER_GONE)
            outcome = await self._engine.generate(work, writer)
            if outcome is not None:
                cached = outcome.cached_tokens
                ended, tokens = "answered", PromptTokens(outcome.prompt_tokens - cached, cached)
        except asyncio.CancelledError:
            ended = "cancelled"
            raise
        except EngineCrash:
            self._scheduler.discard(runner)
            raise
        finally:
            self._account.finish(record, ended, tokens)
            runner.slots.release()
        return outcome

    def _work(self, request: GenerationRequest, card: ModelCard, record: RequestRecord) -> Work:
        wanted = check_format(request.format)
        if isinstance(wanted, dict):
            check_schema(wanted)
        return Work(
            signature=self._signature(request, card),
            messages=request.messages,
            options=check_options(request.options),
            format=wanted,
            truncate=request.truncate,
            think=request.think,
            raw_prompt=request.raw_prompt,
            tools=request.tools,
            logprobs=request.logprobs,
            prompt=prompt_of(request),
            attempt=record.attempt,
        )

    def _signature(self, request: GenerationRequest, card: ModelCard) -> LoadSignature:
        options = check_options(request.options)
        name = canonical_name(card.name)
        return signature_of(name, options, request.shift, self._default_ctx, card.context_length)


def prompt_of(request: GenerationRequest) -> str:
    """Return the content of the last message, which identifies a request in the account."""
    return str(request.messages[-1].get("content") or "")


def check_capabilities(request: GenerationRequest, card: ModelCard) -> None:
    """Raise 400 with Ollama's message for a request that the model cannot serve, in the order of Ollama's checks."""
    if request.think and "thinking" not in card.capabilities:
        raise EngineError(400, f'"{request.model}" does not support thinking')
    if "completion" not in card.capabilities:
        raise EngineError(400, f'"{request.model}" does not support {"generate" if request.is_completion else "chat"}')
    for wanted, capability in ((request.tools, "tools"), (request.suffix, "insert")):
        if wanted and capability not in card.capabilities:
            raise EngineError(400, f"{FULL_NAME}{card.name} does not support {capability}")


def check_pictures(request: GenerationRequest, card: ModelCard) -> None:
    """Raise 400 for pictures that the model cannot see; llama-server refuses them once the model is loaded."""
    if "vision" not in card.capabilities and any(message.get("images") for message in request.messages):
        raise EngineError(400, llama_error(NO_PICTURES))
