"""The bytes of one line as a JSON object: strictly, with a sentence for what is not one. Pure."""

from __future__ import annotations

import json
import re
from typing import TypeGuard

from obcd.core.schema.strict_json import DECODER, RepeatedKeyError, depth_of, place_of_bad_number
from obcd.errors import LineError
from obcd.text import describe_encoding

#: Deepest nesting of a line: real chat lines need six levels, a strict schema of ten levels in OpenAI's envelope 60.
MAX_DEPTH = 100
#: What a blank line consists of, and what may stand around an element of an array or a sequence (RS: RFC 7464).
_NOTHING, _AROUND = b" \t\n\r\v\f\x1a\x1e", " \t\n\r\x1a\x1e"
_COMMENTS = ("//", "#", "/*")
#: What may be missing its end behind the place of an error: nothing, a number, a word, an escape.
_UNFINISHED = re.compile(r"[-+.\w\\]{0,10}")


def is_blank_line(raw: bytes) -> bool:
    """Return whether a line, or a part of one, holds nothing: white space, or marks of DOS and of sequences."""
    return not raw.strip(_NOTHING)


def parse_object(raw: bytes) -> dict[str, object]:
    """Parse one JSON object strictly: UTF-8, finite numbers, no repeated keys, bounded depth.

    A comma before or behind the object is passed over: such a line is an element of an array without its brackets. A
    list of messages is a conversation.

    Raises:
        LineError: If it is anything else.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = describe_encoding(raw).removeprefix("not UTF-8")
        raise LineError(f"not UTF-8 at byte {error.start + 1}{what}") from None
    if text.startswith("\ufeff"):
        raise LineError("a byte order mark in the middle of the file: remove it")
    document = _parse(text)
    if not isinstance(document, dict):
        if not _has_roles(document):
            raise LineError(f'{kind_of(document)} where an object is needed: {{"prompt": "…"}}')
        document = dict[str, object](messages=document)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and depth_of(document) > MAX_DEPTH:
        raise LineError(f"nested deeper than {MAX_DEPTH} levels")
    return document


def _parse(text: str) -> object:
    """Parse one JSON value strictly.

    Raises:
        LineError: If it is not valid.
    """
    try:
        return _decode(text)
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


def _decode(text: str) -> object:
    """Decode a text without what may stand around an element of an array."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError:
        bare = text.strip(_AROUND)
        bare = bare.removeprefix(",").removesuffix(",").strip(_AROUND)
        if len(bare) == len(text.strip(" \t\r\n")):
            raise
        try:
            return DECODER.decode(bare)
        except json.JSONDecodeError:
            pass
        raise


def may_go_on(raw: bytes) -> bool:
    """Return whether a line that is not a JSON object may be the beginning of one: its fault is its end."""
    if b"\0" in raw:  # as a crash leaves it
        return True
    try:
        text = raw.decode("utf-8").lstrip("\ufeff").strip(_AROUND)
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    try:
        DECODER.decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # the rest of something else, unless it is a comment
            return not text.startswith(_COMMENTS, error.pos)
        is_begun = text.startswith(("{", ",", "["))
        return is_begun and (error.msg.startswith("Unterminated") or _UNFINISHED.fullmatch(text, error.pos) is not None)
    except (LineError, ValueError, RecursionError, MemoryError):
        return True
    return False


def _has_roles(document: object) -> TypeGuard[list[dict[str, object]]]:
    return is_conversation(document) and all("role" in message for message in document)


def is_conversation(prompt: object) -> TypeGuard[list[dict[str, object]]]:
    """Return whether a value is a list of objects, as messages are."""
    return isinstance(prompt, list) and bool(prompt) and all(isinstance(message, dict) for message in prompt)


def kind_of(value: object) -> str:
    """Return the kind of a JSON value for a sentence; never its content."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else "a date")  # a date of TOML


def _is_comment(error: json.JSONDecodeError) -> bool:
    """Return whether a comment stands where JSON does not go on; a text may begin with `#`, as a heading."""
    return error.doc.startswith(_COMMENTS, error.pos) and (error.doc[error.pos] != "#" or "{" in error.doc)


def _json_sentence(error: json.JSONDecodeError) -> str:
    begin = error.doc.lstrip()[:1]
    if error.msg.startswith(("Extra data", "Expecting value", "Expecting property name")) and _is_comment(error):
        return f"not JSON: a comment begins at column {error.colno}, and JSON has none: remove it"
    if error.msg == "Extra data":
        return f"not JSON: a second value begins at column {error.colno}"
    sentence = f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    is_text = begin.isprintable() and begin not in "{}[]\":,'" and error.msg == "Expecting value"
    return sentence + (" (obcd prepare - < FILE makes prompts of lines of plain text)" if is_text else "")
