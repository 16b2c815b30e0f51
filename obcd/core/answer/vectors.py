"""Vectors of /api/embed: why a reply holds none, in one sentence. Pure."""

from __future__ import annotations

import json
import math

from obcd.core.schema.strict_json import refuse_constant
from obcd.errors import LineError


def read_vectors(body: bytes) -> dict[str, object]:
    """Parse a reply of /api/embed: one JSON object without NaN and Infinity.

    A vector is a thousand numbers, so the stricter `json_objects.parse_object` would take ten times as long.

    Raises:
        LineError: If it is anything else.
    """
    try:
        document = json.loads(body, parse_constant=refuse_constant)
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
    if not set(map(type, vector)) <= {int, float} or not all(map(is_finite, vector)):
        return "the reply holds a vector with something other than finite numbers in it"
    return "" if any(vector) else "the reply holds a vector of zeros only"


def is_finite(number: float) -> bool:
    """Return whether a JSON number fits into a double: a whole number may have hundreds of digits."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
