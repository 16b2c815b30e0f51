"""Ollama's HTTP API over an engine: routes, control endpoints, and the Host check.

Exchange ──► OllamaApi ──► wire (request) ──► Generator (scheduler, slots, engine) ──► shapes (reply)
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache

from obcd.core.request.model_names import is_cloud
from obcd.standins.wire.account import Account
from obcd.standins.wire.embedding import Embedder
from obcd.standins.wire.engine import Engine, EngineError, JsonObject, ModelCard
from obcd.standins.wire.generation import Generator
from obcd.standins.wire.http import GIN_TEXT_TYPE, JSON_TYPE, OPENAI_TYPE, TEXT_TYPE, Exchange
from obcd.standins.wire.model_scheduler import ModelScheduler, Runner
from obcd.standins.wire.openai_api import CompletionShape, parse_completion, wants_usage
from obcd.standins.wire.reply_shapes import ChatShape, GenerateShape, ReplyShape, encode, rfc3339
from obcd.standins.wire.request_values import (
    canonical_name,
    has_two_sources,
    is_model_name,
    parse_body,
    parse_chat,
    parse_embed,
    parse_generate,
    signature_of,
    tagged_name,
)
from obcd.standins.wire.settings import ServerSettings

Handler = Callable[[Exchange], Awaitable[None]]

#: {path: {method: handler}}
Routes = Mapping[str, Mapping[str, Handler]]

#: the suffixes of host names that Ollama accepts as local (server/routes.go:1803)
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")

#: the messages for a model of Ollama's cloud where OLLAMA_NO_CLOUD=1 (server/routes.go)
CLOUD_INFERENCE = "ollama cloud is disabled: remote model is unavailable"
CLOUD_DETAILS = "ollama cloud is disabled: remote model details are unavailable"

#: when every model was made, in Unix seconds: `ModelCard.modified_at`
CREATED = 1_767_225_600

_CHAT = ChatShape()
_GENERATE, _GENERATE_RAW = GenerateShape(has_context=True), GenerateShape(has_context=False)


class OllamaApi:
    """One server's API; an instance is the `Application` of its HTTP server."""

    def __init__(self, engine: Engine, settings: ServerSettings, account: Account) -> None:
        self._engine = engine
        self._settings = settings
        self._checks_host = settings.is_loopback
        self._scheduler = ModelScheduler(engine, settings.limits)
        self._generator = Generator(engine, self._scheduler, account, settings.context_length)
        self._embedder = Embedder(engine, self._scheduler, account, settings.context_length)
        self._routes = self._own_routes()
        #: until it is set, requests are accepted and not answered, as while Ollama looks for GPUs
        self.ready = asyncio.Event()
        #: paths that accept a request and never answer it; /api/ps hangs if Ollama's scheduler is stuck
        self.hung: set[str] = set()

    def add_routes(self, routes: Routes) -> None:
        """Add more paths."""
        self._routes = {**self._routes, **routes}

    def _own_routes(self) -> Routes:
        return {
            "/": _reading(self._root),
            "/api/version": _reading(self._version),
            "/api/tags": _reading(self._tags),
            "/api/ps": {"GET": self._ps},
            "/api/show": {"POST": self._show},
            "/api/chat": {"POST": self._chat},
            "/api/generate": {"POST": self._generate},
            "/api/embed": {"POST": self._embed},
            "/v1/chat/completions": {"POST": self._completions},
            "/v1/models": {"GET": self._openai_models},
        }

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        if not self.ready.is_set():
            await self.ready.wait()
        if exchange.path in self.hung:
            await asyncio.Event().wait()
        if self._checks_host and not is_allowed_host(exchange.header("Host") or ""):
            exchange.send(403, b"", "")
            return
        methods = self._routes.get(exchange.path)
        handler = None if methods is None else methods.get(exchange.method)
        if handler is not None:
            try:
                await handler(exchange)
            except EngineError as error:
                exchange.send(error.status, encode({"error": error.text}))
        elif methods is None:
            exchange.send(404, b"404 page not found", GIN_TEXT_TYPE)
        else:
            exchange.send(405, b"405 method not allowed", GIN_TEXT_TYPE, f"Allow: {', '.join(methods)}\r\n")

    async def preload(self, model: str) -> None:
        """Load a model before the first request, and keep it as a request would."""
        card = self._find(model)
        signature = signature_of(
            canonical_name(card.name), {}, True, self._settings.context_length, card.context_length
        )
        self._scheduler.release(await self._scheduler.acquire(signature, None))

    def unload_all(self) -> None:
        """Unload every model as soon as it is idle, so that the next request loads it again."""
        for runner in self._scheduler.runners():
            self._scheduler.expire(runner.signature.model)

    def lose_all(self) -> None:
        """Forget every loaded model: the server has ended."""
        for runner in self._scheduler.runners():
            self._scheduler.discard(runner)

    def stop(self) -> None:
        """Stop loading and expiring."""
        self._scheduler.stop()

    async def _root(self, exchange: Exchange) -> None:
        exchange.send(200, b"Ollama is running", TEXT_TYPE)

    async def _version(self, exchange: Exchange) -> None:
        exchange.send(200, encode({"version": self._engine.version}))

    async def _tags(self, exchange: Exchange) -> None:
        exchange.send(200, encode({"models": [_tag(card) for card in await self._engine.describe()]}))

    async def _openai_models(self, exchange: Exchange) -> None:
        models = [
            {"id": card.name, "object": "model", "created": CREATED, "owned_by": "library"}
            for card in self._engine.models()
        ]
        exchange.send(200, encode({"object": "list", "data": models}), OPENAI_TYPE)

    async def _ps(self, exchange: Exchange) -> None:
        cards = {canonical_name(card.name): card for card in await self._engine.describe()}
        runners = [runner for runner in self._scheduler.runners() if runner.signature.model in cards]
        shown = [self._running(runner, cards[runner.signature.model]) for runner in runners]
        exchange.send(200, encode({"models": shown}))

    def _running(self, runner: Runner, card: ModelCard) -> JsonObject:
        return {
            "name": card.name,
            "model": card.name,
            "size": card.size,
            "digest": card.digest,
            "details": _details(card),
            "expires_at": rfc3339(runner.expires_at),
            "size_vram": self._engine.vram_bytes(card),
            "context_length": self._engine.context_length(runner.signature),
        }

    async def _show(self, exchange: Exchange) -> None:
        body = parse_body(exchange.body)
        name = str(body.get("model") or body.get("name") or "")
        if is_cloud(name):
            raise EngineError(403, CLOUD_DETAILS)
        card = self._find(name, "model is required", f"model '{tagged_name(name)}' not found")
        exchange.send(200, encode(_show_fields(card)))

    async def _chat(self, exchange: Exchange) -> None:
        request = parse_chat(parse_body(exchange.body))
        card = self._find(request.model, "model is required")
        await self._generator.answer(exchange, request, _CHAT, card)

    async def _generate(self, exchange: Exchange) -> None:
        request = parse_generate(parse_body(exchange.body))
        card = self._find(request.model)
        shape = _GENERATE if request.raw_prompt is None else _GENERATE_RAW
        await self._generator.answer(exchange, request, shape, card)

    async def _completions(self, exchange: Exchange) -> None:
        shape: ReplyShape = CompletionShape(False)
        kind = JSON_TYPE  # what cannot be read is refused before Ollama writes replies in OpenAI's form
        try:
            body = parse_body(exchange.body)
            shape = CompletionShape(wants_usage(body))
            request = parse_completion(body)
            kind = shape.whole_type
            card = self._find(request.model, "model is required")
        except EngineError as error:
            exchange.send(error.status, shape.error(error.status, error.text), kind)
            return
        await self._generator.answer(exchange, request, shape, card)

    async def _embed(self, exchange: Exchange) -> None:
        request = parse_embed(parse_body(exchange.body))
        unknown = f'model "{request.model}" not found, try pulling it first'
        await self._embedder.answer(exchange, request, self._find(request.model, unknown=unknown))

    def _find(self, name: str, missing: str | None = None, unknown: str | None = None) -> ModelCard:
        """Return the card of a model, or raise as Ollama does, whose cloud is switched off here.

        Args:
            missing: the message for an empty name.
            unknown: the message for a model that is not there, where it is not the usual one.
        """
        if not name and missing is not None:
            raise EngineError(400, missing)
        if has_two_sources(name):
            raise EngineError(400, f'use either :local or :cloud, not both: "{name}"')
        if is_cloud(name):
            raise EngineError(403, CLOUD_INFERENCE)
        if name and not is_model_name(name):
            raise EngineError(400, "invalid model name")
        wanted = canonical_name(name) if name else ""
        for card in self._engine.models():
            if canonical_name(card.name) == wanted:
                return card
        raise EngineError(404, unknown or f"model '{name}' not found")


def _reading(handler: Handler) -> Mapping[str, Handler]:
    return {"GET": handler, "HEAD": handler}


def _details(card: ModelCard) -> JsonObject:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": card.architecture,
        "families": [card.architecture],
        "parameter_size": card.parameter_size,
        "quantization_level": card.quantization,
    }


def _tag(card: ModelCard) -> JsonObject:
    return {
        "name": card.name,
        "model": card.name,
        "modified_at": card.modified_at,
        "size": card.size,
        "digest": card.digest,
        "details": {
            **_details(card),
            "context_length": card.context_length,
            "embedding_length": card.embedding_length,
        },
        "capabilities": list(card.capabilities),
    }


def _show_fields(card: ModelCard) -> JsonObject:
    architecture = card.architecture
    return {
        "modelfile": f"FROM {card.name}\n",
        "parameters": "",
        "template": card.template,
        "details": _details(card),
        "model_info": {
            "general.architecture": architecture,
            "general.parameter_count": card.parameter_count,
            f"{architecture}.context_length": card.context_length,
            f"{architecture}.embedding_length": card.embedding_length,
        },
        "tensors": [],
        "capabilities": list(card.capabilities),
        "modified_at": card.modified_at,
    }


@lru_cache(maxsize=256)
def is_allowed_host(header: str) -> bool:
    """Return whether a server on loopback accepts this `Host`: this keeps web pages from using it by a DNS name."""
    name = header.rpartition("]")[0].lstrip("[") if header.startswith("[") else header.partition(":")[0]
    name = name.lower()
    if not name or name in {"localhost", socket.gethostname().lower()} or name.endswith(LOCAL_SUFFIXES):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified
