"""The values that travel between processes: a job's settings, and the request of one line.

All are frozen. `JobSettings` and the result records are also stored on disk, as JSON; their field names are the format.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, NotRequired, Required, TypedDict

from obcd.core.request.rows import ID_FIELD, Reading

#: Options of a request for which Ollama reloads the model when they differ (ollama server/sched.go, v0.33).
RELOADING_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")

#: Most answers of one prompt.
MAX_COUNT = 100

#: `shift` is part of the load signature too, so it is one constant for every request: with False a generation that
#: reaches the end of the context stops with `length`; otherwise Ollama would drop half of the context and go on.
SHIFT = False


class Kind(StrEnum):
    """What a request asks of a model."""

    CHAT = "chat"  # the next message of a conversation
    COMPLETE = "complete"  # the continuation of a text
    EMBED = "embed"  # the vectors of texts


class ToolFunction(TypedDict):
    """A tool as the model sees it; `parameters` is a JSON schema, which calls have to fit if the tool is `strict`."""

    name: str
    description: NotRequired[str]
    parameters: NotRequired[dict[str, object] | None]
    strict: NotRequired[bool | None]


class Tool(TypedDict):
    """A tool that a model may call (ollama api/types.go: Tool)."""

    type: NotRequired[str]
    function: ToolFunction


class RequestBody(TypedDict, total=False):
    """The body of a POST to one of `PATHS` (ollama api/types.go: ChatRequest, GenerateRequest, EmbedRequest)."""

    model: Required[str]
    messages: list[dict[str, object]]
    prompt: str
    system: str
    suffix: str
    raw: bool
    input: list[str]
    dimensions: int
    stream: bool
    truncate: bool
    shift: bool
    options: dict[str, object]
    format: Mapping[str, object] | str
    think: bool | str
    tools: list[Tool]
    logprobs: bool
    top_logprobs: int
    keep_alive: int


#: {kind: path of Ollama's API}
PATHS = {Kind.CHAT: "/api/chat", Kind.COMPLETE: "/api/generate", Kind.EMBED: "/api/embed"}

#: {key of `JobSettings` that is younger than the format of `job.json`: the value with which it is left out}
_LATER: Mapping[str, object] = {
    "quotes": None, "ignore": [], "thoughts": "move", "empty": "keep", "drop_last_assistant": False, "files": False,
    "prefix_affinity": "auto", "window": [],
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """The settings of a job: its profile at the time when the job was accepted.

    Attributes:
        model: Default model of the lines, e.g. `llama3.2`.
        system: Default system message, or None.
        options: Ollama options sent with each request, without num_ctx and num_predict, e.g. `{"temperature": 0}`.
        format: JSON schema (a dict), `"json"`, or None.
        think: Sent unchanged if not None.
        num_ctx: Context length in tokens; always sent, because Ollama's own default depends on the card.
        num_ctx_max: If contexts are planned (`num_ctx = "auto"`, see `context`): the longest that may be chosen. Then
            the job's `num_ctx` is the same, and the plan decides what each request gets. None: `num_ctx` is fixed.
        num_predict: Most tokens of one answer; always sent, because an endless answer would hold its slot.
        attempts: Most attempts of one request, the first included.
        connect_timeout_seconds: Limit for opening a connection.
        load_timeout_seconds: Limit for loading the model (preload).
        request_timeout_seconds: Limit for one whole request, including the wait for a slot of the server.
        digest: `same` if all answers of one model have to come from the same weights, else `any`.
        n: How many answers each prompt gets, if its line does not say.
        template: Makes the prompt of each line, which then is a row (see `rows`); None: lines hold their prompts.
        id_field: The field of a row that is its id.
        delimiter: The character between the fields of CSV.
        quotes: Whether quotes enclose cells of a table (RFC 4180) or are text; None: found by its rows.
        send_schema: Whether `format` is sent to the server, whose grammar then lets the model write nothing else;
            otherwise answers are only checked here.
        repairs: How often, at most, a request is sent again because its answer does not fit its `format`.
        cache: Whether answers are stored for equal requests of other jobs, and taken from the store.
        dedupe: Whether equal requests of the job are sent only once, with one result for all.
        files: Whether each answer is also written to a file of the published folder, `<epoch>-<line>.json`.
        aliases: `{name of a model in the lines: the model that gets the request}`.
        ignore: Names of parameters and keys that are dropped from a line if they cannot be honoured.
        thoughts: `move` if thoughts at the beginning of a text answer are moved out of it, `keep` if they stay there.
        empty: What becomes of an answer that says nothing: `keep` it; `retry` with another seed, as `attempts` allow;
            `fail`.
        drop_last_assistant: Whether a last message of the assistant is not sent, and echoed instead.
        prefix_affinity: `auto` if requests with the same beginning are sent one after another to the same endpoint,
            `off` if not.
        window: The windows in which requests are sent, e.g. `["mon-fri 20:00-07:00"]`; empty: at any time.
    """

    model: str
    system: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    format: Mapping[str, object] | str | None = None
    think: bool | str | None = None
    num_ctx: int = 8192
    num_ctx_max: int | None = None
    num_predict: int = 2048
    attempts: int = 4
    connect_timeout_seconds: float = 5.0
    load_timeout_seconds: float = 900.0
    request_timeout_seconds: float = 600.0
    digest: str = "same"
    n: int = 1
    template: str | None = None
    id_field: str = ID_FIELD
    delimiter: str = ","
    quotes: bool | None = None
    send_schema: bool = True
    repairs: int = 2
    cache: bool = False
    dedupe: bool = False
    files: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    ignore: Sequence[str] = field(default_factory=list)
    thoughts: str = "move"
    empty: str = "keep"
    drop_last_assistant: bool = False
    prefix_affinity: str = "auto"
    window: Sequence[str] = field(default_factory=list)

    def model_for(self, named: str | None) -> str:
        """Return the model for a line that names one, or none."""
        return self.aliases.get(named, named) if named else self.model

    @property
    def reading(self) -> Reading:
        """What the job's lines are read with."""
        if self.template is None:
            return Reading(
                delimiter=self.delimiter,
                quotes=self.quotes,
                ignore=frozenset(self.ignore),
                drop_last_assistant=self.drop_last_assistant,
            )
        return Reading(self.template, self.id_field, self.delimiter, quotes=self.quotes)

    def to_json(self) -> dict[str, object]:
        """Return the settings in the form of `job.json` and `manifest.json`.

        A key that is younger than the format is there only if it is set: what it does not concern keeps its bytes.
        """
        document = asdict(self) | {"ignore": list(self.ignore), "window": list(self.window)}
        return {key: value for key, value in document.items() if key not in _LATER or value != _LATER[key]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobSettings:
        """Read settings that `to_json` wrote; keys of newer versions are ignored."""
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in document.items() if key in known})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line of a job, parsed.

    Attributes:
        line: Its number in the file, from 1; blank lines count.
        id: The user's own `id`, any JSON scalar; the line number if there is none.
        prompt: The text that the response line repeats: the prompt, or the last user message; the text that a COMPLETE
            continues.
        messages: For a CHAT: Ollama's messages, without the job's system message.
        model, system, options, format, think, tools: The line's own values; None (or empty) if it has none. "" as
            `system` or `format` means none, whatever the job has.
        kind: The kind of the request.
        inputs: For an EMBED: the texts; each gets a vector.
        lists_texts: For an EMBED: whether its response repeats even one text as a list, as other lines of its job do.
        dimensions: For an EMBED: the requested length of a vector; None: that of the model.
        suffix: For a COMPLETE: the text after the gap that is to be filled.
        raw: For a COMPLETE: whether the prompt is sent without the model's template.
        count: How many answers are requested (`n`); None if the line does not say.
        logprobs: How many of the likeliest tokens are reported at each place, beside the one that was taken (0 to 20);
            None: no probabilities.
        extra: The line's other keys: they have no effect, and are always echoed.
        dropped: The places of keys that are not sent, see `dropped_keys.Dropped`.
        remarks: What its author should know, a sentence each: what was read in another way than it is written.
    """

    line: int
    id: object
    prompt: str
    messages: list[dict[str, object]]
    model: str | None = None
    system: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    format: Mapping[str, object] | str | None = None
    think: bool | str | None = None
    tools: list[Tool] | None = None
    kind: Kind = Kind.CHAT
    inputs: tuple[str, ...] = ()
    lists_texts: bool = False
    dimensions: int | None = None
    suffix: str | None = None
    raw: bool = False
    count: int | None = None
    logprobs: int | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    dropped: tuple[str, ...] = field(default=(), compare=False)
    remarks: tuple[str, ...] = ()

    @property
    def echo(self) -> str | list[str]:
        """The value that the response line repeats as `prompt`: for an EMBED with several texts, all of them."""
        return self.prompt if len(self.inputs) < 2 and not self.lists_texts else list(self.inputs)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a server must have loaded for a request: the model, and every option whose change makes Ollama reload it.

    Example: `Signature("llama3.2", (("num_ctx", 8192),))`.

    Attributes:
        embeds: Whether it is for /api/embed: an embedding model cannot be loaded by a chat, and because /api/embed has
            no `shift`, a model that can do both is reloaded between the two (ollama server/sched.go, v0.33).
    """

    model: str
    options: tuple[tuple[str, object], ...]
    embeds: bool = False

    def to_json(self) -> list[object]:
        """Return e.g. `["llama3.2", {"num_ctx": 8192}]`, with `"embed"` as a third item if it is for /api/embed."""
        return [self.model, dict(self.options), *((Kind.EMBED,) if self.embeds else ())]

    @classmethod
    def from_json(cls, document: list[Any]) -> Signature:
        """Read a signature that `to_json` wrote."""
        return cls(document[0], tuple(sorted(document[1].items())), Kind.EMBED in document[2:])

    @property
    def num_ctx(self) -> int:
        """Its context length, in tokens; 0 if it has none; every signature of obcd has one."""
        return whole_option(dict(self.options), "num_ctx", 0)

    @property
    def kind(self) -> Kind:
        """The kind of request that loads it, and that checks whether it computes."""
        return Kind.EMBED if self.embeds else Kind.CHAT

    def with_num_ctx(self, num_ctx: int) -> Signature:
        """Return the same signature with another context length."""
        return replace(self, options=tuple(sorted({**dict(self.options), "num_ctx": num_ctx}.items())))


def canonical_model(name: str) -> str:
    """Return a model's name as Ollama compares it: lower case, with its tag; `Llama3.2` is `llama3.2:latest`."""
    lower = name.lower()
    return lower if ":" in lower.rsplit("/", 1)[-1] else lower + ":latest"


def plain_model(name: str) -> str:
    """Return a canonical name as people write it: `llama3.2`, not `llama3.2:latest`."""
    return name.removesuffix(":latest")


def request_options(request: Request, settings: JobSettings) -> dict[str, object]:
    """Merge the options of job and line; the line's take precedence. num_ctx and num_predict are always included."""
    limits: dict[str, object] = {"num_ctx": settings.num_ctx, "num_predict": settings.num_predict}
    return {**limits, **settings.options, **request.options}


def whole_option(options: Mapping[str, object], key: str, otherwise: int) -> int:
    """Return an option that is a whole number; `otherwise` if it is not set."""
    value = options.get(key, otherwise)
    return value if isinstance(value, int) else otherwise


def num_predict_of(request: Request, settings: JobSettings) -> int:
    """Return the most tokens of an answer, the line's own value before the job's; below 1 there is no limit."""
    options = request.options if "num_predict" in request.options else settings.options
    return whole_option(options, "num_predict", settings.num_predict)


def answers_of(request: Request, settings: JobSettings) -> int:
    """Return how many answers a request is to get; for texts to embed it is one vector each."""
    return 1 if request.kind is Kind.EMBED else request.count or settings.n


def nth_request(request: Request, settings: JobSettings, answer: int) -> Request:
    """Return the request for one of several answers of a line: the same with another seed.

    The seed is that of line or job plus the number of the answer. If there is none (or -1, for which Ollama draws one),
    it comes from the line's id, so that the same file gets the same answers again.

    Args:
        answer: Its number, from 0.
    """
    seed = whole_option(request_options(request, settings), "seed", -1)
    if seed < 0:
        seed = zlib.crc32(json.dumps(request.id, sort_keys=True).encode("ascii")) >> 1
    return replace(request, options={**request.options, "seed": min(seed + answer, 2**63 - 1)})


def reseeded(request: Request, settings: JobSettings, attempt: int) -> Request:
    """Return the request for another attempt, with a seed that none of the line's answers has had.

    Without a seed Ollama draws another one each time.

    Args:
        attempt: Its number, from 1.
    """
    seed = whole_option(request_options(request, settings), "seed", -1)
    if seed < 0 or attempt == 1:
        return request
    another = min(seed + (attempt - 1) * MAX_COUNT, 2**63 - 1)
    return replace(request, options={**request.options, "seed": another})


def signature_of(request: Request, settings: JobSettings) -> Signature:
    """Return what a server must have loaded to answer this request."""
    options = request_options(request, settings)
    loading = tuple(sorted((key, options[key]) for key in RELOADING_OPTIONS if key in options))
    return Signature(canonical_model(settings.model_for(request.model)), loading, request.kind is Kind.EMBED)


def request_body(request: Request, settings: JobSettings) -> RequestBody:
    """Return the body of the POST for one request, to the path that `PATHS` has for its kind.

    `truncate: false` makes an over-long prompt an error instead of a silently cut prompt (ollama 0.12.6 and newer).
    """
    if request.kind is Kind.CHAT:
        return chat_body(request, settings)
    return complete_body(request, settings) if request.kind is Kind.COMPLETE else embed_body(request, settings)


def chat_body(request: Request, settings: JobSettings) -> RequestBody:
    """Return the body of POST /api/chat for one request (ollama api/types.go: ChatRequest)."""
    system = system_of(request, settings)
    opening: list[dict[str, object]] = []
    if system and request.messages[0]["role"] != "system":
        opening.append({"role": "system", "content": system})
    body: RequestBody = {
        "model": settings.model_for(request.model),
        "messages": opening + request.messages,
        "stream": False,
        "truncate": False,
        "shift": SHIFT,
        "options": request_options(request, settings),
    }
    return _with_wishes(body, request, settings)


def complete_body(request: Request, settings: JobSettings) -> RequestBody:
    """Return the body of POST /api/generate for one request (ollama api/types.go: GenerateRequest).

    A raw prompt is sent alone: a system message beside it is refused.
    """
    body: RequestBody = {
        "model": settings.model_for(request.model),
        "prompt": request.prompt,
        "stream": False,
        "truncate": False,
        "shift": SHIFT,
        "options": request_options(request, settings),
    }
    system = None if request.raw else system_of(request, settings)
    if system:
        body["system"] = system
    if request.suffix is not None:
        body["suffix"] = request.suffix
    if request.raw:
        body["raw"] = True
    return _with_wishes(body, request, settings)


def embed_body(request: Request, settings: JobSettings) -> RequestBody:
    """Return the body of POST /api/embed for one request (ollama api/types.go: EmbedRequest)."""
    options = request_options(request, settings)
    del options["num_predict"]  # nothing is generated
    body: RequestBody = {
        "model": settings.model_for(request.model),
        "input": list(request.inputs),
        "truncate": False,
        "options": options,
    }
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return body


def system_of(request: Request, settings: JobSettings) -> str | None:
    """Return the system message of a request: its own, or the job's."""
    return request.system if request.system is not None else settings.system


def format_of(request: Request, settings: JobSettings) -> Mapping[str, object] | str | None:
    """Return the form that the answer to a request has to fit: a JSON schema, `"json"` (any JSON), or None."""
    if request.kind is Kind.EMBED:
        return None
    return (request.format if request.format is not None else settings.format) or None


def _with_wishes(body: RequestBody, request: Request, settings: JobSettings) -> RequestBody:
    """Add the keys that /api/chat and /api/generate share, if they are requested; `logprobs` since ollama 0.12.11."""
    wanted_format = format_of(request, settings)
    if wanted_format is not None and settings.send_schema:
        body["format"] = wanted_format
    think = request.think if request.think is not None else settings.think
    if think is not None:
        body["think"] = think
    if request.tools is not None:
        body["tools"] = request.tools
    if request.logprobs is not None:
        body["logprobs"] = True
        if request.logprobs:
            body["top_logprobs"] = request.logprobs
    return body


def unload_body(model: str) -> RequestBody:
    """Return the body of the /api/chat call that ends a model's process, as soon as it is idle.

    It also works for an embedding model: the call needs no capability (ollama server/routes.go: ChatHandler).
    """
    return {"model": model, "messages": [], "stream": False, "keep_alive": 0}


def token_body(signature: Signature) -> RequestBody:
    """Return the body of the smallest request that makes a loaded signature compute, for the path of its kind."""
    body = preload_body(signature)
    if signature.embeds:
        body["input"] = ["Hi"]
    else:
        body["messages"] = [{"role": "user", "content": "Hi"}]
        body["options"]["num_predict"] = 1
    return body


def preload_body(signature: Signature) -> RequestBody:
    """Return the body of the call that loads a signature: nothing to answer, the same reloading options.

    It goes to /api/chat, or to /api/embed if the signature is for that.
    """
    common: RequestBody = {"model": signature.model, "truncate": False, "options": dict(signature.options)}
    if signature.embeds:
        return {**common, "input": []}
    return {**common, "messages": [], "stream": False, "shift": SHIFT}
