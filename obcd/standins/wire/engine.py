"""What the API asks of an engine, and the values that pass between them.

An engine turns messages into text. It knows nothing of HTTP, queues or keep-alive: slots and loading order are the
scheduler's, wire formats the API's.
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
    """What /api/tags, /api/show and /api/ps tell about a model."""

    name: str  # with its tag, e.g. `smollm2:135m`
    digest: str  # 64 hex characters
    size: int  # bytes
    architecture: str = "llama"
    parameter_size: str = ""
    quantization: str = ""
    context_length: int = 131072  # tokens it was trained for
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ("completion",)
    modified_at: str = "2026-01-01T00:00:00Z"
    template: str = ""
    parameter_count: int = 0


@dataclass(frozen=True, slots=True)
class LoadSignature:
    """What a loaded model was loaded with; another one means unload and reload (contract 4.3)."""

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
    logprobs: int | None = None  # how many likeliest tokens are told at each place; None: none at all
    prompt: str = ""  # content of the last message, by which the account knows the request
    attempt: int = 1  # how often this prompt has come, where an account is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOutcome:
    """What a generation came to. Seconds cover the uncached part of the prompt, and the answer."""

    text: str
    done_reason: str | None  # `stop`, `length`; None stands for a generation that was aborted: `done: false`
    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    eval_tokens: int = 0
    eval_seconds: float = 0.0
    thinking: str = ""
    tool_calls: tuple[JsonObject, ...] = ()
    logprobs: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What /api/embed asks for, with its model loaded."""

    signature: LoadSignature
    inputs: Sequence[str]
    truncate: bool = True
    dimensions: int = 0  # of each vector, from its start; 0: all
    attempt: int = 1  # how often the first text has come, where an account is kept


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of /api/embed, one an input."""

    vectors: list[list[float]]
    prompt_tokens: int = 0


class EngineReply(Protocol):
    """The way of a generation's pieces to the client."""

    exchange: Exchange
    stream: bool

    async def send_piece(self, text: str, thinking: str = "") -> None:
        """Send a piece of the answer; does nothing when the client asked for one whole reply."""

    def body_of(self, outcome: WorkOutcome) -> bytes:
        """Return the whole body that this outcome would be sent as, for faults that break it."""


#: what an engine says of a model that cannot embed, with the 501 of llama.cpp
NO_EMBEDDINGS = "this model does not support embeddings"


class EngineError(ObcdError):
    """A request that the engine or the API refuses; `text` is what stands in Ollama's `error`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class EngineCrash(EngineError):
    """The engine died in the middle of this request; the model has to be loaded again."""


class Engine(Protocol):
    """Something that answers prompts for one server."""

    #: e.g. `0.33.0-obcd-simulated`
    version: str

    def models(self) -> Sequence[ModelCard]:
        """Return what is installed; may change between calls. Digests may be missing."""

    async def describe(self) -> Sequence[ModelCard]:
        """Return what is installed, digests included, which may take time at the first call."""

    def vram_bytes(self, card: ModelCard) -> int:
        """Return how much of a loaded model lies on the GPU; 0 means that it runs on the CPU."""

    def context_length(self, signature: LoadSignature) -> int:
        """Return the context that each slot of a loaded model really has, in tokens."""

    async def load(self, signature: LoadSignature) -> None:
        """Load a model; a cancellation gives the load up. Raises EngineError with what Ollama would say."""

    async def unload(self, signature: LoadSignature) -> None:
        """Forget a loaded model; no generation of it is in progress."""

    async def generate(self, work: Work, reply: EngineReply) -> WorkOutcome | None:
        """Answer; holds a slot. A cancellation frees it. None: the engine wrote a reply of its own (a fault)."""

    async def embed(self, texts: Texts) -> Embeddings:
        """Return one vector a text. Raises EngineError where the model cannot embed."""


def shortened(vector: list[float], dimensions: int) -> list[float]:
    """Return the start of a vector, made as long as one again; all of it for 0 (server/routes.go: EmbedHandler)."""
    if not 0 < dimensions < len(vector):
        return vector
    length = math.sqrt(sum(value * value for value in vector[:dimensions])) or 1.0
    return [value / length for value in vector[:dimensions]]
