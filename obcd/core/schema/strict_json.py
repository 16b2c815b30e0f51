"""JSON as RFC 8259 means it, where Python's own reader takes more: NaN, 1e999 as infinity, a key twice. Pure."""

from __future__ import annotations

import json
import math
from typing import NoReturn

from obcd.errors import LineError


class RepeatedKeyError(LineError):
    """A key stands twice in an object: which of its values is meant is anybody's guess."""


def refuse_constant(name: str) -> NoReturn:
    """Raise what is wrong with NaN and Infinity; for `parse_constant` where the whole decoder takes too long."""
    raise LineError(f"{name} is not a JSON number")


def short_key(key: str) -> str:
    """Return the beginning of a key, as it may stand in a message."""
    return key[:40].encode("unicode_escape").decode()


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RepeatedKeyError(f"the key `{short_key(repeated)}` stands in it twice")
    return document


def _finite(text: str) -> float:
    """Parse a float; `1e999` is valid JSON but would be written as Infinity, which is not."""
    number = float(text)
    if math.isinf(number):
        raise LineError("a number in it is too large")
    return number


#: Raises LineError for what is no JSON although Python takes it, ValueError for what Python does not take either.
DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=refuse_constant)


def depth_of(value: object) -> int:
    """Return how many lists and objects lie in each other, level by level, without recursion; 0 for other values."""
    deepest, layer = 0, [value]
    while containers := [item for item in layer if isinstance(item, dict | list)]:
        deepest += 1
        layer = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    return deepest
