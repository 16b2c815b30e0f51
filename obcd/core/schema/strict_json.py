"""JSON as RFC 8259 defines it; Python's own reader also accepts NaN, 1e999 as infinity, and repeated keys. Pure."""

from __future__ import annotations

import json
import math
from typing import NoReturn

from obcd.errors import LineError

#: A place that is longer is not named.
MAX_PLACE_LENGTH = 200


class RepeatedKeyError(LineError):
    """A key occurs twice in an object: it is unknown which of its values is meant."""


def refuse_constant(name: str) -> NoReturn:
    """Raise the error for NaN and Infinity; for `parse_constant` where the whole decoder takes too long."""
    raise LineError(f"{name} is not a JSON number")


def short_key(key: str) -> str:
    """Return the beginning of a key, for a message."""
    return key[:40].encode("unicode_escape").decode()


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RepeatedKeyError(f"the key `{short_key(repeated)}` occurs twice in it")
    return document


def _finite(text: str) -> float:
    """Parse a float; `1e999` is valid JSON but would be written as Infinity, which is not."""
    number = float(text)
    if math.isinf(number):
        raise LineError("a number in it is too large")
    return number


#: Raises LineError for text that Python accepts although it is not JSON, ValueError for text that Python refuses too.
DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=refuse_constant)


def place_of_bad_number(text: str) -> str:
    """Return the place of the first number in a JSON text that is NaN or infinite, e.g. `scores[2]`; "" if unknown.

    Linear; called only for a text that `DECODER` refused.
    """
    try:
        layer: list[tuple[str, object]] = [("", json.loads(text))]
    except (ValueError, RecursionError):
        return ""
    while layer:
        inner: list[tuple[str, object]] = []
        for place, value in layer:
            if isinstance(value, float) and not math.isfinite(value):
                return place
            if len(place) > MAX_PLACE_LENGTH:
                continue
            if isinstance(value, dict):
                inner += [(f"{place}.{short_key(key)}".removeprefix("."), item) for key, item in value.items()]
            elif isinstance(value, list):
                inner += [(f"{place}[{number}]", item) for number, item in enumerate(value)]
        layer = inner
    return ""


def depth_of(value: object) -> int:
    """Return the nesting depth of lists and objects, found level by level, without recursion; 0 for other values."""
    deepest, layer = 0, [value]
    while containers := [item for item in layer if isinstance(item, dict | list)]:
        deepest += 1
        layer = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    return deepest
