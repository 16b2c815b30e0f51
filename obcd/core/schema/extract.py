"""Find the JSON in the answer of a model: bare, in a Markdown fence, or inside prose.

    As in [1]: <think>{"city": "Kiel"}?</think> {"city": "Bonn"}      → [1], which is an aside, and {"city": "Bonn"}

Pure, linear in the length of the text, and never raises.

A part of a broken document is never returned as the whole: in `[{"a": 1}, {"a": 2}, {"a"` (cut short by the token
limit) the first object would be valid JSON, and wrong. Nor is anything that the model only thought.

Own code: libraries for this (json-repair) complete a document that was cut short, which must not happen here.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count

from obcd.core.schema.near_json import NearReader
from obcd.core.schema.strict_json import DECODER, RepeatedKeyError, depth_of
from obcd.core.schema.thoughts import MARK, TAG_BEGINS, Split, end_of_thoughts, split_thoughts
from obcd.errors import LineError

#: Deepest accepted nesting; far below the depth at which Python's own encoder runs out of stack (about 1,000 frames).
MAX_DEPTH = 200
TWICE, CUT = "a key occurs twice in its JSON", "its JSON is cut short"
#: Longest accepted number, in characters; int() refuses longer ones (CVE-2020-10735).
MAX_NUMBER_CHARS = 4300


@dataclass(frozen=True, slots=True)
class Found:
    """A JSON value of an answer.

    Attributes:
        text: As the model wrote it, without fences, prose and white space; of a repaired value, its JSON.
        is_repaired: Whether the model wrote something that is only nearly JSON.
        is_aside: Whether it is a list of numbers, or nothing, in the middle of a sentence: `as in [1]`.
        may_be_code: Whether it is a part of a text, and its keys have no quotes: it counts only where JSON is required.
    """

    value: object
    text: str = field(default="", compare=False)
    is_repaired: bool = field(default=False, compare=False)
    is_aside: bool = field(default=False, compare=False)
    may_be_code: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class NoJson:
    """Why an answer gives no JSON value; says what and at which character, never quotes the answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class Search:
    """What was found in an answer.

    Attributes:
        values: All its JSON values in their order, without those that are part of another or of thoughts.
        reason: Why there is none.
        thoughts: What stands before the answer as thoughts; "" if nothing does.
        text: The answer without them.
        is_cut: Whether another value begins at the end of the text and is cut short.
    """

    values: tuple[Found, ...]
    reason: NoJson
    thoughts: str
    text: str
    is_cut: bool = False

    @property
    def sole(self) -> Found | NoJson:
        """The one value that the answer means, or why there is not exactly one."""
        values = distinct(main_values(self.values))
        if not values:
            return self.reason
        if len(values) > 1:
            return NoJson(f"it holds {len(values)} JSON values")
        return NoJson(CUT) if self.is_cut else values[0]


NO_JSON = NoJson("there is no JSON in it")


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
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$", re.MULTILINE)
_WORD = re.compile(r"\w")
_BRACKETS = re.compile(r"\[[^\[\]]*\]|\{[^{}]*\}")
#: Most values of one answer that are looked at: more are no answer, and each takes 50 microseconds.
MOST_VALUES = 1000
#: Longest text that is searched, in characters; a longer one counts if all of it is JSON. Each mark of thoughts in it
#: takes 300 bytes of memory.
MOST_CHARS = 2**22
#: Most brackets, fences and marks of thoughts that are looked at: each takes 10 to 30 microseconds.
MOST_STEPS = 100_000
#: Characters beside a value that are looked at for the sentence around it.
_BESIDE = 100


def find_json(text: str) -> Found | NoJson:
    """Return the one JSON value of an answer, or why there is not exactly one.

    NaN, Infinity and numbers beyond the range of a double are refused.
    """
    return search_json(text).sole


def search_json(text: str) -> Search:
    """Find all JSON values in an answer: the whole of it, or those in fenced blocks and in prose."""
    split = split_thoughts(text)
    thoughts, answer = (split.thoughts, split.answer) if split else ("", text)
    body = answer.strip().strip("\ufeff").strip()
    if not body:
        return Search((), NoJson(_why_empty(split)), thoughts, answer)
    whole = parse_strict(body)
    if isinstance(whole, Found):
        return Search((whole,), NoJson(""), thoughts, answer)
    if len(body) > MOST_CHARS:
        return Search((), NoJson(f"it is not JSON, and longer than {MOST_CHARS} characters"), thoughts, answer)
    scan = _Scan(body, whole, NearReader(MAX_DEPTH), count(1))
    scan.run()
    if scan.begin and not split:  # some templates write the opening tag themselves, so that only the closing one comes
        thoughts = body[: max(body.rfind(begin, 0, scan.begin) for begin in TAG_BEGINS)].strip()
        answer = answer[answer.index(body) + scan.begin :]
    return Search(tuple(scan.values), scan.reason, thoughts, answer, scan.is_cut)


def _why_empty(split: Split | None) -> str:
    if split is None:
        return "it is empty"
    return "there is nothing behind its thoughts" if split.is_closed else "its thoughts have no end"


def main_values(values: Sequence[Found]) -> list[Found]:
    """Return the values that an answer may mean: valid ones before repaired ones, and no aside beside another."""
    meant = without_asides([found for found in values if not found.may_be_code])
    return [found for found in meant if not found.is_repaired] or meant


def without_asides(values: Sequence[Found]) -> list[Found]:
    """Return the values that are not asides, or all if all of them are."""
    return [found for found in values if not found.is_aside] or list(values)


def distinct(values: Sequence[Found]) -> list[Found]:
    """Return the values without equal ones; 1, 1.0 and true differ, the order of keys does not matter."""
    if len(values) < 2:
        return list(values)
    first: dict[str, Found] = {}
    for found in values:
        first.setdefault(json.dumps(found.value, sort_keys=True), found)
    return list(first.values())


def parse_strict(text: str) -> Found | NoJson:
    """Parse a text that is one JSON value and nothing else."""
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError:
        return NO_JSON
    except RepeatedKeyError:
        return NoJson(TWICE)
    except RecursionError:
        return NoJson(f"its JSON is nested more than {MAX_DEPTH} deep")
    except (LineError, ValueError):
        return NoJson("its JSON holds NaN, Infinity or a number out of range")
    if text.count("[") + text.count("{") > MAX_DEPTH and depth_of(value) > MAX_DEPTH:
        return NoJson(f"its JSON is nested more than {MAX_DEPTH} deep")
    return Found(value, text.strip())


class _Scan:
    """Goes through a text once, from one bracket, fence or mark of thoughts to the next.

    Attributes:
        values: Those found so far.
        reason: Why the last bracket that looked like JSON was none.
        begin: The index behind the last closing tag of thoughts that has no opening one; 0 without such a tag.
        is_cut: Whether the text ends inside a value that is not the beginning of an earlier one.
    """

    def __init__(
        self, text: str, reason: NoJson, near: NearReader, steps: Iterator[int], *, is_block: bool = False
    ) -> None:
        self.values: list[Found] = []
        self.reason = self._reason_at_first = reason
        self.begin = 0
        self.is_cut = False
        self._text = text
        self._all = len(text) - len(text.lstrip()), len(text.rstrip())
        self._near = near
        self._steps = steps
        self._opener = -1
        self._fences = {} if is_block else {match.start(): match for match in _FENCE.finditer(text)}
        self._tags = {match.start(): match for match in MARK.finditer(text)}
        self._marks = sorted((*self._fences, *self._tags))
        #: {name: the indices behind its closing tags}
        self._closings: dict[str, list[int]] = {}
        for tag in self._tags.values():
            if tag["close"]:
                self._closings.setdefault(tag["tag"].lower(), []).append(tag.end())
        self._strays = self._find_strays()
        self._ends = sorted((*self._fences, *self._strays))  #: a broken value ends there at the latest

    def run(self) -> None:
        """Find all values."""
        at: int | None = 0
        while at is not None:
            if next(self._steps) > MOST_STEPS:
                self.values.clear()
                self.begin, self.is_cut = 0, False
                self.reason = NoJson("it holds too many brackets to search")
                return
            at = self._step(at)

    def _step(self, at: int) -> int | None:
        """Handle what comes next and return the index behind it, or None at the end."""
        if len(self.values) >= MOST_VALUES:
            end = _next(self._strays, at)
            if end is None:
                return None
            at = end  # all of it was thoughts
        if self._opener < at:
            found = _OPENER.search(self._text, at)
            self._opener = found.start() if found else len(self._text)
        mark = _next(self._marks, at)
        if mark is not None and mark <= self._opener:  # [THINK] is both
            return self._on_fence(self._fences[mark]) if mark in self._fences else self._on_tag(self._tags[mark])
        return self._on_bracket(self._opener) if self._opener < len(self._text) else None

    def _on_tag(self, tag: re.Match[str]) -> int | None:
        """Pass over thoughts; before a closing tag without an opening one, everything was thoughts."""
        if not tag["close"]:
            return self._end_of_thoughts(tag)
        self.values.clear()
        self.reason = self._reason_at_first
        self.begin = tag.end()
        return tag.end()

    def _on_fence(self, fence: re.Match[str]) -> int | None:
        """Take the values of a fenced block; one that is never closed reaches to the end."""
        begin, end, behind = fence.end() + 1, len(self._text), None
        for place in range(bisect_left(self._marks, begin), len(self._marks)):
            mark = self._marks[place]
            closing = self._fences.get(mark)
            if closing and closing["fence"].startswith(fence["fence"]) and not closing["info"].strip():
                end, behind = mark, closing.end()
                break
        block = self._text[begin:end]
        inside = parse_strict(block)
        if isinstance(inside, Found):
            self.values.append(inside)
            return behind
        scan = _Scan(block, inside, self._near, self._steps, is_block=True)
        scan.run()
        self.values += scan.values
        if not scan.values and scan.reason != NO_JSON:
            self.reason = scan.reason
        self.is_cut |= scan.is_cut and behind is None
        return behind

    def _on_bracket(self, start: int) -> int | None:
        walk = _Walk(self._text, start)
        broken = walk.find_fault()
        if broken is None:
            try:
                value, _ = DECODER.raw_decode(self._text, start)
            except RepeatedKeyError:
                self.reason = NoJson(TWICE)
            else:
                is_aside = self._is_aside(value, start, walk.at)
                self.values.append(Found(value, self._text[start : walk.at], is_aside=is_aside))
            return walk.at
        if not broken.like_json:
            # Brackets between the opener and the fault are open at the fault and fail there too: continue from there.
            return broken.at
        near = None if broken.too_deep else self._near.read(self._text, start)
        if near is not None:
            may_be_code = near.has_bare_keys and (start, near.end) != self._all
            self.values.append(Found(near.value, near.text, is_repaired=True, may_be_code=may_be_code))
            return near.end
        end = _next(self._ends, broken.at)
        closed = _skip_brackets(self._text, broken, len(self._text) if end is None else end)
        self.reason = _reason(broken, is_closed=closed is not None)
        if closed is None and end is None:
            fragment = self._text[start:]
            self.is_cut = not any(found.text.startswith(fragment) for found in self.values)
        return end if closed is None else closed

    def _is_aside(self, value: object, start: int, end: int) -> bool:
        """Return whether a value is a list of numbers, or nothing, with words beside it in its line."""
        if not (isinstance(value, list) and all(type(item) in (int, float) for item in value)) and value != {}:
            return False
        before = self._text[max(0, start - _BESIDE) : start].rpartition("\n")[2]
        after = self._text[end : end + _BESIDE].partition("\n")[0]
        count = 1
        while count:
            before, count = _BRACKETS.subn("", before)
        return _WORD.search(re.split(r"[\]}]", before)[-1] + re.split(r"[\[{]", after)[0]) is not None

    def _find_strays(self) -> list[int]:
        """Return where the closing tags are that have no opening one."""
        strays, behind = [], 0
        for start, tag in self._tags.items():
            if start < behind:
                continue
            if tag["close"]:
                strays.append(start)
                continue
            end = self._end_of_thoughts(tag)
            if end is None:
                break
            behind = end
        return strays

    def _end_of_thoughts(self, tag: re.Match[str]) -> int | None:
        """Return the index behind thoughts, or None if they reach to the end.

        Unlike in `split_thoughts`, the first end counts: thoughts inside thoughts leave an end without a beginning, and
        so are thoughts to the last end.
        """
        if tag["channel"]:
            end = end_of_thoughts(self._text, tag)
            return None if end is None else end[1]
        return _next(self._closings.get(tag["tag"].lower(), ()), tag.end())


def _reason(broken: _Broken, *, is_closed: bool) -> NoJson:
    if broken.too_deep:
        return NoJson(f"its JSON is nested more than {MAX_DEPTH} deep")
    if not is_closed:
        return NoJson(CUT)
    return NoJson(f"its JSON is not valid from character {broken.at + 1} on")


def _next(places: Sequence[int], at: int) -> int | None:
    """Return the first of some sorted places that is not before another place."""
    index = bisect_left(places, at)
    return places[index] if index < len(places) else None


def _skip_brackets(text: str, broken: _Broken, limit: int) -> int | None:
    """Return the index behind the bracket that closes a broken document before a limit, or None if there is none."""
    depth = broken.open_brackets
    for match in _BRACKET.finditer(text, broken.at, limit):
        depth += (match["open"] is not None) - (match["close"] is not None)
        if depth == 0:
            return match.end()
    return None


class _Walk:
    """Follows JSON's grammar from one bracket to its end, with its own stack instead of recursion."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self.at = start  #: how far it has read
        self._expect = _Expect.VALUE
        self._closers: list[str] = []  # the expected closing brackets, innermost last
        self._has_content = False  # more than opening brackets was read

    def find_fault(self) -> _Broken | None:
        """Return the place of the first error, or None if the value is complete and valid."""
        while True:
            self.at = self._end_of_whitespace()
            match = _TOKEN.match(self._text, self.at)
            if match is None or not self._accepts(match):
                return self._broken()
            if len(self._closers) > MAX_DEPTH:
                return _Broken(self.at, len(self._closers) - 1, like_json=True, too_deep=True)
            self.at = match.end()
            if not self._closers:
                return None

    def _end_of_whitespace(self) -> int:
        match = _WHITESPACE.match(self._text, self.at)
        return match.end() if match else self.at

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
        like_json = self._has_content or near.match(self._text, self.at) is not None
        return _Broken(self.at, len(self._closers), like_json=like_json)


def _is_number_in_range(lexeme: str) -> bool:
    """Return whether Python's own parser accepts a number; true, false and null pass."""
    if lexeme[0] in "tfn":
        return True
    return len(lexeme) <= MAX_NUMBER_CHARS and not math.isinf(float(lexeme))
