"""Ollama's requests as values, and its messages for invalid ones (contract 1.1, 3.1).

Pure: bytes in, values out, `EngineError` with Ollama's status and message for refused requests.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from obcd.core.request.model_names import is_cloud
from obcd.standins.wire.engine import EngineError, JsonObject, LoadSignature

#: {option: Ollama's name for its type}, api/types.go FromMap; other keys are ignored
OPTION_TYPES = {
    "num_keep": "integer", "seed": "integer", "num_predict": "integer", "top_k": "integer",
    "repeat_last_n": "integer", "num_ctx": "integer", "num_batch": "integer", "num_gpu": "integer",
    "main_gpu": "integer", "num_thread": "integer", "draft_num_predict": "integer",
    "temperature": "float32", "top_p": "float32", "min_p": "float32", "typical_p": "float32",
    "repeat_penalty": "float32", "presence_penalty": "float32", "frequency_penalty": "float32",
    "use_mmap": "boolean", "stop": "array",
}  # fmt: skip

#: options that make Ollama load the model again, besides model and shift (contract 4.3)
LOAD_OPTIONS = ("draft_num_predict", "main_gpu", "num_batch", "num_gpu", "num_thread", "use_mmap")

#: {unit of a Go duration: seconds}, time.ParseDuration
DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_DURATION = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.:/-]{0,350}")
_NO_OPTIONS: JsonObject = {}

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request of /api/chat, /api/generate or /v1/chat/completions, in one form."""

    model: str  # as sent: replies repeat it
    messages: Sequence[JsonObject]  # empty = only load
    stream: bool
    format: object  # see `check_format`: a fault of the model is reported before a fault of the format
    options: JsonObject
    keep_alive: float | None  # seconds, infinity = for ever
    think: bool | str | None
    truncate: bool
    shift: bool
    tools: Sequence[JsonObject] = ()
    raw_prompt: str | None = None
    suffix: str = ""
    is_completion: bool = False  # of /api/generate
    logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """A request of /api/embed."""

    model: str
    inputs: Sequence[str]  # empty = only load
    options: JsonObject
    keep_alive: float | None
    truncate: bool
    dimensions: int


def parse_body(body: bytes) -> JsonObject:
    """Return the JSON object of a request body, or raise 400 with the message of Go's decoder."""
    if not body:
        raise EngineError(400, "missing request body")
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        raise EngineError(400, go_json_text(error)) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise EngineError(400, "invalid character in string literal") from error
    if not isinstance(value, dict):
        raise EngineError(400, f"json: cannot unmarshal {go_type(value)} into Go value of type api.ChatRequest")
    return value


def go_json_text(error: json.JSONDecodeError) -> str:
    """Return approximately the message of Go's encoding/json for the same fault."""
    rest = error.doc[error.pos :].lstrip()
    if not rest or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    where = (
        "looking for beginning of value" if error.msg.startswith("Expecting value") else "after object key:value pair"
    )
    if error.msg.startswith("Expecting property name"):
        where = "looking for beginning of object key string"
    elif error.msg.startswith("Extra data"):
        where = "after top-level value"
    return f"invalid character '{rest[0]}' {where}"


def go_type(value: object) -> str:
    """Return the name that Go's decoder uses for the type of a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def typed(body: Mapping[str, object], key: str, kind: type[V], go_name: str, default: V) -> V:
    """Return a field, its default when it is absent or null; raise 400 if it has another type."""
    value = body.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        text = f"json: cannot unmarshal {go_type(value)} into Go struct field {go_name}"
        raise EngineError(400, text)
    return value


def parse_chat(body: JsonObject) -> GenerationRequest:
    """Read the body of POST /api/chat."""
    messages = typed(body, "messages", list, "ChatRequest.messages of type []api.Message", [])
    for message in messages:
        check_message(message)
    return _common(body, "ChatRequest", messages, None)


def parse_generate(body: JsonObject) -> GenerationRequest:
    """Read the body of POST /api/generate; its prompt becomes messages unless it is raw."""
    text = "GenerateRequest.{} of type string"
    prompt = typed(body, "prompt", str, text.format("prompt"), "")
    system = typed(body, "system", str, text.format("system"), "")
    raw = typed(body, "raw", bool, "GenerateRequest.raw of type bool", False)
    if raw and (system or body.get("template") or body.get("context")):
        raise EngineError(400, "raw mode does not support template, system, or context")
    suffix = typed(body, "suffix", str, text.format("suffix"), "")
    message: JsonObject = {"role": "user", "content": prompt}
    if body.get("images"):
        check_pictures_are_base64(body["images"])
        message["images"] = body["images"]
    opening: list[JsonObject] = [{"role": "system", "content": system}] if system else []
    common = _common(body, "GenerateRequest", [*opening, message] if prompt else [], prompt if raw and prompt else None)
    return replace(common, suffix=suffix, is_completion=True)


def parse_embed(body: JsonObject) -> EmbedRequest:
    """Read the body of POST /api/embed; a single empty text counts as no text (server/routes.go: EmbedHandler)."""
    given = body.get("input")
    inputs = ([given] if given else []) if isinstance(given, str) else given or []
    if not (isinstance(inputs, list) and all(isinstance(text, str) for text in inputs)):
        raise EngineError(400, "invalid input type")
    return EmbedRequest(
        model=typed(body, "model", str, "EmbedRequest.model of type string", ""),
        inputs=inputs,
        options=typed(body, "options", dict, "EmbedRequest.options of type map[string]interface {}", _NO_OPTIONS),
        keep_alive=parse_keep_alive(body.get("keep_alive")),
        truncate=typed(body, "truncate", bool, "EmbedRequest.truncate of type bool", True),
        dimensions=typed(body, "dimensions", int, "EmbedRequest.dimensions of type int", 0),
    )


def check_message(message: object) -> JsonObject:
    """Return a message, or raise 400 for one that Go cannot read."""
    if not isinstance(message, dict):
        text = (
            f"json: cannot unmarshal {go_type(message)} into Go struct field ChatRequest.messages of type api.Message"
        )
        raise EngineError(400, text)
    typed(message, "role", str, "ChatRequest.messages.role of type string", "")
    typed(message, "content", str, "ChatRequest.messages.content of type string", "")
    check_pictures_are_base64(message.get("images"))
    return message


def check_pictures_are_base64(images: object) -> None:
    """Raise 400 with Go's message for a picture that is not base64."""
    for image in images if isinstance(images, list) else ():
        try:
            base64.b64decode(str(image), validate=True)
        except ValueError as error:
            wrong = re.search(r"[^A-Za-z0-9+/=\r\n]", str(image))
            at = wrong.start() if wrong else len(str(image)) // 4 * 4
            raise EngineError(400, f"illegal base64 data at input byte {at}") from error


def _common(body: JsonObject, name: str, messages: list[JsonObject], raw_prompt: str | None) -> GenerationRequest:
    return GenerationRequest(
        model=typed(body, "model", str, f"{name}.model of type string", ""),
        messages=messages,
        stream=typed(body, "stream", bool, f"{name}.stream of type bool", True),
        format=body.get("format") or None,
        options=typed(body, "options", dict, f"{name}.options of type map[string]interface {{}}", _NO_OPTIONS),
        keep_alive=parse_keep_alive(body.get("keep_alive")),
        think=parse_think(body.get("think")),
        truncate=typed(body, "truncate", bool, f"{name}.truncate of type bool", True),
        shift=typed(body, "shift", bool, f"{name}.shift of type bool", True),
        tools=typed(body, "tools", list, f"{name}.tools of type []api.Tool", []),
        raw_prompt=raw_prompt,
        logprobs=parse_logprobs(body, name),
    )


def parse_logprobs(body: JsonObject, name: str) -> int | None:
    """Return the requested number of likeliest tokens at each place, None for no probabilities (ollama 0.12.11)."""
    wanted = typed(body, "logprobs", bool, f"{name}.logprobs of type bool", False)
    most = typed(body, "top_logprobs", int, f"{name}.top_logprobs of type int", 0)
    if not 0 <= most <= 20:
        raise EngineError(400, "top_logprobs must be between 0 and 20")
    return most if wanted else None


def parse_think(value: object) -> bool | str | None:
    """Return the `think` field, or raise 400."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value in {"low", "medium", "high", "max"}:
        return value
    allowed = '("high", "medium", "low", "max", true, or false)'
    if not isinstance(value, str):
        raise EngineError(400, f"think must be a boolean or string {allowed}")
    raise EngineError(400, f"invalid think value: {json.dumps(value)} (must be {allowed[1:]}")


def parse_keep_alive(value: object) -> float | None:
    """Return seconds, infinity for a negative value, None if the field is absent (api/types.go:1243)."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise EngineError(400, f"Unsupported type: '{go_type(value)}'")
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    return math.inf if seconds < 0 else seconds


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration such as `1h30m` or `-1m`, or raise 400 with Go's message."""
    if text in {"0", "+0", "-0"}:
        return 0.0
    if _DURATION.fullmatch(text) is None:
        unit = "missing unit in duration" if re.fullmatch(r"[-+]?[\d.]+", text) else "invalid duration"
        raise EngineError(400, f'time: {unit} "{text}"')
    total = sum(float(number) * DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    return -total if text.startswith("-") else total


def check_options(options: JsonObject) -> JsonObject:
    """Return Ollama's known options; floats for integers are truncated. Raises 500 for another type, as Ollama does."""
    return {
        key: _option(key, OPTION_TYPES[key], value)
        for key, value in options.items()
        if key in OPTION_TYPES and value is not None
    }


def whole_option(options: JsonObject, key: str, otherwise: int) -> int:
    """Return a checked option that is an integer; `otherwise` if it is not set."""
    value = options.get(key, otherwise)
    return value if isinstance(value, int) else otherwise


def _option(key: str, kind: str, value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind == "integer":
            return int(value)
        if kind == "float32":
            return float(value)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "array" and isinstance(value, list):
        if all(isinstance(part, str) for part in value):
            return value
        raise EngineError(500, f'option "{key}" must be of an array of strings')
    raise EngineError(500, f'option "{key}" must be of type {kind}')


def check_format(value: object) -> str | JsonObject | None:
    """Return the `format`, or raise 500 for one that is neither `json` nor a schema."""
    if value is None or isinstance(value, dict):
        return value
    if value == "json":
        return "json"
    raw = json.dumps(json.dumps(value))
    raise EngineError(500, f'invalid format: {raw}; expected "json" or a valid JSON Schema object')


def tagged_name(name: str) -> str:
    """Return a model's name with its tag; `latest` if it has none."""
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


def canonical_name(name: str) -> str:
    """Return a model's name for comparisons: in lower case, with its tag."""
    return tagged_name(name.lower().removesuffix(":local"))


def has_two_sources(name: str) -> bool:
    """Return whether a name has two suffixes that say where its model runs, such as `x:local:cloud`."""
    base = name.rpartition(":")[0]
    return all(is_cloud(part) or part.lower().endswith(":local") for part in (name, base))


def is_model_name(name: str) -> bool:
    """Return whether a name can be a model's."""
    return _MODEL_NAME.fullmatch(name) is not None


def signature_of(model: str, options: JsonObject, shift: bool, default_ctx: int, trained_ctx: int) -> LoadSignature:
    """Return the signature with which a request's model is loaded; num_ctx is limited to the trained context first."""
    num_ctx = whole_option(options, "num_ctx", default_ctx)
    rest = tuple([(key, options[key]) for key in LOAD_OPTIONS if key in options])
    return LoadSignature(
        model, max(4, min(num_ctx, trained_ctx)), shift, rest
    )  # num_ctx 0 becomes 4, server/sched.go:170


def exceed_context_text(prompt_tokens: int, num_ctx: int) -> str:
    """Return llama-server's refusal of a long prompt, as the string Ollama puts into its own `error`."""
    message = (
        f"request ({prompt_tokens} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
    )
    return llama_error(message, "exceed_context_size_error", n_prompt_tokens=prompt_tokens, n_ctx=num_ctx)


def llama_error(message: str, kind: str = "invalid_request_error", code: int = 400, **more: object) -> str:
    """Return an error of llama-server, as the string that Ollama puts into its own `error`."""
    error = {"code": code, "message": message, "type": kind, **more}
    return json.dumps({"error": error}, separators=(",", ":"))


#: the refusal of a rendered model with shift off, v0.30.9 and later
PROMPT_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)
