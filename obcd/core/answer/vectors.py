"""Vectors of /api/embed: their JSON, and why a reply holds none, in one sentence. Pure.

The JSON of a vector goes through obcd as the server wrote it, from the reply to the published line: to parse 384
numbers a text and to write them again takes longer than everything else that is done for a short text.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, overload

from obcd.core.schema.strict_json import refuse_constant
from obcd.errors import LineError

_KEY: Final = b'"embeddings":'
#: All that vectors consist of, if they are written without spaces.
_CHARACTERS: Final = b"0123456789+-.eE,[]"
#: Stands for the vectors while the rest is parsed: no server and no record has this text for them.
_PLACE: Final = b"obcd: vectors that are not parsed"


class VectorsJson(Sequence[list[float]]):
    """Vectors with their JSON; numbers are made of it only if they are needed.

    Attributes:
        texts: The numbers of each vector, e.g. `b"0.6,-0.8"`.
    """

    __slots__ = ("_lists", "texts")

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.texts = texts
        self._lists: list[list[float]] | None = None

    @property
    def json(self) -> bytes:
        """The whole JSON, e.g. `[[0.6,-0.8],[1.0,0.0]]`."""
        return b"[[%b]]" % b"],[".join(self.texts)

    @property
    def lists(self) -> list[list[float]]:
        """The vectors as numbers.

        Raises:
            ValueError: If it is not JSON.
        """
        if self._lists is None:
            self._lists = json.loads(self.json)
        return self._lists

    def json_between(self, before: bytes, after: bytes) -> bytes:
        """Return the JSON of an object with the members of one, the vectors as `embeddings`, and those of another."""
        members = (before[1:-1], _KEY + self.json, after[1:-1])
        return b"{%b}" % b",".join(filter(None, members))

    def part(self, start: int, end: int) -> VectorsJson:
        """Return some of the vectors."""
        return VectorsJson(self.texts[start:end])

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> list[float]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[list[float]]: ...

    def __getitem__(self, index: int | slice) -> list[float] | Sequence[list[float]]:
        return self.lists[index]

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self.lists)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return self.lists == list(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.texts))

    def __repr__(self) -> str:
        return f"VectorsJson({self.lists})"


def parse_with_vectors(raw: bytes, parse_constant: Callable[[str], object] | None = None) -> object:
    """Parse JSON; `embeddings` at its top are `VectorsJson`, if they are vectors of numbers without spaces.

    Args:
        parse_constant: Called with `NaN`, `Infinity` or `-Infinity`, as by `json.loads`.

    Raises:
        ValueError, RecursionError: If it is not JSON.
    """
    start = raw.find(_KEY + b"[[")
    if start >= 0:
        start += len(_KEY)
        end = raw.find(b"]]", start) + 2
        vectors = raw[start:end]
        if end > start and not vectors.translate(None, _CHARACTERS):
            rest = b'%b"%b"%b' % (raw[:start], _PLACE, raw[end:])
            with contextlib.suppress(ValueError):  # lists in lists, for example
                document = json.loads(rest, parse_constant=parse_constant)
                if isinstance(document, dict) and document.get("embeddings") == _PLACE.decode():
                    return document | {"embeddings": VectorsJson(vectors[2:-2].split(b"],["))}
    return json.loads(raw, parse_constant=parse_constant)


def read_vectors(body: bytes) -> dict[str, object]:
    """Parse a reply of /api/embed: one JSON object without NaN and Infinity.

    A vector is a thousand numbers, so the stricter `json_objects.parse_object` would take ten times as long.

    Raises:
        LineError: If it is anything else.
    """
    try:
        document = parse_with_vectors(body, refuse_constant)
        if isinstance(document, dict) and isinstance(found := document.get("embeddings"), VectorsJson):
            _ = found.lists
    except (LineError, ValueError, RecursionError, MemoryError):
        raise LineError("not JSON") from None
    if not isinstance(document, dict):
        raise LineError("not an object")
    return document


def why_no_vectors(found: object, count: int) -> str:
    """Return what is wrong with the `embeddings` of a reply, or "" if nothing is.

    Args:
        found: Should be one list of numbers for each text, all of one length, e.g. `[[0.6, -0.8], [1.0, 0.0]]`.
        count: How many texts were sent.
    """
    if isinstance(found, VectorsJson):
        found = found.lists
    if not isinstance(found, list) or not all(isinstance(vector, list) for vector in found):
        return "the reply holds no vectors"
    if len(found) != count:
        return f"the reply holds {len(found)} vectors where {count} were expected"
    if len(set(map(len, found))) > 1:
        return "the reply holds vectors of different lengths"
    return next(filter(None, map(_why_no_vector, found)), "")


def _why_no_vector(vector: list[float]) -> str:
    if not vector:
        return "the reply holds a vector without numbers"
    if _is_plain(vector):
        return ""
    if not set(map(type, vector)) <= {int, float} or not all(map(is_finite, vector)):
        return "the reply holds a vector with something other than finite numbers in it"
    return "" if any(vector) else "the reply holds a vector of zeros only"


def _is_plain(vector: list[float]) -> bool:
    """Return whether a vector is surely a good one; quicker than to look at each of its numbers."""
    return set(map(type, vector)) == {float} and math.isfinite(sum(vector)) and any(vector)


def is_finite(number: float) -> bool:
    """Return whether a JSON number fits into a double: a whole number may have hundreds of digits."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
