"""The kinds of values in a column: by a JSON schema, and by the cells themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Flag, auto
from typing import Any

from obcd.core.schema.expansion import find_part

_INT64 = range(-(2**63), 2**63)
_EXACT_AS_FLOAT = range(-(2**53), 2**53 + 1)


class ColumnKind(Flag):
    """The kinds of values in a column; no kind: only nulls."""

    BOOL = auto()
    INT = auto()
    WIDE_INT = auto()  # exact as int64, not as a double
    FLOAT = auto()
    TEXT = auto()  # strings, and values without a type here: nested values, integers beyond int64


def schema_kinds(schema: Mapping[str, Any], keys: Sequence[str] | None = None) -> dict[str, ColumnKind]:
    """Return the columns of a schema: `{"age": Kind.INT, …}`; {} if the schema is not that of an object.

    Args:
        schema: Of the answers.
        keys: Where the list is whose items are the rows, if they are; None: each answer is a row.

    A column with several types, or with a type that is not a `ColumnKind`, is text; a column that may only be null gets
    no kind.
    """
    row = _resolved(schema, schema) if keys is None else schema_of_items(schema, keys)
    properties = row.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {key: _schema_kind(_resolved(part, schema), schema, MOST_CHOICES) for key, part in properties.items()}


def schema_of_items(schema: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    """Return the schema of an item of the list at these keys of an answer; {} if it cannot be followed."""
    part: Any = schema
    for key in keys:
        properties = _item(part, schema).get("properties")
        part = properties.get(key) if isinstance(properties, dict) else None
    return _item(part, schema)


def _item(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found = _resolved(part, root)
    for _ in range(MOST_CHOICES):
        if "items" not in found:
            break
        found = _resolved(found["items"], root)
    return found


_SCHEMA_KINDS = {
    "boolean": ColumnKind.BOOL,
    "integer": ColumnKind.INT,
    "number": ColumnKind.FLOAT,
    "null": ColumnKind(0),
}


#: How deep a column's choices (`anyOf`) are followed; a deeper or circular one is text.
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
    """Follow a `$ref` into the schema itself, at most a few steps."""
    for _ in range(8):
        reference = part.get("$ref") if isinstance(part, dict) else None
        if not isinstance(reference, str):
            break
        part = find_part(root, reference)
    return part if isinstance(part, dict) else {}


def kind_of(cell: Any) -> ColumnKind:
    """Return the kind of one cell; no kind for null."""
    if cell is None:
        return ColumnKind(0)
    if isinstance(cell, bool):
        return ColumnKind.BOOL
    if isinstance(cell, float):
        return ColumnKind.FLOAT
    if isinstance(cell, int) and cell in _INT64:
        return ColumnKind.INT if cell in _EXACT_AS_FLOAT else ColumnKind.WIDE_INT
    return ColumnKind.TEXT
