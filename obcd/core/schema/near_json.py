"""JSON that is nearly JSON, as models write it: repaired where only one reading is possible. Pure.

    {'city': 'Bonn', "pets": None, /* none */ "note": "two
    lines",}                                  → {"city": "Bonn", "pets": null, "note": "two\nlines"}

`pyjson5` reads it: JSON5 is a grammar, with comments, trailing commas, single quotes and keys without quotes. A text
that it does not accept is not guessed at (as json-repair does, which completes what was cut short, turns `<string>`
into a text, and takes the square of the text's length). What JSON5 lacks is rewritten before: Python's `None`, `True`
and `False`, its comments, and line breaks inside a string.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

#: Most characters that are read again of one answer, over all its broken documents: a fifth of a second at worst.
MOST_CHARS = 2**18
_ESCAPE = r"""\\(?:["'\\/bfnrt\n]|u[0-9a-fA-F]{4})"""
_LEXEME = re.compile(
    rf"""(?P<string>"(?:[^"\\]++|{_ESCAPE})*+"|'(?:[^'\\]++|{_ESCAPE})*+')"""
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<colon>:)|,|\s++"
    r"|(?P<comment>//[^\n]*+|\#[^\n]*+|/\*(?:[^*]++|\*(?!/))*+\*/)"
    r"|(?P<word>[\w$.+-]++)"
)
#: An escape, or a character that JSON writes as one.
_ESCAPED = re.compile(r"\\.|[\x00-\x1f]", re.DOTALL)
#: {Python's word: JSON's}
_WORDS = {"None": "null", "True": "true", "False": "false"}
_NOT_NUMBERS = frozenset(("NaN", "Infinity"))


class Near(NamedTuple):
    """A repaired document.

    Attributes:
        text: Its JSON.
        end: The index behind it in the text that it comes from.
        has_bare_keys: Whether a key of it has no quotes, as in a program.
    """

    value: object
    text: str
    end: int
    has_bare_keys: bool


class NearReader:
    """Reads the broken documents of one answer, for a bounded time in total."""

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth
        self._left = MOST_CHARS

    def read(self, text: str, start: int) -> Near | None:
        """Return the document that a bracket opens, or None if there is not exactly one way to read it."""
        pieces: list[str] = []
        at, depth, colons, is_key, has_bare_keys = start, 0, 0, False, False
        limit = min(len(text), start + self._left)
        while match := _LEXEME.match(text, at, limit):
            at = match.end()
            colons += match["colon"] is not None
            has_bare_keys |= is_key and match["colon"] is not None
            is_key = match["word"] is not None or (is_key and match[0].isspace())
            depth += (match["open"] is not None) - (match["close"] is not None)
            piece = _as_json5(match)
            if piece is None or depth > self._max_depth:
                break
            pieces.append(piece)
            if not depth:
                self._left -= at - start
                return self._decode("".join(pieces), colons, at, has_bare_keys=has_bare_keys)
        # a string without an end was read up to the limit
        self._left -= (limit if text[at : at + 1] in ("'", '"', "/", "") else at) - start
        return None

    def _decode(self, text: str, colons: int, end: int, *, has_bare_keys: bool) -> Near | None:
        """Decode JSON5; a repeated key, of which only one value would be left, is refused."""
        import pyjson5  # noqa: PLC0415 - few answers need it

        try:
            value = pyjson5.decode(text, maxdepth=self._max_depth)
            if _members(value) != colons:
                return None
            return Near(value, json.dumps(value, ensure_ascii=False, allow_nan=False), end, has_bare_keys)
        except (pyjson5.Json5Exception, ValueError, OverflowError, RecursionError):
            return None


def _as_json5(lexeme: re.Match[str]) -> str | None:
    """Return a lexeme as JSON5 writes it; None if it has no value in JSON."""
    text = lexeme[0]
    if lexeme["string"]:
        return _ESCAPED.sub(_escape, text)
    if lexeme["comment"]:
        return " "
    if lexeme["word"]:
        return None if text.lstrip("+-") in _NOT_NUMBERS else _WORDS.get(text, text)
    return text


def _escape(found: re.Match[str]) -> str:
    if found[0] == "\\\n":  # the string goes on in the next line
        return ""
    return found[0] if len(found[0]) > 1 else f"\\u{ord(found[0]):04x}"


def _members(value: object) -> int:
    count, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            count += len(each)
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
    return count
