"""Parse one line of a prompt file, from bytes to a request; each refusal is one sentence.

The keys of a line determine its shape (etc/manual/formats.md):

    {"role": "user", "content": "…"}                         the shape of ollama-batch-cluster
    {"id"?, "prompt" | "messages", "system"?, "model"?, …}   obcd's
    {"id"?, "embed", "model"?, …}                            obcd's, for vectors
    {"id"?, "complete", "suffix"?, "model"?, …}              obcd's, for a text to continue
    {"custom_id", "method", "url", "body"}                   OpenAI Batch's (`openai_request`)
    anything                                                 a row, if a template makes the prompts (`rows`)

No input, however damaged, raises anything but `LineError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TypeGuard

from obcd.core.request.openai.openai_request import is_asked, to_ours
from obcd.core.request.openai.other_vendors import why_foreign
from obcd.core.request.pictures import check_images
from obcd.core.request.records import Kind, Request
from obcd.core.request.rows import PLAIN, Reading, fill, is_blank
from obcd.core.request.tools import check_tool_calls, check_tools
from obcd.core.schema.schemas import check_schema
from obcd.core.schema.strict_json import DECODER, RepeatedKeyError, depth_of, place_of_bad_number, short_key
from obcd.core.schema.wrapping import unwrapped, why_no_schema
from obcd.errors import LineError

#: Deepest nesting of a line: real chat lines need six levels, a strict schema of ten levels in OpenAI's envelope 60.
MAX_DEPTH = 100
#: Longest `id`, in characters of its JSON form.
MAX_ID_LENGTH = 512
#: The id of a failed line is not repeated if it is longer; characters of its JSON.
MAX_FAILED_ID_LENGTH = 200
#: Longest name of a model, in characters.
MAX_MODEL_LENGTH = 200

#: Most answers of one prompt, texts of one line to embed, and likeliest tokens at a place (ollama server/routes.go).
MAX_COUNT, MAX_INPUTS, MAX_LOGPROBS = 100, 2048, 20

#: Largest value of an option that is not a whole number; Ollama keeps such values in 32 bits.
MAX_NUMBER = 1e38

ROLES = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = frozenset(("role", "content", "images", "thinking", "tool_calls", "tool_name", "tool_call_id"))
_ANSWER_KEYS = ("id", "model", "system", "options", "format", "think", "n", "logprobs", "top_logprobs")
#: {kind: the keys that an obcd line of this kind may have}
KIND_KEYS = {
    Kind.CHAT: frozenset((*_ANSWER_KEYS, "prompt", "messages", "images", "tools")),
    Kind.COMPLETE: frozenset((*_ANSWER_KEYS, "complete", "suffix", "raw")),
    Kind.EMBED: frozenset(("id", "model", "options", "embed", "dimensions")),
}
OUR_KEYS = KIND_KEYS[Kind.CHAT]
_PLAIN_KEYS = frozenset(("id", "prompt"))
THINK_LEVELS = ("low", "medium", "high", "max")

#: {`type` of OpenAI's response_format without a schema: `format`}
_OPENAI_FORMATS = {"json_object": "json", "text": ""}

_WHOLE, _NUMBER, _FLAG = "a whole number", "a number", "true or false"

#: {option: what it must be}, ollama api/types.go: Options and Runner, v0.33.
OPTION_TYPES = {
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"), _WHOLE),
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"), _WHOLE),
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p"), _NUMBER),
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), _NUMBER),
    "use_mmap": _FLAG,
    "stop": "a list of strings",
}
#: {option: (lowest, highest)} where Ollama accepts a value that ruins the request: num_ctx 0 is a 4-token context.
OPTION_RANGES = {"num_ctx": (16, 2**24), "num_predict": (1, 2**24)}
#: The whole numbers that Ollama can read.
WHOLE_RANGE = (-(2**63), 2**63 - 1)


def parse_line(raw: bytes, line: int, reading: Reading = PLAIN) -> Request:
    """Parse one line into a request.

    Args:
        raw: The line without its LF (a trailing CR is white space in JSON).
        line: Its number in the file, from 1.
        reading: How the lines of its job are read.

    Raises:
        LineError: With one sentence on what is wrong with the line; it never quotes the prompt.
    """
    document = parse_object(raw)
    if reading.template is not None:
        return _row_request(document, line, reading.template, reading.id_field)
    if is_asked(document):
        document = to_ours(document)
    if "embed" in document:
        return _embed_request(document, line)
    if "messages" in document or "prompt" in document:
        return _our_request(document, line)
    if "complete" in document:
        return _complete_request(document, line)
    if "role" in document or "content" in document:
        return _seed_request(document, line)
    raise LineError(
        why_foreign(document)
        or 'no prompt in it: a line needs `prompt`, `messages`, or `role` and `content` ({"prompt": "…"}); or `embed`'
    )


def id_of_failed(raw: bytes, line: int, reading: Reading, *, asks_openai: bool) -> object:
    """Return the user's id of a line that failed, or its number if it has no id that can be repeated.

    Args:
        raw: The line, which may not be a request at all.
        asks_openai: Whether the job is answered in OpenAI's form.
    """
    try:
        return parse_line(raw, line, reading).id
    except LineError:
        pass
    try:
        document = json.loads(raw)
        if not isinstance(document, dict):
            return line
        is_openai = reading.template is None and (is_asked(document) or (asks_openai and "custom_id" in document))
        value = document.get("custom_id" if is_openai else reading.id_field)
        length = len(json.dumps(value, allow_nan=False, ensure_ascii=False))  # Infinity and NaN are not JSON
    except (ValueError, RecursionError):
        return line
    has_none = value is None or (reading.template is not None and is_blank(value))
    return line if has_none or length > MAX_FAILED_ID_LENGTH else value


def parse_object(raw: bytes) -> dict[str, object]:
    """Parse one JSON object strictly: UTF-8, finite numbers, no repeated keys, bounded depth.

    Raises:
        LineError: If it is anything else.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8 at byte {error.start + 1}: save the file as UTF-8") from None
    if text.startswith("\ufeff"):
        raise LineError("a byte order mark in the middle of the file: remove it")
    try:
        document = DECODER.decode(text)
    except RepeatedKeyError:
        raise
    except LineError as error:
        place = place_of_bad_number(text)
        raise LineError(f"{error}: write null for `{place}`, or remove it" if place else str(error)) from None
    except json.JSONDecodeError as error:
        raise LineError(_json_sentence(error)) from None
    except RecursionError:
        raise LineError(f"nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, MemoryError):
        raise LineError("a number in it has too many digits") from None
    if not isinstance(document, dict):
        raise LineError(f'{_kind(document)} where an object is needed: {{"prompt": "…"}}')
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and depth_of(document) > MAX_DEPTH:
        raise LineError(f"nested deeper than {MAX_DEPTH} levels")
    return document


def check_options(options: object, place: str = "options") -> Mapping[str, object]:
    """Check Ollama options, of a line or of the configuration.

    Raises:
        LineError: If a key is unknown, of a wrong type or out of range; it names the key.
    """
    if not isinstance(options, dict):
        raise LineError(f"`{place}` must be an object, not {_kind(options)}")
    for key, value in options.items():
        needed = OPTION_TYPES.get(key)
        if needed is None:
            raise LineError(f"`{place}.{short_key(key)}` is not an option of Ollama")
        if not _fits(value, needed):
            is_fraction = needed is _WHOLE and isinstance(value, float)
            kind = "one with a point or an exponent" if is_fraction else _kind(value)
            raise LineError(f"`{place}.{key}` must be {needed}, not {kind}")
        low, high = OPTION_RANGES.get(key, WHOLE_RANGE)
        if needed is _WHOLE and not low <= value <= high:
            raise LineError(f"`{place}.{key}` is {value!r:.30}, outside {low} to {high}")
        if isinstance(value, float) and not math.isfinite(value):  # TOML has such values
            raise LineError(f"`{place}.{key}` must be a finite number, not {value}")
        if needed is _NUMBER and abs(value) > MAX_NUMBER:
            raise LineError(f"`{place}.{key}` is too large")
    return options


def check_format(value: object) -> Mapping[str, object] | str | None:
    """Check `format`: `"json"`, a JSON schema, "" (any text, whatever the job requires), or null (no value)."""
    return _read_format(value)[0]


def _read_format(value: object) -> tuple[Mapping[str, object] | str | None, tuple[str, ...]]:
    """Return the checked `format`, without an envelope that it may have, and remarks about that."""
    if value is None or value in ("", "json"):
        return value, ()
    if not isinstance(value, dict) or not value:
        raise LineError('`format` must be "json" or a JSON schema (an object)')
    if value.keys() == {"type"} and value["type"] in _OPENAI_FORMATS:
        return _OPENAI_FORMATS[value["type"]], ()
    schema, path = unwrapped(value)
    why = why_no_schema(schema) or check_schema(schema)
    if why:
        raise LineError(f"`format` is not a JSON schema that can be held to: {why}")
    return schema, (f"`format` is an envelope around a JSON schema: `format.{path}` is used",) if path else ()


def check_think(value: object) -> bool | str | None:
    """Check `think`: true, false, or a level."""
    if value is None or isinstance(value, bool) or value in THINK_LEVELS:
        return value
    raise LineError(f"`think` must be true, false, or one of {', '.join(THINK_LEVELS)}")


def check_count(value: object, place: str = "n") -> int | None:
    """Check the number of answers that a prompt gets: null, or 1 to `MAX_COUNT`."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_COUNT):
        return value
    raise LineError(f"`{place}` must be a whole number from 1 to {MAX_COUNT}")


def _row_request(row: dict[str, object], line: int, template: str, id_field: str) -> Request:
    """Return the request of a row: all its fields are data, whatever their names, and all but the id are echoed."""
    prompt = fill(template, row)
    return Request(
        line=line,
        id=line if is_blank(row.get(id_field)) else _id(row, line, id_field),
        prompt=prompt,
        messages=[{"role": "user", "content": prompt}],
        extra={key: value for key, value in row.items() if key != id_field},
    )


def _our_request(document: dict[str, object], line: int) -> Request:
    prompt, messages = document.get("prompt"), document.get("messages")
    if document.keys() <= _PLAIN_KEYS:  # as most lines are: no other key has to be checked, at three times the cost
        text = _text(prompt, "prompt")
        return Request(line=line, id=_id(document, line), prompt=text, messages=[{"role": "user", "content": text}])
    if prompt is not None and messages is not None:
        raise LineError("both `prompt` and `messages`: a line has one of them")
    if messages is None:
        message: dict[str, object] = {"role": "user", "content": _text(prompt, "prompt")}
        if document.get("images") is not None:
            message["images"] = check_images(document["images"], "images")
        messages = [message]
    elif document.get("images") is not None:
        raise LineError("`images` belongs inside a message if a line has `messages`")
    else:
        messages = _messages(messages)
        if document.get("system") and messages[0]["role"] == "system":
            raise LineError("both `system` and a message of the role system: a line has one of them")
    form, remarks = _read_format(document.get("format"))
    return Request(
        line=line,
        id=_id(document, line),
        prompt=_last_prompt(messages),
        messages=messages,
        model=_model(document),
        system=_optional_text(document, "system", may_be_empty=True),
        options=_options(document),
        format=form,
        remarks=remarks,
        think=check_think(document.get("think")),
        tools=check_tools(document.get("tools")),
        count=check_count(document["n"]) if "n" in document else None,
        logprobs=_logprobs(document) if "logprobs" in document or "top_logprobs" in document else None,
        extra={key: value for key, value in document.items() if key not in OUR_KEYS},
    )


def _embed_request(document: dict[str, object], line: int) -> Request:
    _refuse_other_kinds(document, Kind.EMBED, "embed")
    inputs = document["embed"]
    given = inputs if isinstance(inputs, list) else [inputs]
    if not 1 <= len(given) <= MAX_INPUTS:
        raise LineError(f"`embed` is a list of {len(given)} texts: it may have 1 to {MAX_INPUTS}, split it")
    texts = [
        _text(text, f"`embed[{number}]`" if isinstance(inputs, list) else "`embed`")
        for number, text in enumerate(given)
    ]
    dimensions = document.get("dimensions")
    if dimensions is not None and not (_is_whole(dimensions) and 1 <= dimensions <= 2**16):
        raise LineError(f"`dimensions` must be a whole number from 1 to {2**16}")
    return Request(
        line=line,
        id=_id(document, line),
        prompt=texts[0],
        messages=[],
        model=_model(document),
        options=_options(document),
        kind=Kind.EMBED,
        inputs=tuple(texts),
        dimensions=dimensions,
        extra={key: value for key, value in document.items() if key not in KIND_KEYS[Kind.EMBED]},
    )


def _complete_request(document: dict[str, object], line: int) -> Request:
    _refuse_other_kinds(document, Kind.COMPLETE, "complete")
    raw = document.get("raw") or False
    if not isinstance(raw, bool):
        raise LineError(f"`raw` must be true or false, not {_kind(raw)}")
    if raw and document.get("system"):
        raise LineError("both `raw` and `system`: a raw prompt is sent alone")
    form, remarks = _read_format(document.get("format"))
    return Request(
        line=line,
        id=_id(document, line),
        prompt=_text(document["complete"], "`complete`"),
        messages=[],
        model=_model(document),
        system=_optional_text(document, "system", may_be_empty=True),
        options=_options(document),
        format=form,
        remarks=remarks,
        think=check_think(document.get("think")),
        kind=Kind.COMPLETE,
        suffix=_optional_text(document, "suffix", may_be_empty=True),
        raw=raw,
        count=check_count(document["n"]) if "n" in document else None,
        logprobs=_logprobs(document),
        extra={key: value for key, value in document.items() if key not in KIND_KEYS[Kind.COMPLETE]},
    )


def _refuse_other_kinds(document: dict[str, object], kind: Kind, door: str) -> None:
    """Refuse keys that Ollama would accept with another kind of prompt, and would ignore here."""
    others = frozenset().union(*KIND_KEYS.values()) - KIND_KEYS[kind]
    if strange := sorted(others.intersection(document)):
        raise LineError(f"`{strange[0]}` has no effect beside `{door}`: remove it, or write a separate line")


def _seed_request(document: dict[str, object], line: int) -> Request:
    message = {key: value for key, value in document.items() if key in MESSAGE_KEYS}
    messages = _messages([message])
    extra = {key: value for key, value in document.items() if key not in MESSAGE_KEYS and key != "id"}
    return Request(line=line, id=_id(document, line), prompt=_last_prompt(messages), messages=messages, extra=extra)


def _messages(messages: object) -> list[dict[str, object]]:
    if not isinstance(messages, list) or not messages:
        raise LineError("`messages` must be a list of at least one message")
    for number, message in enumerate(messages):
        place = f"messages[{number}]" if len(messages) > 1 else "the message"
        if not isinstance(message, dict):
            raise LineError(f"{place} must be an object, not {_kind(message)}")
        unknown = set(message) - MESSAGE_KEYS
        if unknown:
            raise LineError(f"{place} has a key that Ollama does not know: `{short_key(min(unknown))}`")
        if message.get("role") not in ROLES:
            raise LineError(f"{place} needs a `role`, one of {', '.join(ROLES)}")
        if message["role"] in ("user", "system") or "content" not in message:
            may_be_empty = bool(message.get("tool_calls") or message.get("images"))
            _text(message.get("content", ""), f"the content of {place}", may_be_empty=may_be_empty)
        elif not isinstance(message["content"], str):
            raise LineError(f"the content of {place} must be a string, not {_kind(message['content'])}")
        if message.get("images") is not None:
            message["images"] = check_images(message["images"], f"the images of {place}")
        if message.get("tool_calls") is not None:
            check_tool_calls(message["tool_calls"], place)
    return messages


def _last_prompt(messages: list[dict[str, object]]) -> str:
    spoken = [message.get("content") or "" for message in messages if message["role"] == "user"]
    return str((spoken or [messages[-1].get("content") or ""])[-1])


def _options(document: dict[str, object]) -> Mapping[str, object]:
    return check_options(document["options"]) if document.get("options") is not None else {}


def _logprobs(document: dict[str, object]) -> int | None:
    wanted, most = document.get("logprobs"), document.get("top_logprobs")
    if wanted is not None and not isinstance(wanted, bool):
        raise LineError(f"`logprobs` must be true or false, not {_kind(wanted)}")
    if most is None:
        return 0 if wanted else None
    if not (_is_whole(most) and 0 <= most <= MAX_LOGPROBS):
        raise LineError(f"`top_logprobs` must be a whole number from 0 to {MAX_LOGPROBS}")
    if not wanted:
        raise LineError("`top_logprobs` without `logprobs`: true")
    return most


def _text(value: object, place: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise LineError(f"{place} must be a string, not {_kind(value)}")
    if not may_be_empty and not value.strip():
        raise LineError(f"{place} is empty")
    return value


def _optional_text(document: dict[str, object], key: str, *, may_be_empty: bool = False) -> str | None:
    return None if document.get(key) is None else _text(document[key], f"`{key}`", may_be_empty=may_be_empty)


def _model(document: dict[str, object]) -> str | None:
    model = _optional_text(document, "model")
    if model is not None and (len(model) > MAX_MODEL_LENGTH or not model.isprintable()):
        raise LineError(f"`model` is not a model's name: it must have at most {MAX_MODEL_LENGTH} printable characters")
    return model


def _id(document: dict[str, object], line: int, key: str = "id") -> object:
    value = document.get(key)
    if value is None:
        return line
    if len(json.dumps(value)) > MAX_ID_LENGTH:
        raise LineError(f"`{short_key(key)}` is longer than {MAX_ID_LENGTH} characters")
    return value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _fits(value: object, needed: str) -> bool:
    if needed is _FLAG:
        return isinstance(value, bool)
    if needed is _WHOLE:
        return _is_whole(value)
    if needed is _NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _kind(value: object) -> str:
    """Return the kind of a JSON value for a sentence; never its content."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else "a date")  # a date of TOML


def _json_sentence(error: json.JSONDecodeError) -> str:
    if error.msg == "Extra data":
        return f"not JSON: a second value begins at column {error.colno}"
    return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
