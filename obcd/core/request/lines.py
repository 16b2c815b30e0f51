"""Parse one line of a prompt file, from bytes to a request; each refusal is one sentence.

The keys of a line determine its shape (etc/manual/formats.md):

    {"role": "user", "content": "…"}                         the shape of ollama-batch-cluster
    {"id"?, "prompt" | "messages", "system"?, "model"?, …}   obcd's
    {"id"?, "embed", "model"?, …}                            obcd's, for vectors
    {"id"?, "complete", "suffix"?, "model"?, …}              obcd's, for a text to continue
    {"conversations" | "conversation" | "turns", …}          ShareGPT's and its relatives' (`data_sets`)
    {"custom_id", "body", "method"?, "url"?}                 OpenAI Batch's and its relatives' (`openai_request`)
    {"custom_id", "params"}                                  Anthropic's Message Batches' (`anthropic_batches`)
    anything                                                 a row, if a template makes the prompts (`rows`)

No input, however damaged, raises anything but `LineError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from obcd.core.request.conversation import data_sets
from obcd.core.request.conversation.messages import read_message, read_messages
from obcd.core.request.json_objects import is_conversation, kind_of, parse_object
from obcd.core.request.keys.dropped_keys import Dropped, why_misspelt
from obcd.core.request.keys.near_keys import why_no_prompt
from obcd.core.request.openai import anthropic_batches
from obcd.core.request.openai.openai_request import LINE_KEYS, is_asked, to_ours
from obcd.core.request.openai.other_vendors import why_foreign
from obcd.core.request.pictures import check_images
from obcd.core.request.records import MAX_COUNT, Kind, Request
from obcd.core.request.rows import PLAIN, Reading
from obcd.core.request.templates import fill, is_blank
from obcd.core.request.tools import check_tools
from obcd.core.schema.schemas import check_schema
from obcd.core.schema.strict_json import short_key
from obcd.core.schema.wrapping import unwrapped, why_no_schema
from obcd.errors import LineError

#: Longest `id`, in characters of its JSON form.
MAX_ID_LENGTH = 512
#: The id of a failed line is not repeated if it is longer; characters of its JSON.
MAX_FAILED_ID_LENGTH = 200
#: Longest name of a model, in characters.
MAX_MODEL_LENGTH = 200

#: Most texts of one line to embed, and likeliest tokens at a place (ollama server/routes.go).
MAX_INPUTS, MAX_LOGPROBS = 2048, 20

#: Largest value of an option that is not a whole number; Ollama keeps such values in 32 bits.
MAX_NUMBER = 1e38

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
#: Keys of which a line of obcd or of the seed has at least one.
OURS_DOORS = ("prompt", "messages", "complete", "embed", "role", "content")
#: The key of `extra` under which a message that was dropped is echoed.
LAST_ANSWER = "last_assistant"
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


@dataclass(frozen=True, slots=True)
class Translated:
    """A line of another shape, as an obcd line.

    Attributes:
        ours: The obcd line with the same request.
        echoed: Keys that have no effect in a line of that shape, although they would have one beside `ours`.
    """

    ours: dict[str, object]
    echoed: dict[str, object]


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
    if document.keys() <= _PLAIN_KEYS and isinstance(document.get("prompt"), str):  # as most lines are
        return _plain_request(document, line)
    dropped = Dropped(reading.ignore)
    request = _request(document, line, dropped)
    if reading.drop_last_assistant:
        request = _without_last_answer(request)
    return replace(request, dropped=tuple(dropped.keys)) if dropped.keys else request


def translate(document: dict[str, object], dropped: Dropped) -> Translated | None:
    """Return the obcd line with the same request as a line of another service or of a data set; None for other lines.

    Raises:
        LineError: Naming what has no equivalent.
    """
    if is_asked(document):
        return Translated(to_ours(document, dropped), {})
    if is_conversation(document.get("prompt")) and document.get("messages") is None:  # as TRL has it
        return Translated(
            {**{key: document[key] for key in document if key != "prompt"}, "messages": document["prompt"]}, {}
        )
    if any(document.get(door) is not None for door in OURS_DOORS):
        return None
    if anthropic_batches.is_asked(document):
        return Translated(anthropic_batches.to_ours(document, dropped), {})
    if data_sets.is_conversation(document):
        return Translated(*data_sets.to_ours(document, dropped))
    return None


def _request(document: dict[str, object], line: int, dropped: Dropped) -> Request:
    translated = translate(document, dropped)
    if translated is not None:
        document = translated.ours
    if "embed" in document:
        request = _embed_request(document, line, dropped)
    elif "messages" in document or "prompt" in document:
        request = _our_request(document, line, dropped)
    elif "complete" in document:
        request = _complete_request(document, line, dropped)
    elif "role" in document:
        request = _seed_request(document, line, dropped)
    else:
        raise _no_prompt(document)
    if translated is not None and translated.echoed:
        return replace(request, extra={**request.extra, **translated.echoed})
    return request


def _no_prompt(document: dict[str, object]) -> LineError:
    for key in document:
        if misspelt := why_misspelt(key, (*LINE_KEYS, *data_sets.LISTS)):
            return LineError(f"the key `{short_key(key)}`: {misspelt}")
    return LineError(why_foreign(document) or why_no_prompt(document))


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
        if value is None and reading.template is None and _is_custom_id(document.get("custom_id")):
            value = document["custom_id"]
        length = len(json.dumps(value, allow_nan=False, ensure_ascii=False))  # Infinity and NaN are not JSON
    except (ValueError, RecursionError):
        return line
    has_none = value is None or (reading.template is not None and is_blank(value))
    return line if has_none or length > MAX_FAILED_ID_LENGTH else value


def check_options(options: object, place: str = "options", dropped: Dropped | None = None) -> Mapping[str, object]:
    """Check Ollama options, of a line or of the configuration; return them without those that the profile ignores.

    Raises:
        LineError: If a key is unknown, of a wrong type or out of range; it names the key.
    """
    if not isinstance(options, dict):
        raise LineError(f"`{place}` must be an object, not {kind_of(options)}")
    if dropped is not None:
        options = {
            key: value for key, value in options.items() if key in OPTION_TYPES or not dropped.excuses(place, key)
        }
    for key, value in options.items():
        needed = OPTION_TYPES.get(key)
        if needed is None:
            raise LineError(f"`{place}.{short_key(key)}` is not an option of Ollama")
        if not _fits(value, needed):
            is_fraction = needed is _WHOLE and isinstance(value, float)
            kind = "one with a point or an exponent" if is_fraction else kind_of(value)
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


def _plain_request(document: dict[str, object], line: int) -> Request:
    """Return the request of a line that has only a prompt, at a third of the cost."""
    text = _text(document["prompt"], "prompt")
    return Request(line=line, id=_id(document, line), prompt=text, messages=[{"role": "user", "content": text}])


def _our_request(document: dict[str, object], line: int, dropped: Dropped) -> Request:
    prompt, messages = document.get("prompt"), document.get("messages")
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
        conversation = read_messages(messages, "messages", dropped)
        messages = conversation.messages
        if document.get("system") and messages[0]["role"] == "system":
            raise LineError("both `system` and a message of the role system: a line has one of them")
        if conversation.has_no_system and document.get("system") is None:
            document = {**document, "system": ""}
    form, remarks = _read_format(document.get("format"))
    return Request(
        line=line,
        id=_id(document, line),
        prompt=_last_prompt(messages),
        messages=messages,
        model=_model(document),
        system=_optional_text(document, "system", may_be_empty=True),
        options=_options(document, dropped),
        format=form,
        remarks=remarks,
        think=check_think(document.get("think")),
        tools=check_tools(document.get("tools")),
        count=check_count(document["n"]) if "n" in document else None,
        logprobs=_logprobs(document) if "logprobs" in document or "top_logprobs" in document else None,
        extra={key: value for key, value in document.items() if key not in OUR_KEYS},
    )


def _embed_request(document: dict[str, object], line: int, dropped: Dropped) -> Request:
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
        options=_options(document, dropped),
        kind=Kind.EMBED,
        inputs=tuple(texts),
        dimensions=dimensions,
        extra={key: value for key, value in document.items() if key not in KIND_KEYS[Kind.EMBED]},
    )


def _complete_request(document: dict[str, object], line: int, dropped: Dropped) -> Request:
    _refuse_other_kinds(document, Kind.COMPLETE, "complete")
    raw = document.get("raw") or False
    if not isinstance(raw, bool):
        raise LineError(f"`raw` must be true or false, not {kind_of(raw)}")
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
        options=_options(document, dropped),
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


def _seed_request(document: dict[str, object], line: int, dropped: Dropped) -> Request:
    message = {key: value for key, value in document.items() if key in MESSAGE_KEYS}
    messages = read_message(message, dropped).messages
    extra = {key: value for key, value in document.items() if key not in MESSAGE_KEYS and key != "id"}
    return Request(line=line, id=_id(document, line), prompt=_last_prompt(messages), messages=messages, extra=extra)


def _last_prompt(messages: list[dict[str, object]]) -> str:
    spoken = [message.get("content") or "" for message in messages if message["role"] == "user"]
    return str((spoken or [messages[-1].get("content") or ""])[-1])


def ends_with_answer(request: Request) -> bool:
    """Return whether the last message of a conversation is the assistant's."""
    return bool(request.messages) and request.messages[-1]["role"] == "assistant"


def _without_last_answer(request: Request) -> Request:
    """Return the conversation without a last message of the assistant, which is echoed instead."""
    if not ends_with_answer(request):
        return request
    *messages, last = request.messages
    if not messages:
        raise LineError("the assistant's message is the only one: with drop_last_assistant there is nothing to answer")
    return replace(request, messages=messages, extra={**request.extra, LAST_ANSWER: last})


def _options(document: dict[str, object], dropped: Dropped) -> Mapping[str, object]:
    return check_options(document["options"], dropped=dropped) if document.get("options") is not None else {}


def _logprobs(document: dict[str, object]) -> int | None:
    wanted, most = document.get("logprobs"), document.get("top_logprobs")
    if wanted is not None and not isinstance(wanted, bool):
        raise LineError(f"`logprobs` must be true or false, not {kind_of(wanted)}")
    if most is None:
        return 0 if wanted else None
    if not (_is_whole(most) and 0 <= most <= MAX_LOGPROBS):
        raise LineError(f"`top_logprobs` must be a whole number from 0 to {MAX_LOGPROBS}")
    if not wanted and most:
        raise LineError("`top_logprobs` without `logprobs`: true")
    return most if wanted else None


def _text(value: object, place: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise LineError(f"{place} must be a string, not {kind_of(value)}")
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
        value = document.get("custom_id")
        return value if _is_custom_id(value) else line
    if (type(value) is int and abs(value) < 2**63) or (isinstance(value, str) and len(value) < MAX_ID_LENGTH // 12):
        return value  # as most are: no need to write it to know its length, 12 bytes a character at most
    if len(json.dumps(value)) > MAX_ID_LENGTH:
        raise LineError(f"`{short_key(key)}` is longer than {MAX_ID_LENGTH} characters")
    return value


def _is_custom_id(value: object) -> bool:
    """Return whether the `custom_id` of a line that has no `id` is its id; it is echoed in any case."""
    is_id = _is_whole(value) or (isinstance(value, str) and bool(value))
    return is_id and len(json.dumps(value)) <= MAX_ID_LENGTH


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
