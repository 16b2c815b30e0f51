"""Which kinds of values a column holds: by a JSON schema, and by the cells themselves."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, auto
from typing import Any

from obcd.core.schema.expansion import find_part

_INT64 = range(-(2**63), 2**63)
_EXACT_AS_FLOAT = range(-(2**53), 2**53 + 1)


class ColumnKind(Flag):
    """Which kinds of values a column holds; none of them: only nulls."""

    BOOL = auto()
    INT = auto()
    WIDE_INT = auto()  # exact as int64, not as a double
    FLOAT = auto()
    TEXT = auto()  # strings, and what has no type of its own: nested values, integers beyond int64


def schema_kinds(schema: Mapping[str, Any]) -> dict[str, ColumnKind]:
    """Return the columns that a schema gives: `{"age": Kind.INT, …}`; nothing where it is not that of an object.

    A column that may be of several types, or has none of ours, is text; nothing is said of one that may only be null.
    """
    properties = _resolved(schema, schema).get("properties")
    if not isinstance(properties, dict):
        return {}
    return {key: _schema_kind(_resolved(part, schema), schema, MOST_CHOICES) for key, part in properties.items()}


_SCHEMA_KINDS = {
    "boolean": ColumnKind.BOOL,
    "integer": ColumnKind.INT,
    "number": ColumnKind.FLOAT,
    "null": ColumnKind(0),
}


#: How deep a column's choices (`anyOf`) are followed; what lies deeper, or goes round in a circle, is text.
MOST_CHOICES = 4


def _schema_kind(part: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> ColumnKind:
    if not depth:
        return ColumnKind.TEXT
    for key in ("anyOf", "oneOf"):
        if isinstance(part.get(key), list):
            kinds = ColumnKind(0)
            for choice in part[key]:
                kinds |= _schema_kind(_resolved(choice, root), root, depth - 1)
            return kinds
    if isinstance(part.get("enum"), list):
        kinds = ColumnKind(0)
        for value in part["enum"]:
            kinds |= kind_of(value)
        return kinds
    if "const" in part:
        return kind_of(part["const"])
    types = part.get("type")
    kinds = ColumnKind(0)
    for name in types if isinstance(types, list) else [types]:
        kinds |= _SCHEMA_KINDS.get(str(name), ColumnKind.TEXT)
    return kinds


def _resolved(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a `$ref` into the schema itself, a few steps at most."""
    for _ in range(8):
        reference = part.get("$ref") if isinstance(part, dict) else None
        if not isinstance(reference, str):
            break
        part = find_part(root, reference)
    return part if isinstance(part, dict) else {}


def kind_of(cell: Any) -> ColumnKind:
    """Return the kind of one cell; nothing for null."""
    if cell is None:
        return ColumnKind(0)
    if isinstance(cell, bool):
        return ColumnKind.BOOL
    if isinstance(cell, float):
        return ColumnKind.FLOAT
    if isinstance(cell, int) and cell in _INT64:
        return ColumnKind.INT if cell in _EXACT_AS_FLOAT else ColumnKind.WIDE_INT
    return ColumnKind.TEXT
