"""The values that travel: a job's settings, one line's request, and what became of it.

All frozen. `JobSettings` and the result records also live on disk, as JSON; their field names are the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

#: Options of a request that make Ollama load the model anew when they differ (ollama server/sched.go, v0.33).
RELOADING_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")

#: `shift` is part of the load signature too, so it is one constant for every request: with False a generation that
#: reaches the context's end stops with `length`, where Ollama would otherwise drop half of the context and go on.
SHIFT = False


class Outcome(StrEnum):
    """How a request ended."""

    RESPONSE = "response"  # answered
    FAILURE = "failure"  # out of attempts, not retryable, or a bad line


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What a job asks with: the profile as it was when the job was accepted.

    Attributes:
        model: Default model of the lines, e.g. `llama3.2`.
        system: Default system message, or None.
        options: Ollama options sent with each request, without num_ctx and num_predict, e.g. `{"temperature": 0}`.
        format: JSON schema (a dict), `"json"`, or None.
        think: Sent as it is when not None.
        num_ctx: Context length in tokens; always sent, since Ollama's own default depends on the card.
        num_ctx_max: Where contexts are planned (`num_ctx = "auto"`, see `context`): the longest that may be chosen; in
            the job's own settings `num_ctx` is the same, what each request gets is the plan's. None: `num_ctx` it is.
        num_predict: Most tokens of one answer; always sent, since an endless answer would hold its slot.
        attempts: Most tries of one request, the first included.
        connect_timeout_seconds: Limit for opening a connection.
        load_timeout_seconds: Limit for loading the model (preload).
        request_timeout_seconds: Limit for one whole request, waiting for a slot of the server included.
        digest: `same` if all answers of one model have to come from the same weights, `any` if they need not.
    """

    model: str
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    format: Mapping[str, Any] | str | None = None
    think: bool | str | None = None
    num_ctx: int = 8192
    num_ctx_max: int | None = None
    num_predict: int = 2048
    attempts: int = 4
    connect_timeout_seconds: float = 5.0
    load_timeout_seconds: float = 900.0
    request_timeout_seconds: float = 600.0
    digest: str = "same"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as they stand in `job.json` and `manifest.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobSettings:
        """Read what `to_json` wrote; keys of newer versions are passed over."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in document.items() if key in known})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line of a job, understood.

    Attributes:
        line: Its number in the file, from 1; blank lines count.
        id: The user's own `id`, any JSON scalar; the line number where there is none.
        prompt: What the response line repeats: the prompt, or the last user message.
        messages: Ollama's messages, without the job's system message.
        model, system, options, format, think, tools: The line's own wishes; None (or empty) where it has none.
        extra: The line's other keys: never obeyed, always echoed.
    """

    line: int
    id: Any
    prompt: str
    messages: list[dict[str, Any]]
    model: str | None = None
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    format: Mapping[str, Any] | str | None = None
    think: bool | str | None = None
    tools: list[Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a server must have loaded for a request: the model, and every option whose change makes it load anew.

    Example: `Signature("llama3.2", (("num_ctx", 8192),))`.
    """

    model: str
    options: tuple[tuple[str, Any], ...]

    def to_json(self) -> list[Any]:
        """Return e.g. `["llama3.2", {"num_ctx": 8192}]`."""
        return [self.model, dict(self.options)]

    @classmethod
    def from_json(cls, document: list[Any]) -> Signature:
        """Read what `to_json` wrote."""
        return cls(document[0], tuple(sorted(document[1].items())))

    @property
    def num_ctx(self) -> int:
        """Its context length, in tokens; 0 where it names none, which is none of ours."""
        return int(dict(self.options).get("num_ctx", 0))

    def with_num_ctx(self, num_ctx: int) -> Signature:
        """Return the same with another context length."""
        return Signature(self.model, tuple(sorted({**dict(self.options), "num_ctx": num_ctx}.items())))


def canonical_model(name: str) -> str:
    """Return a model's name as Ollama compares it: lower case, with its tag; `Llama3.2` is `llama3.2:latest`."""
    lower = name.lower()
    return lower if ":" in lower.rsplit("/", 1)[-1] else lower + ":latest"


def plain_model(name: str) -> str:
    """Return a canonical name as people write it: `llama3.2`, not `llama3.2:latest`."""
    return name.removesuffix(":latest")


def request_options(request: Request, settings: JobSettings) -> dict[str, Any]:
    """Merge the options of job and line; the line's win. num_ctx and num_predict are always in it."""
    limits = {"num_ctx": settings.num_ctx, "num_predict": settings.num_predict}
    return {**limits, **settings.options, **request.options}


def signature_of(request: Request, settings: JobSettings) -> Signature:
    """Return what a server must have loaded to answer this request."""
    options = request_options(request, settings)
    loading = tuple(sorted((key, options[key]) for key in RELOADING_OPTIONS if key in options))
    return Signature(canonical_model(request.model or settings.model), loading)


def chat_body(request: Request, settings: JobSettings) -> dict[str, Any]:
    """Return the body of POST /api/chat for one request (ollama api/types.go: ChatRequest).

    `truncate: false` makes an over-long prompt an error instead of a silently cut prompt (ollama 0.12.6 and newer).
    """
    system = request.system if request.system is not None else settings.system
    opening = [{"role": "system", "content": system}] if system and request.messages[0]["role"] != "system" else []
    wishes = {
        "format": request.format if request.format is not None else settings.format,
        "think": request.think if request.think is not None else settings.think,
        "tools": request.tools,
    }
    return {
        "model": request.model or settings.model,
        "messages": opening + request.messages,
        "stream": False,
        "truncate": False,
        "shift": SHIFT,
        "options": request_options(request, settings),
        **{key: value for key, value in wishes.items() if value is not None},
    }


def unload_body(model: str) -> dict[str, Any]:
    """Return the body of the /api/chat call that ends a model's process, as soon as it works on nothing."""
    return {"model": model, "messages": [], "stream": False, "keep_alive": 0}


def token_body(signature: Signature) -> dict[str, Any]:
    """Return the body of the smallest request that has a loaded signature compute something."""
    body = preload_body(signature)
    return body | {"messages": [{"role": "user", "content": "Hi"}], "options": body["options"] | {"num_predict": 1}}


def preload_body(signature: Signature) -> dict[str, Any]:
    """Return the body of the /api/chat call that loads a signature: no messages, the same reloading options."""
    return {
        "model": signature.model,
        "messages": [],
        "stream": False,
        "truncate": False,
        "shift": SHIFT,
        "options": dict(signature.options),
    }
