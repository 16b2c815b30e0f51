"""Convert prompt lines from one shape to another: the seed's, obcd's, OpenAI Batch's, rows of a table. Pure.

One line at a time. The written line is read again and must request the same; otherwise it is refused, so nothing is
lost silently. A table holds texts except for the cells of `csv_cells.JSON_CELLS`: an id or an echoed key that is not a
text becomes one, and if a line lacks an echoed key, or has null there, its cell is an empty text.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields, replace
from enum import StrEnum

from obcd.core.request.conversation.messages import read_message, read_messages
from obcd.core.request.json_objects import parse_object
from obcd.core.request.keys.dropped_keys import Dropped
from obcd.core.request.lines import KIND_KEYS, MESSAGE_KEYS, parse_line, translate
from obcd.core.request.openai.constraints import EFFORTS
from obcd.core.request.openai.openai_request import CHAT, COMPLETIONS, EMBEDDINGS
from obcd.core.request.openai.parts import NUMBERS, WHOLES
from obcd.core.request.records import Kind, Request
from obcd.core.tables.csv_cells import JSON_CELLS, keys_of, read_cells, write_cell
from obcd.errors import LineError
from obcd.text import printable


class LineShape(StrEnum):
    """The shapes in which a line can be written."""

    SEED = "seed"  # {"role": "user", "content": "…"}
    OURS = "ours"  # {"prompt": "…"}
    OPENAI = "openai"  # {"custom_id": …, "method": …, "url": …, "body": …}
    TABLE = "table"  # a row of CSV


#: {option of Ollama: parameter of OpenAI's}
_PARAMETERS = {option: key for key, option in {**NUMBERS, **WHOLES, "stop": "stop"}.items()}
#: Keys that may have a meaning in an obcd line of any kind; others are always echoed.
_WISHES = frozenset().union(*KIND_KEYS.values())
#: {part of a request: the key of a line for it}, if they have different names
_KEYS = {"count": "n", "inputs": "embed"}
_MEDIA = {"iVBOR": "image/png", "/9j/": "image/jpeg", "UklGR": "image/webp"}


def read_ours(raw: bytes, line: int) -> dict[str, object]:
    """Return a line of any shape as an obcd line, without keys that have no effect.

    Raises:
        LineError: If it is not valid.
    """
    number = parse_line(raw, line).id
    document, dropped = parse_object(raw), Dropped()
    translated = translate(document, dropped)
    if translated is not None:
        document = {**translated.ours, **translated.echoed}
        _refuse_wishes(translated.echoed)
    elif not _is_ours(document):
        given = {key: document.pop(key) for key in list(document) if key in MESSAGE_KEYS and key != "id"}
        message = read_message(given, dropped).messages[0]
        _refuse_wishes({key: value for key, value in document.items() if key != "id"})
        is_simple = message["role"] == "user" and message.keys() <= {"role", "content", "images"}
        if is_simple and message.get("content"):
            document = {"prompt": message["content"], "images": message.get("images"), **document}
        else:
            document = {"messages": [message], **document}
    elif document.get("messages") is not None:
        conversation = read_messages(document["messages"], "messages", dropped)
        document["messages"] = conversation.messages
        if conversation.has_no_system and document.get("system") is None:
            document["system"] = ""
    if document.get("id") is None and "custom_id" in document and document["custom_id"] == number:
        document = {"id": number, **{key: document[key] for key in document if key not in ("id", "custom_id")}}
    asked = {key: value for key, value in document.items() if value is not None}
    keys = keys_of(asked)
    return {key: value for key, value in document.items() if value is not None or key not in keys}


def _refuse_wishes(echoed: Mapping[str, object]) -> None:
    """Refuse keys without an effect in the line's shape, which would have one in obcd's.

    Raises:
        LineError: Naming the first one.
    """
    if clash := sorted(_WISHES.intersection(echoed)):
        raise LineError(f"`{clash[0]}` is only echoed in a line of that shape, and would have an effect in obcd's")


def write_line(ours: Mapping[str, object], line: int, shape: LineShape, model: str = "") -> bytes:
    """Return an obcd line in another shape, without its LF.

    Args:
        line: Its number, which is its id if it has none.
        model: For OpenAI's lines: the model if the line does not name one.

    Raises:
        LineError: With one sentence, naming what has no place there.
    """
    if shape is LineShape.SEED:
        document = _to_seed(ours)
    elif shape is LineShape.OPENAI:
        document = _to_openai(ours, line, model)
    else:
        document = dict(ours)
    raw = json.dumps(document, ensure_ascii=True).encode()
    _check_same(ours, raw, line, model if shape is LineShape.OPENAI else "")
    return raw


def write_cells(ours: Mapping[str, object], line: int, columns: Sequence[str]) -> list[str]:
    """Return an obcd line as the cells of a table.

    Raises:
        LineError: Naming what has no place there.
    """
    for key, value in ours.items():
        if key not in columns:
            raise LineError(f"`{key[:40]}` has no column: the first line had none; name all with --columns")
        if value == "" and key in _WISHES and key not in JSON_CELLS:
            raise LineError(f"`{key}` is an empty text, which a table cannot distinguish from a missing one")
    keys = keys_of(ours)
    cells = [write_cell(key, ours.get(key), keys) for key in columns]
    back = json.dumps(read_cells(dict(zip(columns, cells, strict=True)))).encode()
    texts = {key: cell for key, cell in zip(columns, cells, strict=True) if _is_text(key, ours, keys)}
    _check_same({**ours, **texts}, back, line, "")
    return cells


def _is_text(key: str, ours: Mapping[str, object], keys: Container[str]) -> bool:
    """Return whether a table makes a text of a value: of an id, and of an echoed value, present or not."""
    return key not in _WISHES or (key in ours and (key == "id" or key not in keys))


def columns_of(header: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that rows of a table have as obcd lines: the same, except for those of the seed."""
    if not {"prompt", "messages", "complete", "embed"}.isdisjoint(header) or "content" not in header:
        return tuple(header)
    return tuple("prompt" if name == "content" else name for name in header if name != "role")


def _is_ours(document: Mapping[str, object]) -> bool:
    return any(key in document for key in ("prompt", "messages", "complete", "embed"))


def _to_seed(ours: Mapping[str, object]) -> dict[str, object]:
    document = dict(ours)
    if "prompt" in document:
        message = {"role": "user", "content": document.pop("prompt")}
        if "images" in document:
            message["images"] = document.pop("images")
    else:
        messages = document.pop("messages", None)
        if not isinstance(messages, list):
            raise LineError("a line of the seed is for chats: `complete` and `embed` have no place in it")
        if len(messages) > 1:
            raise LineError("a line of the seed has one message: `messages` has no place in it")
        message = messages[0]
    if lost := sorted((_WISHES - {"id"}).intersection(document)):
        raise LineError(f"`{lost[0]}` has no place in a line of the seed: set it in a profile")
    return {**message, **document}


def _to_openai(ours: Mapping[str, object], line: int, model: str) -> dict[str, object]:
    number = ours.get("id", line)
    if not isinstance(number, str | int) or isinstance(number, bool) or number == "":
        raise LineError("`id` must be a text or a whole number to be a custom_id")
    chosen = ours.get("model") or model
    if not chosen:
        raise LineError("no model in it: name one with --model")
    known = keys_of(ours)
    if known != KIND_KEYS[Kind.CHAT]:  # beside other kinds no key of obcd is echoed
        known = _WISHES
    wishes = {key: value for key, value in ours.items() if key in known and key not in ("id", "model")}
    if "embed" in wishes:
        url, body = EMBEDDINGS, {"input": wishes.pop("embed"), "dimensions": wishes.pop("dimensions", None)}
    elif "complete" in wishes:
        url, body = COMPLETIONS, _completion(wishes)
    else:
        url, body = CHAT, _chat(wishes)
    options = wishes.pop("options", None)
    body |= _parameters(options if isinstance(options, dict) else {}, url) | {"n": wishes.pop("n", None)}
    if wishes:
        raise LineError(f"`{min(wishes)}` has no place in a line for {url}")
    echoed = {key: value for key, value in ours.items() if key not in known}
    body = {"model": chosen, **{key: value for key, value in body.items() if value is not None}}
    return {"custom_id": str(number), "method": "POST", "url": url, "body": body, **echoed}


def _chat(wishes: dict[str, object]) -> dict[str, object]:
    messages = wishes.pop("messages", None)
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": wishes.pop("prompt"), "images": wishes.pop("images", None)}]
    system = wishes.pop("system", None)
    if system == "":
        raise LineError("`system` is an empty text, which has no place in a line of OpenAI's")
    opening = [{"role": "system", "content": system}] if system is not None else []
    body = {
        "messages": opening + [_message(message, f"messages[{place}]") for place, message in enumerate(messages)],
        "tools": wishes.pop("tools", None),
        "logprobs": wishes.pop("logprobs", None),
        "top_logprobs": wishes.pop("top_logprobs", None),
    }
    wanted = wishes.pop("format", None)
    if wanted == "json":
        body["response_format"] = {"type": "json_object"}
    elif wanted == "":
        body["response_format"] = {"type": "text"}
    elif wanted:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}
    think = wishes.pop("think", None)
    if think is not None:
        efforts = {level: effort for effort, level in EFFORTS.items()}
        if think not in efforts:
            raise LineError("`think`: true has no place in a line of OpenAI's: write a level, such as low")
        body["reasoning_effort"] = efforts[think]
    return body


def _message(message: Mapping[str, object], place: str) -> dict[str, object]:
    if lost := sorted(message.keys() - {"role", "content", "images"}):
        raise LineError(f"`{place}.{lost[0]}` is not converted: write the line for OpenAI yourself")
    content, images = message.get("content", ""), message.get("images")
    if not isinstance(images, list) or not images:
        return {"role": message["role"], "content": content}
    parts: list[dict[str, object]] = [{"type": "text", "text": content}] if content else []
    return {"role": message["role"], "content": parts + [_picture(image) for image in images]}


def _picture(image: str) -> dict[str, object]:
    media = next((media for start, media in _MEDIA.items() if image.startswith(start)), "image/png")
    url = image if image[:5].lower() == "data:" else f"data:{media};base64,{image}"
    return {"type": "image_url", "image_url": {"url": url}}


def _completion(wishes: dict[str, object]) -> dict[str, object]:
    suffix, has_template = wishes.pop("suffix", None), not wishes.pop("raw", False)
    if suffix is None and has_template:
        raise LineError("`complete` goes through the model's template here, and not at OpenAI: set `raw`")
    logprobs, most = wishes.pop("logprobs", None), wishes.pop("top_logprobs", None)
    return {
        "prompt": wishes.pop("complete"),
        "suffix": suffix,
        "logprobs": most if most is not None else (0 if logprobs else None),
    }


def _parameters(options: Mapping[str, object], url: str) -> dict[str, object]:
    body: dict[str, object] = {}
    for option, value in options.items():
        if option == "num_predict":
            body["max_completion_tokens" if url == CHAT else "max_tokens"] = value
        elif option in _PARAMETERS:
            body[_PARAMETERS[option]] = value
        else:
            raise LineError(f"`options.{option}` has no place in a line of OpenAI's: set it in a profile")
    return body


def _check_same(ours: Mapping[str, object], raw: bytes, line: int, model: str) -> None:
    """Compare the written line with the original.

    Raises:
        LineError: If it would request something else.
    """
    before = _settled(parse_line(json.dumps(dict(ours)).encode(), line), model)
    try:
        after = _settled(parse_line(raw, line), model)
    except LineError as error:
        raise LineError(f"it would be refused in that shape ({error}): leave it as it is") from None
    if before != after:
        raise LineError(f"{_difference(before, after)} would mean something else in that shape: leave it as it is")


def _difference(before: Request, after: Request) -> str:
    """Return a key by which two requests differ; the prompt's key only if nothing else differs."""
    compared = [item.name for item in fields(Request) if item.compare]
    parts = [name for name in compared if getattr(before, name) != getattr(after, name)]
    part = next((name for name in parts if name not in ("prompt", "messages")), parts[0])
    if part == "extra":
        keys = (
            key for key in {**before.extra, **after.extra} if before.extra.get(key, ...) != after.extra.get(key, ...)
        )
        part = printable(next(keys))[:40]
    return f"`{_KEYS.get(part, part)}`"


def _settled(request: Request, model: str) -> Request:
    """Return a request in a normal form: one of several ways to say the same."""
    if request.kind is Kind.CHAT and request.system:
        opening: dict[str, object] = {"role": "system", "content": request.system}
        request = replace(request, system=None, messages=[opening, *request.messages])
    messages = [_without_no_images(message) for message in request.messages]
    number = str(request.id) if isinstance(request.id, int) and not isinstance(request.id, bool) else request.id
    return replace(request, id=number, model=request.model or model or None, messages=messages)


def _without_no_images(message: Mapping[str, object]) -> dict[str, object]:
    """Return a message without an empty list of pictures, which has no effect."""
    return {key: value for key, value in message.items() if key != "images" or value}
