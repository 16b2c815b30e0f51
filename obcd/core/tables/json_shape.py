"""Files of JSON that are not a value a line: recognised by their first bytes, and written as a value a line. Pure.

    [                                    {"prompt": "a"}         an array: one line an element
      {"prompt": "a"},         ──►       {"prompt":"b"}
      {"prompt": "b"}
    ]
    {"prompt": "a"} {                                            objects one after another, wherever lines end
       "prompt": "b"}

Only white space outside of texts, and the commas and brackets between the elements, are left out: numbers, escapes and
the order of keys stay byte for byte. Elements are not judged here: their lines are parsed as any others. A file is read
block by block, and memory holds one block, whatever an element's size is: texts are found by one expression, and only
the few bytes between them are looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import NoReturn

from obcd.core.tables.file_format import JSON, Form, how_to_accept
from obcd.core.tables.unpacking import unfold
from obcd.errors import CutOffError, FormError

#: Deepest nesting of brackets in a file; a line has at most `lines.MAX_DEPTH` levels.
MAX_NESTING = 1000
#: The beginning by which the shape is recognised: the first line, if it is not longer; for objects a part of that.
MOST_HEAD_BYTES, OBJECT_HEAD_BYTES = 2**21, 2**16
#: Bytes that are converted at once.
BLOCK_BYTES = 2**17
#: Longest element that is searched for a role.
MOST_ROLE_BYTES = 2**22
BOM = b"\xef\xbb\xbf"
CONVERSATION = (
    'it is one conversation: every element of the array has a `role`; write it as one line, {"messages": […]}, or as '
    "one such array a line"
)

#: White space of JSON, Ctrl-Z, which ends texts of DOS, and RS, which begins each text of a sequence (RFC 7464).
_SPACE = b" \t\r\n\x1a\x1e"
_STRUCTURE = b',:[]{}"'
#: What numbers, true, false and null are made of, and what is not JSON at all.
_BARE = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
#: The kind of each byte between texts: structure, white space, other.
_KINDS = bytes(44 if byte in _STRUCTURE else 32 if byte in _SPACE else 97 for byte in range(256))
#: Bytes that are in no JSON text as they are.
_UNUSED = [bytes([byte]) for byte in (1, 2, 0xFE, 0xFF, *range(3, 9), *range(0xF8, 0xFE), *range(14, 26))]
_SPACES = re.compile(rb"[ \t\r\n\x1a\x1e]*+")
#: A row that was not valid, as `csv_reader` keeps it: a line of `retry.jsonl`.
_BAD_ROW = re.compile(rb'\["[^"\\]*+(?:\\.[^"\\]*+)*"\]\s*', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_GAP = re.compile(rb'([^\s\x1a\x1e,:\[\]{}"])[ \t\r\n\x1a\x1e]++(?=[^\s\x1a\x1e,:\[\]{}"])')
_ENDS = re.compile(rb"\n\n+")


def _element_pattern(levels: int) -> bytes:
    """Return the pattern of an element with at most this many levels of brackets, in linear time."""
    flat = rb"[^\[\]{}]*+"
    pattern = rb"[\[{]" + flat + rb"[\]}]"
    for _ in range(levels - 1):
        pattern = rb"[\[{]" + flat + rb"(?:" + pattern + flat + rb")*[\]}]"
    return pattern


#: Elements are found by one expression; those with more levels, and parts of elements, bracket by bracket.
_ELEMENT = re.compile(_element_pattern(6))
_RUN = re.compile(rb"(?:,*" + _element_pattern(6) + rb")*,*")


class JsonShape(StrEnum):
    """How the values of a file of JSON follow each other; the value is what such a file is."""

    LINES = "JSON lines"
    ARRAY = "a JSON array"
    OBJECTS = "JSON objects over several lines, or several in a line"


@dataclass(frozen=True, slots=True)
class JsonContent:
    """The content of a file of JSON, as a value a line.

    Attributes:
        blocks: The lines. If `shape` is LINES, the file's own (unpacked) bytes.
    """

    shape: JsonShape
    blocks: Iterator[bytes]


def open_json(blocks: Iterable[bytes], form: Form, most_bytes: int, *, is_data: bool = False) -> JsonContent:
    """Return the lines of a file.

    Args:
        most_bytes: The largest size of an unpacked file.
        is_data: Whether its elements are rows of data, whose keys have no meaning.

    Raises:
        FormError: Now or while it is read: if it is not what its name says, or cannot be followed; CutOffError if its
            end is missing.
    """
    shape, whole = recognise(unfold(blocks, form, most_bytes))
    if shape is JsonShape.LINES:
        return JsonContent(shape, whole)
    lines = _Converter(shape).convert(whole)
    if shape is JsonShape.ARRAY and not is_data:
        lines = _without_conversation(lines)
    return JsonContent(shape, lines)


def why_not_lines(shape: JsonShape, accepts: Iterable[str]) -> str:
    """Return why a file of this shape is not accepted, and what to do."""
    accept = how_to_accept(frozenset(accepts), [JSON])
    return f"it is {shape}, not JSON lines: {accept}, or make lines of it (obcd convert FILE -o lines.jsonl)"


def recognise(blocks: Iterable[bytes]) -> tuple[JsonShape, Iterator[bytes]]:
    """Return the shape of a file, by its beginning, and all of its blocks."""
    begin = _Beginning(iter(blocks))
    begin.read_line()
    shape = JsonShape.LINES
    if begin.sign == b"[":
        shape = _shape_of_array(begin.line, begin.read_sign_behind_line())
    elif begin.sign == b"{" and not (begin.has_line and _is_object(begin.line)):
        shape = _shape_of_objects(begin.read_bytes(OBJECT_HEAD_BYTES))
    return shape, chain([bytes(begin.content)] if begin.content else [], begin.rest)


@dataclass(slots=True)
class _Beginning:
    """The beginning of a file, as much of it as was needed.

    Attributes:
        start: The place of the first byte that is neither white space nor a byte order mark.
        end: The place of the LF of that line; -1 if it has none, or is too long.
    """

    rest: Iterator[bytes]
    content: bytearray = field(default_factory=bytearray)
    start: int = 0
    end: int = -1

    def read_line(self) -> None:
        searched = 0
        while self.end < 0 and self._read_block():
            self.start = self._skip_space(self.start or len(BOM) * self.content.startswith(BOM))
            self.end = self.content.find(b"\n", max(self.start, searched))
            searched = len(self.content)

    def read_sign_behind_line(self) -> bytes:
        """Return the first byte behind the line that is not white space, b"" at the end of the file."""
        if self.end < 0:
            return b""
        place = self._skip_space(self.end)
        while place == len(self.content) and self._read_block():
            place = self._skip_space(place)
        return bytes(self.content[place : place + 1])

    def read_bytes(self, count: int) -> bytes:
        while len(self.content) < self.start + count and self._read_block():
            pass
        return bytes(self.content[self.start : self.start + count])

    @property
    def sign(self) -> bytes:
        """The first byte."""
        return bytes(self.content[self.start : self.start + 1])

    @property
    def has_line(self) -> bool:
        """Whether all of the first line is there."""
        return self.end >= 0 or len(self.content) <= MOST_HEAD_BYTES

    @property
    def line(self) -> bytes:
        """The first line, or as much of it as is there."""
        return bytes(self.content[self.start : self.end if self.end >= 0 else len(self.content)])

    def _read_block(self) -> bool:
        block = next(self.rest, None) if len(self.content) <= MOST_HEAD_BYTES else None
        self.content += block or b""
        return block is not None

    def _skip_space(self, place: int) -> int:
        return _SPACES.match(self.content, place).end()  # type: ignore[union-attr] # it matches nothing too


def _shape_of_array(line: bytes, following: bytes) -> JsonShape:
    """Return the shape of a file that begins with a bracket.

    Args:
        line: Its first line.
        following: The first byte of what follows: another such line, or the rest of the array.
    """
    if _nesting_of(line) > 0:  # is it a line that was cut, among others? The rest of an array does not begin one
        is_cut = following == b"[" and not line.rstrip(_SPACE).endswith((b"[", b","))
        return JsonShape.LINES if is_cut else JsonShape.ARRAY
    return JsonShape.LINES if following or _BAD_ROW.fullmatch(line) else JsonShape.ARRAY


def _nesting_of(line: bytes) -> int:
    """Return how many brackets are open at the end of a line; block by block, because it may be long."""
    depth = place = 0
    is_in_text = False
    while place < len(line):
        block = line[place : place + BLOCK_BYTES]
        block = block[: len(block) - _half_escape(block)] or block
        place += len(block)
        pieces = block.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(pieces[is_in_text::2])
        is_in_text ^= len(pieces) % 2 == 0
        depth += outside.count(b"[") + outside.count(b"{") - outside.count(b"]") - outside.count(b"}")
    return depth


def _half_escape(block: bytes) -> int:
    """Return 1 if a block ends with the first half of an escape, else 0."""
    return (len(block) - len(block.rstrip(b"\\"))) % 2


def _is_object(line: bytes) -> bool:
    try:
        json.loads(line)
    except UnicodeDecodeError:  # its line is a bad one then, whatever the file is
        return _is_object(line.decode("utf-8", "replace").encode())
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _shape_of_objects(text: bytes) -> JsonShape:
    """Return the shape of a file that begins with a brace."""
    line, _, tail = text.partition(b"\n")
    if _is_object(line):
        return JsonShape.LINES
    if not line[1:].strip(_SPACE) and tail:  # a brace alone in its line
        return JsonShape.OBJECTS
    if len(text) == OBJECT_HEAD_BYTES:  # up to a line's end: nothing that has begun is cut there
        text = text.rpartition(b"\n")[0] or text
    shown = text.decode("utf-8", "replace").rstrip()
    is_several = True
    try:
        json.loads(shown)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # behind the first object, which is the first line, or which another one follows
            first = shown[: error.pos].rstrip(" \t\r\n,")
            second = shown[error.pos :].lstrip(" \t\r\n,")
            is_beside = "\n" not in shown[len(first) : len(shown) - len(second)] and second[:1] == "{"
            is_several = "\n" in first or is_beside
        else:
            is_open = error.pos >= len(shown) or error.msg.startswith("Unterminated")
            is_several = "\n" in shown and is_open
    except (ValueError, RecursionError):
        pass
    return JsonShape.OBJECTS if is_several else JsonShape.LINES


def _without_space(outside: bytes) -> bytes:
    """Return what is between texts without white space, except for a blank where two numbers would become one."""
    kinds = outside.translate(_KINDS)
    while b"  " in kinds:
        kinds = kinds.replace(b"  ", b" ")
    if b"a a" not in kinds:
        return outside.translate(None, _SPACE).replace(BOM, b"")
    return _GAP.sub(rb"\1\0", outside).translate(None, _SPACE).replace(b"\0", b" ")


class _Converter:
    """Writes the elements of a file as lines."""

    def __init__(self, shape: JsonShape) -> None:
        self._is_array = shape is JsonShape.ARRAY
        #: The depth of brackets between the elements, and the present one.
        self._base = self._depth = 0
        self._base = 1 if self._is_array else 0
        self._is_in_text = False
        self._carry = b""  # the end of a block that belongs to the next one
        self._built: list[bytes] = []  # the present block, so far
        self._is_last = False  # whether no block comes after this one
        self._elements = 0
        self._lines = 1  # of the file, up to the present block
        self._is_at_start = True  # whether what was written ends with LF

    def convert(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines, in blocks.

        Raises:
            FormError: If it is unclear where an element ends.
            CutOffError: If the end is missing.
        """
        begin: bytes | None = b""  # until there is enough of it for a byte order mark
        for block in blocks:
            if begin is not None:
                begin += block
                if len(begin) < len(BOM):
                    continue
                block, begin = begin.removeprefix(BOM), None  # noqa: PLW2901
            for start in range(0, len(block), BLOCK_BYTES):
                yield from self._take(block[start : start + BLOCK_BYTES])
        self._is_last = True
        yield from self._take(begin or b"")
        yield from self._take(b" ")  # what was carried over ends here
        self._end()

    def _take(self, block: bytes) -> Iterator[bytes]:
        block = self._carry + block
        end = len(block) if self._is_last else len(block) - _half_escape(block)
        self._carry, block = block[end:], block[:end]
        marks: list[bytes] = []
        if b"\\" in block:  # escapes become bytes that are no quotes, until the end
            marks = [byte for byte in _UNUSED if byte not in block][:2]
            if len(marks) < 2:
                raise FormError(f"it is not text, near line {self._lines}: save it as UTF-8")
            block = block.replace(b"\\\\", marks[0]).replace(b'\\"', marks[1])
        block = self._convert(block)
        if marks:
            block = block.replace(marks[1], b'\\"').replace(marks[0], b"\\\\")
        if block:
            yield block

    def _convert(self, block: bytes) -> bytes:
        """Return the lines of a block, in which every quote begins or ends a text."""
        pieces = block.split(b'"')
        head = b""
        if self._is_in_text:
            if len(pieces) == 1:
                self._check_line_feeds([b"", *pieces])
                return block
            head = pieces.pop(0) + b'"'
            self._check_line_feeds([b"", head])
        self._is_in_text = len(pieces) % 2 == 0
        if self._is_in_text:
            pieces.append(b"")  # as if the text ended with the block
        else:
            self._hold_back(pieces)
        outside = b'"'.join(pieces[::2])
        if b"\n" in b"".join(pieces[1::2]):
            self._check_line_feeds(pieces)
        line_feeds = outside.count(b"\n")
        outside = self._divide(_without_space(outside))
        self._lines += line_feeds
        if self._is_at_start and not head:
            outside = outside.lstrip(b"\n")
        self._elements += outside.count(b"\n")
        if outside or head:
            self._is_at_start = outside.endswith(b"\n")
        pieces[::2] = outside.split(b'"')
        lines = head + b'"'.join(pieces)
        return lines[:-1] if self._is_in_text else lines

    def _hold_back(self, pieces: list[bytes]) -> None:
        """Take off the end what only the next block completes: `12` and `34` are one number, `12` and ` 34` are not.

        Args:
            pieces: What is between texts, and texts, alternately.
        """
        kept = pieces[-1].rstrip(_BARE)
        bare = pieces[-1][len(kept) :]
        if len(bare) <= BLOCK_BYTES and bare.strip(_SPACE) and not self._is_last:
            self._carry, pieces[-1] = bare + self._carry, kept

    def _divide(self, outside: bytes) -> bytes:
        """Return the same with an LF behind each element, and without what is between the elements."""
        built = self._built = []
        place, base = 0, self._base
        while place < len(outside):
            if self._depth == base:
                end = _RUN.match(outside, place).end()  # type: ignore[union-attr] # it matches nothing too
                if end > place:
                    run = outside[place:end]
                    built += [b"\n" * run.startswith(b","), b"\n".join(_ELEMENT.findall(run)), b"\n"]
                    place = end
            place = self._divide_slowly(outside, place, built)
        return _ENDS.sub(b"\n", b"".join(built))

    def _divide_slowly(self, outside: bytes, place: int, built: list[bytes]) -> int:
        """Go on bracket by bracket, up to the end of the element; return where that is."""
        depth, base = self._depth, self._base
        for found in _BRACKET.finditer(outside, place):
            part, bracket = outside[place : found.start()], found[0]
            built.append(part if depth > base else self._between(part, depth))
            place = found.end()
            if bracket in b"{[":
                depth += 1
                if depth > base:
                    built.append(bracket)
                elif bracket == b"{":
                    self._refuse("there is an object behind the end of the array")
                if depth > MAX_NESTING:
                    self._refuse(f"it is nested deeper than {MAX_NESTING} levels")
            else:
                depth -= 1
                if depth >= base:
                    built.append(bracket)
                elif depth < 0 or bracket == b"}":
                    self._refuse(f"there is one `{bracket.decode()}` too many")
            if depth <= base:
                built.append(b"\n")
            self._depth = depth
            if depth == base:
                return place
        part = outside[place:]
        built.append(part if depth > base else self._between(part, depth))
        return len(outside)

    def _between(self, part: bytes, depth: int) -> bytes:
        """Return what is between elements, with LF for commas."""
        if self._is_array and depth == self._base:
            return part.replace(b",", b"\n")
        if part.strip(b","):
            self._refuse("there is something that belongs to no element")
        return b"\n" if part else b""

    def _refuse(self, why: str) -> NoReturn:
        ends = _ENDS.sub(b"\n", b"".join(self._built))
        count = self._elements + (ends.lstrip(b"\n") if self._is_at_start else ends).count(b"\n")
        raise FormError(f"{why}, behind element {count}: correct the file there")

    def _check_line_feeds(self, pieces: list[bytes]) -> None:
        """Refuse a text that goes over the end of its line: a quote is missing, and nobody knows where.

        Args:
            pieces: What is between texts, and texts, alternately.
        """
        line = self._lines
        for number, piece in enumerate(pieces):
            if b"\n" in piece and number % 2:
                raise FormError(
                    f"a text in line {line} of the file goes on in the next line: close its quote, or write \\n for "
                    "the line break in it"
                )
            line += piece.count(b"\n")

    def _end(self) -> None:
        if self._is_in_text or self._depth > self._base:
            raise CutOffError(f"its end is missing: element {self._elements + 1} is not complete")
        if self._depth:
            raise CutOffError(f"its end is missing: there is no ] behind element {self._elements}")


def _without_conversation(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of an array; raise FormError at its end if every element has a role."""
    rest, count = b"", 0
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield block
        if not all(map(_has_role, lines)) or len(rest) > MOST_ROLE_BYTES:
            yield from blocks
            return
        count += len(lines)
    if count:
        raise FormError(CONVERSATION)


def _has_role(line: bytes) -> bool:
    try:
        element = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(element, dict) and "role" in element
