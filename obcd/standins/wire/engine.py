"""The interface between the API and an engine, and the values that pass between them.

An engine turns messages into text. It does not handle HTTP, queues or keep-alive: the scheduler controls slots and
the loading order, and the API handles wire formats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from obcd.errors import ObcdError
from obcd.standins.wire.http import Exchange

#: a JSON object, e.g. `{"role": "user", "content": "Hello"}`
JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The facts about a model in /api/tags, /api/show and /api/ps."""

    name: str  # with its tag, e.g. `smollm2:135m`
    digest: str  # 64 hex characters
    size: int  # bytes
    architecture: str = "llama"
    parameter_size: str = ""
    quantization: str = ""
    context_length: int = 131072  # tokens for which it was trained
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ("completion",)
    modified_at: str = "2026-01-01T00:00:00Z"
    template: str = ""
    parameter_count: int = 0


@dataclass(frozen=True, slots=True)
class LoadSignature:
    """The settings of a loaded model; a different signature means unload and reload (contract 4.3)."""

    model: str  # canonical name, with its tag
    num_ctx: int
    shift: bool = True
    rest: tuple[tuple[str, object], ...] = ()  # num_batch, num_gpu …, sorted by name, as given


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One generation, checked and with its model loaded."""

    signature: LoadSignature
    messages: Sequence[JsonObject]
    options: JsonObject
    format: str | JsonObject | None = None  # `json`, a JSON schema, or nothing
    truncate: bool = True
    think: bool | str | None = None
    raw_prompt: str | None = None  # /api/generate with raw: no chat template
    tools: Sequence[JsonObject] = ()
    logprobs: int | None = None  # number of likeliest tokens at each place; None: no logprobs
    prompt: str = ""  # content of the last message, which identifies the request in the account
    attempt: int = 1  # number of times this prompt has come, if an account is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOutcome:
    """The outcome of a generation.

    Seconds cover the uncached part of the prompt, and the answer; `prompt_tokens` include the cached ones.
    """

    text: str
    done_reason: str | None  # `stop`, `length`; None means that the generation was aborted: `done: false`
    prompt_tokens: int = 0
    cached_tokens: int = 0  # those of the prompt that came from the prefix cache
    names_cached: bool = False  # whether the reply says so, as from v0.33.3 on (ollama #17943)
    prompt_seconds: float = 0.0
    eval_tokens: int = 0
    eval_seconds: float = 0.0
    thinking: str = ""
    tool_calls: tuple[JsonObject, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """A request of /api/embed with its model loaded."""

    signature: LoadSignature
    inputs: Sequence[str]
    truncate: bool = True
    dimensions: int = 0  # first numbers kept of each vector; 0: all
    attempts: Sequence[int]  # number of times that each text has come, if an account is kept


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of /api/embed, one for each input."""

    vectors: list[list[float]]
    prompt_tokens: int = 0


class EngineReply(Protocol):
    """The path of a generation's pieces to the client."""

    exchange: Exchange
    stream: bool

    async def send_piece(self, text: str, thinking: str = "") -> None:
        """Send a piece of the answer; do nothing if the client wants one complete reply."""

    def body_of(self, outcome: WorkOutcome) -> bytes:
        """Return the complete body of this outcome, for faults that break it."""


#: the message for a model that cannot embed, with the 501 of llama.cpp
NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


class EngineError(ObcdError):
    """A request that the engine or the API refuses; `text` is the value of Ollama's `error`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class EngineCrash(EngineError):
    """The engine died during this request; the model must be loaded again."""


class Engine(Protocol):
    """A program part that answers prompts for one server."""

    #: e.g. `0.33.0-obcd-simulated`
    version: str

    def models(self) -> Sequence[ModelCard]:
        """Return the installed models; they may change between calls. Digests may be missing."""

    async def describe(self) -> Sequence[ModelCard]:
        """Return the installed models with digests, which may take time at the first call."""

    def vram_bytes(self, card: ModelCard) -> int:
        """Return how many bytes of a loaded model are on the GPU; 0 means that it runs on the CPU."""

    def context_length(self, signature: LoadSignature) -> int:
        """Return the context that each slot of a loaded model really has, in tokens."""

    async def load(self, signature: LoadSignature) -> None:
        """Load a model; a cancellation abandons the load. Raises EngineError with Ollama's message."""

    async def unload(self, signature: LoadSignature) -> None:
        """Free a loaded model; no generation of it is in progress."""

    async def generate(self, work: Work, reply: EngineReply) -> WorkOutcome | None:
        """Answer while holding a slot, which a cancellation frees. None: the engine wrote its own reply (a fault)."""

    async def embed(self, texts: Texts) -> Embeddings:
        """Return one vector for each text. Raises EngineError if the model cannot embed."""


def shortened(vector: list[float], dimensions: int) -> list[float]:
    """Return the start of a vector, scaled to length one; all of it for 0 (server/routes.go: EmbedHandler)."""
    if not 0 < dimensions < len(vector):
        return vector
    length = math.sqrt(sum(value * value for value in vector[:dimensions])) or 1.0
    return [value / length for value in vector[:dimensions]]
