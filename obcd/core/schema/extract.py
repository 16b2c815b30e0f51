"""Find the JSON in the answer of a model: bare, in a Markdown fence, or inside prose.

Pure, linear in the length of the text, and never raises.

A part of a broken document is never returned as the whole: in `[{"a": 1}, {"a": 2}, {"a"` (cut short by the token
limit) the first object would be valid JSON, and wrong.

Own code: libraries for this (json-repair) complete a document that was cut short, which must not happen here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from obcd.core.schema.strict_json import DECODER, RepeatedKeyError, depth_of
from obcd.errors import LineError

#: Deepest accepted nesting; far below the depth at which Python's own encoder runs out of stack (about 1,000 frames).
MAX_DEPTH = 200
TWICE = "a key occurs twice in its JSON"
#: Longest accepted number, in characters; int() refuses longer ones (CVE-2020-10735).
MAX_NUMBER_CHARS = 4300


@dataclass(frozen=True, slots=True)
class Found:
    """The JSON value of an answer, and its text as the model wrote it: without fences, prose and white space."""

    value: object
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NoJson:
    """Why an answer gives no JSON value; says what and at which character, never quotes the answer."""

    reason: str


class _Expect(Enum):
    """What the grammar allows next."""

    VALUE = auto()
    VALUE_OR_END = auto()  # right after [
    KEY = auto()
    KEY_OR_END = auto()  # right after {
    COLON = auto()
    COMMA_OR_END = auto()


@dataclass(frozen=True, slots=True)
class _Broken:
    """A bracket that opens no JSON value."""

    at: int  # index of the character that does not fit; the text's length when it just ends
    open_brackets: int
    like_json: bool  # False: prose in brackets, such as `[sic]` or `{name}`
    too_deep: bool = False


_WHITESPACE = re.compile(r"[ \t\n\r]*+")
_OPENER = re.compile(r"[\[{]")
# Possessive quantifiers: a token that does not match fails after one pass, without backtracking.
_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")'
    r"|(?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null)"
    r"|(?P<mark>[\[\]{},:])"
)
# Any brackets outside of text that looks like a string. An unclosed string reaches to the end of the text; otherwise
# a text of a million `\"` would be read again from each of them.
_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|(?P<open>[\[{])|(?P<close>[\]}])', re.DOTALL)
# The text after a bracket where JSON was meant but another language was written: quotes, comments, Python's NaN.
_NEAR_VALUE = re.compile(r"""["']|//|/\*|-?(?:NaN|Infinity)\b|(?:True|False|None)\b""")
_NEAR_KEY = re.compile(r"""["']|//|/\*|[A-Za-z_$][\w$]*+\s*+:""")
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")


def find_json(text: str) -> Found | NoJson:
    """Return the JSON value in an answer: the whole of it, else a fenced block, else the first object or array.

    Returns:
        `Found`, or `NoJson` with the reason. NaN, Infinity and numbers beyond the range of a double are refused.
    """
    body = split_thinking(text)[1].strip().strip("\ufeff").strip()
    if not body:
        return NoJson("it is empty")
    whole = parse_strict(body)
    if isinstance(whole, Found):
        return whole
    for block in _fenced_blocks(body):
        inside = parse_strict(block)
        if isinstance(inside, Found):
            return inside
    return _first_in_prose(body, otherwise=whole)


def parse_strict(text: str) -> Found | NoJson:
    """Parse a text that is one JSON value and nothing else."""
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError:
        return NoJson("there is no JSON in it")
    except RepeatedKeyError:
        return NoJson(TWICE)
    except RecursionError:
        return NoJson(f"its JSON is nested more than {MAX_DEPTH} deep")
    except (LineError, ValueError):
        return NoJson("its JSON holds NaN, Infinity or a number out of range")
    if text.count("[") + text.count("{") > MAX_DEPTH and depth_of(value) > MAX_DEPTH:
        return NoJson(f"its JSON is nested more than {MAX_DEPTH} deep")
    return Found(value, text.strip())


def split_thinking(text: str) -> tuple[str, str]:
    """Return `(thoughts, answer)`: some models leave their `<think>…</think>` in front of the answer.

    Drafts in the thoughts are not the answer. If the block is never closed, all of it is thought. Some templates write
    the opening mark themselves, so that only the closing one comes: the text before it is thought too.
    """
    body = text.lstrip()
    if body.startswith("<think>"):
        thoughts, _, answer = body.removeprefix("<think>").partition("</think>")
        return thoughts.strip(), answer
    if "<think>" in body or "</think>" not in body or body[:1] in ("{", "["):  # inside an answer it is text
        return "", text
    thoughts, _, answer = body.partition("</think>")
    return thoughts.strip(), answer


def _fenced_blocks(text: str) -> Iterator[str]:
    """Yield the content of each Markdown code fence; one that is never closed reaches to the end."""
    fence = ""
    content: list[str] = []
    for line in text.split("\n"):
        match = _FENCE.match(line.rstrip())
        if not fence:
            if match:
                fence, content = match["fence"], []
        elif match and match["fence"].startswith(fence) and not match["info"].strip():
            yield "\n".join(content)
            fence = ""
        else:
            content.append(line)
    if fence:
        yield "\n".join(content)


def _first_in_prose(text: str, otherwise: NoJson) -> Found | NoJson:
    """Return the first valid object or array; each character is read a bounded number of times."""
    reason = otherwise
    opener = _OPENER.search(text)
    while opener:
        broken = _Walk(text, opener.start()).find_fault()
        if broken is None:
            try:
                value, end = DECODER.raw_decode(text, opener.start())
            except RepeatedKeyError:
                return NoJson(TWICE)
            return Found(value, text[opener.start() : end])
        resume = broken.at
        if broken.like_json:
            closed = _skip_brackets(text, broken)
            reason = _reason(broken, is_closed=closed is not None)
            if closed is None:
                return reason
            resume = closed
        # Brackets between the opener and the fault are open at the fault and fail there too: continue from the fault.
        opener = _OPENER.search(text, resume)
    return reason


def _reason(broken: _Broken, *, is_closed: bool) -> NoJson:
    if broken.too_deep:
        return NoJson(f"its JSON is nested more than {MAX_DEPTH} deep")
    if not is_closed:
        return NoJson("its JSON is cut short")
    return NoJson(f"its JSON is not valid from character {broken.at + 1} on")


def _skip_brackets(text: str, broken: _Broken) -> int | None:
    """Return the index behind the bracket that closes a broken document, or None if there is no such bracket."""
    depth = broken.open_brackets
    for match in _BRACKET.finditer(text, broken.at):
        depth += (match["open"] is not None) - (match["close"] is not None)
        if depth == 0:
            return match.end()
    return None


class _Walk:
    """Follows JSON's grammar from one bracket to its end, with its own stack instead of recursion."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._at = start
        self._expect = _Expect.VALUE
        self._closers: list[str] = []  # the expected closing brackets, innermost last
        self._has_content = False  # more than opening brackets was read

    def find_fault(self) -> _Broken | None:
        """Return the place of the first error, or None if the value is complete and valid."""
        while True:
            self._at = self._end_of_whitespace()
            match = _TOKEN.match(self._text, self._at)
            if match is None or not self._accepts(match):
                return self._broken()
            if len(self._closers) > MAX_DEPTH:
                return _Broken(self._at, len(self._closers) - 1, like_json=True, too_deep=True)
            self._at = match.end()
            if not self._closers:
                return None

    def _end_of_whitespace(self) -> int:
        match = _WHITESPACE.match(self._text, self._at)
        return match.end() if match else self._at

    def _accepts(self, match: re.Match[str]) -> bool:
        """Accept one lexeme if the grammar allows it here."""
        lexeme = match[0]
        if match.lastgroup == "string":
            return self._take_string()
        if match.lastgroup == "scalar":
            return self._take_scalar(lexeme)
        if lexeme in "[{":
            return self._open(lexeme)
        if lexeme in "]}":
            return self._close(lexeme)
        return self._separate(lexeme)

    def _take_string(self) -> bool:
        if self._expect in (_Expect.KEY, _Expect.KEY_OR_END):
            self._expect = _Expect.COLON
        elif self._expect in (_Expect.VALUE, _Expect.VALUE_OR_END):
            self._expect = _Expect.COMMA_OR_END
        else:
            return False
        self._has_content = True
        return True

    def _take_scalar(self, lexeme: str) -> bool:
        if self._expect not in (_Expect.VALUE, _Expect.VALUE_OR_END) or not _is_number_in_range(lexeme):
            return False
        self._expect = _Expect.COMMA_OR_END
        self._has_content = True
        return True

    def _open(self, lexeme: str) -> bool:
        if self._expect not in (_Expect.VALUE, _Expect.VALUE_OR_END):
            return False
        self._closers.append("]" if lexeme == "[" else "}")
        self._expect = _Expect.VALUE_OR_END if lexeme == "[" else _Expect.KEY_OR_END
        return True

    def _close(self, lexeme: str) -> bool:
        may_end = self._expect in (_Expect.COMMA_OR_END, _Expect.VALUE_OR_END, _Expect.KEY_OR_END)
        if not may_end or lexeme != self._closers[-1]:
            return False
        self._closers.pop()
        self._expect = _Expect.COMMA_OR_END
        self._has_content = True
        return True

    def _separate(self, lexeme: str) -> bool:
        if lexeme == ":" and self._expect is _Expect.COLON:
            self._expect = _Expect.VALUE
            return True
        if lexeme == "," and self._expect is _Expect.COMMA_OR_END:
            self._expect = _Expect.KEY if self._closers[-1] == "}" else _Expect.VALUE
            return True
        return False

    def _broken(self) -> _Broken:
        near = _NEAR_KEY if self._closers[-1:] == ["}"] else _NEAR_VALUE
        like_json = self._has_content or near.match(self._text, self._at) is not None
        return _Broken(self._at, len(self._closers), like_json=like_json)


def _is_number_in_range(lexeme: str) -> bool:
    """Return whether Python's own parser accepts a number; true, false and null pass."""
    if lexeme[0] in "tfn":
        return True
    return len(lexeme) <= MAX_NUMBER_CHARS and not math.isinf(float(lexeme))
