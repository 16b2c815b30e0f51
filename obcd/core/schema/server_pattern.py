r"""Rewrite the pattern of a JSON schema for the server, which makes a grammar of it. Pure, linear in its length.

    ^\d{4}$ ──► ^[0-9]{4}$          abc ──► ^([^"\\\x00-\x1F]|\\(…))*abc(…)*$          ^(?=.*x)…$ ──► None: not sent

llama.cpp (common/json-schema-to-grammar.cpp: `_visit_pattern`, src/llama-grammar.cpp; the same in Ollama v0.24 and
v0.33) reads little of what a pattern may hold, and reads it as the text between the quotes of the JSON string:

- It takes only `^…$`; a JSON schema's own patterns may match anywhere.
- `(?` ends the whole `ollama serve` v0.24 (SIGSEGV), and so does a quantifier with nothing before it.
- `\d` and other letters after a backslash, 2,000 repetitions, and `(a*)*` (left recursion) make no grammar.
- `.` and `[^,]` also match the quote that ends the string, and a lone backslash, so that they end the grammar's hold.

So only what means the same there is sent: `server_pattern` returns a pattern with the same strings, or None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from obcd.errors import ObcdError

#: Longest pattern that is read, in characters, and its deepest nesting.
MAX_PATTERN, MAX_DEPTH = 5000, 50
#: Most repetitions of one part, and most rules of a part that is repeated; llama-grammar.cpp refuses 2,000.
MAX_COUNT, MAX_REPEATED_RULES, MAX_RULES = 1900, 1900, 20_000

#: Code points, as `((first, last), …)`, sorted and apart.
Ranges = tuple[tuple[int, int], ...]
LAST = 0x10FFFF
ALL: Ranges = ((0, LAST),)
#: Of ECMA 262, as jsonschema-rs reads them.
_DIGIT: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Ranges = ((0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x2003, 0x2003), (0x2029, 0x2029), (0xFEFF, 0xFEFF))
_NEWLINES: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
#: What stands in a JSON string only after a backslash (RFC 8259), and halves of surrogate pairs, which UTF-8 has not.
_NEVER_PLAIN: Ranges = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0xD800, 0xDFFF))
#: {code point: the letter after the backslash}
_ESCAPED = {0x22: '"', 0x5C: "\\\\", 0x2F: "/", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t"}
_CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
#: Characters that mean themselves in a pattern and in the grammar that is made of it.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-:/,@#%&=~'<>!;`")
#: Characters that llama.cpp takes for themselves after a backslash, except where a quantifier follows.
_AFTER_BACKSLASH = frozenset("^$.[]()|{}*+?")

#: A pattern that the server reads as everybody does; it is sent as it is.
_CLASS = r"\[(?:[0-9]-[0-9]|[A-Z]-[A-Z]|[a-z]-[a-z]|[A-Za-z0-9 _:/,@#%&=~'<>!;`.+*?(){}|$])+-?\]"
_AS_IT_IS = re.compile(
    rf"\^(?:[A-Za-z0-9 _\-:/,@#%&=~'<>!;`)|]|\((?!\?)|\\[$.\[\]()|{{}}*+?](?![*+?{{])|{_CLASS}"
    r"|(?:[*+?]|\{[0-9,]+\})(?!\?))*+\$", re.ASCII
)  # fmt: skip

_COUNT = re.compile(r"\{([0-9]{1,6})(,([0-9]{1,6})?)?\}", re.ASCII)
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_][A-Za-z0-9_]*>|(?!\?))", re.ASCII)
_CODE = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}", re.ASCII)


class _UnsupportedError(ObcdError):
    """The server has no equal pattern."""


@dataclass(frozen=True, slots=True)
class _Chars:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class _Edge:
    """`^`, or `$`."""

    is_end: bool


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of several sequences."""

    sequences: tuple[tuple[_Node, ...], ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    """A part several times.

    Attributes:
        most: None: without end.
    """

    part: _Chars | _Choice
    least: int
    most: int | None


_Node = _Chars | _Edge | _Choice | _Repeat
_ANYTHING = _Repeat(_Chars(ALL), 0, None)


@lru_cache(maxsize=1024)
def server_pattern(pattern: str) -> str | None:
    """Return the pattern that the server turns into a grammar of the same strings.

    Returns:
        `^…$`, "" if every string matches, or None if the server has no equal pattern.
    """
    try:
        if len(pattern) > MAX_PATTERN:
            return None
        given = _Parser(pattern).parse()
        choice = _anchored(given)
        if choice.sequences == ((_ANYTHING,),):
            return ""
        _check_rules(choice)
        if len(given.sequences) == 1 and _AS_IT_IS.fullmatch(pattern):
            return pattern
        return f"^{_sequence(choice.sequences[0]) if len(choice.sequences) == 1 else _group(choice)}$"
    except _UnsupportedError:
        return None


class _Parser:
    """Reads what ECMA 262 and Rust's regex read in the same way; everything else is unsupported."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def parse(self) -> _Choice:
        choice = self._choice(0)
        if self._at < len(self._text):
            raise _UnsupportedError
        return choice

    def _choice(self, depth: int) -> _Choice:
        if depth > MAX_DEPTH:
            raise _UnsupportedError
        sequences, items = [], list[_Node]()
        while self._peek() not in ("", ")"):
            if self._skip("|"):
                sequences.append(tuple(items))
                items = []
            else:
                items.append(self._quantified(self._atom(depth)))
        return _Choice((*sequences, tuple(items)))

    def _peek(self, length: int = 1) -> str:
        return self._text[self._at : self._at + length]

    def _skip(self, mark: str) -> bool:
        is_there = self._text.startswith(mark, self._at)
        self._at += len(mark) if is_there else 0
        return is_there

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise _UnsupportedError
        self._at += 1
        return self._text[self._at - 1]

    def _atom(self, depth: int) -> _Chars | _Choice | _Edge:
        if self._peek() == "(":
            opened = _GROUP.match(self._text, self._at)
            if opened is None:  # (?=…), (?!…), (?i)
                raise _UnsupportedError
            self._at = opened.end()
            inner = self._choice(depth + 1)
            if not self._skip(")"):
                raise _UnsupportedError
            return inner
        char = self._take()
        if char in "^$":
            return _Edge(char == "$")
        if char in "*+?{":
            raise _UnsupportedError
        if char == ".":
            return _Chars(_without(_NEWLINES))
        if char == "[":
            return _Chars(self._class())
        return _Chars(self._escape() if char == "\\" else _one(ord(char)))

    def _quantified(self, part: _Chars | _Choice | _Edge) -> _Node:
        least, most = 1, 1  # type: int, int | None
        if self._skip("*"):
            least, most = 0, None
        elif self._skip("+"):
            least, most = 1, None
        elif self._skip("?"):
            least, most = 0, 1
        elif self._peek() == "{":
            found = _COUNT.match(self._text, self._at)
            if found is None:
                raise _UnsupportedError
            self._at = found.end()
            least = int(found[1])
            most = least if found[2] is None else int(found[3]) if found[3] else None
        else:
            return part
        self._skip("?")  # a lazy quantifier matches the same strings
        if isinstance(part, _Edge) or self._peek() in ("*", "+", "?", "{") or (most is not None and most < least):
            raise _UnsupportedError
        return _Repeat(part, least, most)

    def _class(self) -> Ranges:
        """Read a class from behind its bracket to behind its end."""
        is_negated, found = self._skip("^"), list[tuple[int, int]]()
        if self._peek() == "]":  # empty in ECMA 262, a bracket in Rust
            raise _UnsupportedError
        while not self._skip("]"):
            if self._peek() == "[" or self._peek(2) in ("&&", "--", "~~"):  # sets in sets
                raise _UnsupportedError
            low = self._member()
            if self._peek() == "-" and self._peek(2) != "-]":
                self._at += 1
                high = self._member()
                (first, *_), (last, *_) = low, high
                if low != _one(first[0]) or high != _one(last[0]) or first > last:
                    raise _UnsupportedError
                low = ((first[0], last[0]),)
            found.extend(low)
        return _without(found) if is_negated else _merged(found)

    def _member(self) -> Ranges:
        char = self._take()
        return self._escape() if char == "\\" else _one(ord(char))

    def _escape(self) -> Ranges:
        code = _CODE.match(self._text, self._at)
        if code is not None:
            self._at = code.end()
            number = int(code[1] or code[2] or code[3], 16)
            if number > LAST:
                raise _UnsupportedError
            return _one(number)
        char = self._take()
        kinds = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
        if char.lower() in kinds:
            return kinds[char] if char in kinds else _without(kinds[char.lower()])
        if char in _CONTROLS:
            return _one(_CONTROLS[char])
        if char.isascii() and not char.isalnum():
            return _one(ord(char))
        raise _UnsupportedError  # \b, \1, \p{…}


def _one(code: int) -> Ranges:
    return ((code, code),)


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return tuple(merged)


def _without(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return all code points except these."""
    left, start = [], 0
    for low, high in _merged(ranges):
        if low > start:
            left.append((start, low - 1))
        start = high + 1
    return (*left, (start, LAST)) if start <= LAST else tuple(left)


# --- the edges -------------------------------------------------------------------------------------------------------


def _anchored(choice: _Choice) -> _Choice:
    """Return a choice that matches from the first character of a string to its last."""
    sequences: list[tuple[_Node, ...]] = []
    for given in choice.sequences:
        items = list(given)
        if len(items) == 1 and isinstance(items[0], _Choice) and _has_edge(items[0]):
            sequences.extend(_anchored(items[0]).sequences)
            continue
        starts, ends = _take_edges(items, is_end=False), _take_edges(items, is_end=True)
        if any(_has_edge(item) for item in items):
            raise _UnsupportedError
        if not starts:
            _shorten(items, 0)
        if not ends:
            _shorten(items, -1)
        if not items and not (starts and ends):
            return _Choice(((_ANYTHING,),))
        sequences.append((*(() if starts else (_ANYTHING,)), *items, *(() if ends else (_ANYTHING,))))
    return _Choice(tuple(dict.fromkeys(sequences)))


def _take_edges(items: list[_Node], *, is_end: bool) -> bool:
    """Remove `^` from the start of a sequence, or `$` from its end; return whether there was one."""
    place, is_any = -is_end, False
    while items and items[place] == _Edge(is_end):
        items.pop(place)
        is_any = True
    return is_any


def _shorten(items: list[_Node], place: int) -> None:
    """Remove what may be missing at an open end, where anything may stand: `\\d+` there is as good as `\\d`."""
    while items and isinstance(item := items[place], _Repeat) and item.most != item.least:
        if item.least:
            items[place] = replace(item, most=item.least)
        else:
            items.pop(place)


def _has_edge(node: _Node) -> bool:
    if isinstance(node, _Choice):
        return any(_has_edge(item) for items in node.sequences for item in items)
    return isinstance(node, _Edge) or (isinstance(node, _Repeat) and _has_edge(node.part))


# --- the limits ------------------------------------------------------------------------------------------------------


def _check_rules(node: _Node) -> int:
    """Return how many rules of a grammar a part becomes.

    Raises:
        _UnsupportedError: If the server refuses it.
    """
    if isinstance(node, _Choice):
        rules = 1 + sum(_check_rules(item) for items in node.sequences for item in items)
    elif isinstance(node, _Repeat):
        inner, count = _check_rules(node.part), node.most or node.least
        is_endless = node.most is None and _may_be_empty(node.part)  # left recursion
        if is_endless or count > MAX_COUNT or inner > MAX_REPEATED_RULES:
            raise _UnsupportedError
        rules = inner + count
    else:
        rules = 1
    if rules > MAX_RULES:
        raise _UnsupportedError
    return rules


def _may_be_empty(node: _Node) -> bool:
    if isinstance(node, _Choice):
        return any(all(map(_may_be_empty, items)) for items in node.sequences)
    return isinstance(node, _Repeat) and (node.least == 0 or _may_be_empty(node.part))


# --- writing ---------------------------------------------------------------------------------------------------------


def _group(choice: _Choice) -> str:
    return f"({'|'.join(map(_sequence, choice.sequences))})"


def _sequence(items: Sequence[_Node]) -> str:
    return "".join(map(_written, items))


def _written(node: _Node) -> str:
    if isinstance(node, _Choice):
        return _group(node)
    if isinstance(node, _Repeat):
        return _repeat(node)
    if isinstance(node, _Edge):
        raise _UnsupportedError
    single = _single(node)
    return f"\\{single}" if single and single in _AFTER_BACKSLASH else single or _set(node.ranges)


def _repeat(node: _Repeat) -> str:
    if node.most == 0:
        return ""
    if isinstance(node.part, _Choice):
        part = _group(node.part)
    else:
        single = _single(node.part)
        part = single if single in _PLAIN else _set(node.part.ranges)
    marks = {(0, None): "*", (1, None): "+", (0, 1): "?", (1, 1): ""}
    most = "" if node.most is None else node.most
    count = f"{{{node.least}}}" if node.most == node.least else f"{{{node.least},{most}}}"
    return part + marks.get((node.least, node.most), count)


def _single(node: _Chars) -> str:
    """Return the only character of a set if it can stand without brackets, else ""."""
    low, high = node.ranges[0] if len(node.ranges) == 1 else (0, LAST)
    return chr(low) if low == high and (chr(low) in _PLAIN or chr(low) in _AFTER_BACKSLASH) else ""


def _set(ranges: Ranges) -> str:
    """Return a set of characters as JSON writes them in a string."""
    plain = _intersection(ranges, _without(_NEVER_PLAIN))
    letters = [letter for code, letter in _ESCAPED.items() if _holds(ranges, code) and (code != 0x2F or len(plain) > 3)]
    if not plain and not letters:
        raise _UnsupportedError
    rest = _without((*plain, *_NEVER_PLAIN))
    if plain and plain[-1][1] == LAST:
        rest = _merged((*rest, *_NEVER_PLAIN[:3]))
        written = f"[^{''.join(map(_range, rest))}]"
    else:
        written = f"[{''.join(map(_range, plain))}]" if plain else ""
    if not letters:
        return written
    after = f"[{''.join(letters)}]"
    if ranges == ALL:
        after = f"({after}|u[0-9a-fA-F]{{4}})"
    return f"({written}{'|' if written else ''}\\\\{after})"


def _holds(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def _intersection(ranges: Ranges, others: Ranges) -> Ranges:
    return _without((*_without(ranges), *_without(others)))


def _range(pair: tuple[int, int]) -> str:
    low, high = pair
    if high - low < 2:
        return "".join(_member(code) for code in range(low, high + 1))
    return f"{_member(low)}-{_member(high)}"


def _member(code: int) -> str:
    """Return a character inside brackets, by the escapes that llama-grammar.cpp knows."""
    char = chr(code)
    if char in "[]\\":
        return f"\\{char}"
    if char not in "^-" and char.isprintable():
        return char
    return f"\\x{code:02X}" if code < 0x80 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


#: What is sent for any text, at an open end of a pattern.
ANY_TEXT = _written(_ANYTHING)
