"""Draft a JSON schema from examples: records, or rows of a CSV file. Pure except for reading the given rows.

A key that every example has is required, a key that one of them lacks is optional; no other key is allowed. It is a
draft: its user knows better which texts are dates, how long they may be, and which values there are.

Own code: genson (1.4) sorts `required` and the types, makes an `anyOf` of every nullable date or list, limits neither
depth nor keys, and forbids no further keys; the code that it would need around it is as long as this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from obcd.core.tables.csv_table import CsvTable
from obcd.errors import InputError

#: Maximum number of different keys; more are free-form keys and not a record.
MAX_KEYS = 1000
#: Longest row of a table, in bytes.
MAX_ROW_BYTES = 2**28
#: Maximum nesting.
MAX_DEPTH = 32
#: Texts that all match this get it as their pattern, which makes a model's answers end.
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
DATE_PATTERN = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?", re.ASCII)
_FLAGS = {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False}
#: The order in which a schema names them.
_TYPES = {
    dict: "object", list: "array", str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null",
}  # fmt: skip


@dataclass(slots=True)
class _Seen:
    """The values that the examples have at one place."""

    types: set[str] = field(default_factory=set)
    objects: int = 0
    keys: dict[str, _Seen] = field(default_factory=dict)
    #: {key: how many of the objects have it}
    having: dict[str, int] = field(default_factory=dict)
    items: _Seen | None = None
    are_dates: bool = True

    def note(self, value: object, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise InputError(f"an example is nested more than {MAX_DEPTH} deep")
        self.types.add(_TYPES[type(value)])
        if isinstance(value, str):
            self.are_dates = self.are_dates and DATE.fullmatch(value) is not None
        if isinstance(value, list):
            self.items = self.items or _Seen()
            for item in value:
                self.items.note(item, depth + 1)
        if isinstance(value, dict):
            self.objects += 1
            for key, part in value.items():
                self.keys.setdefault(key, _Seen()).note(part, depth + 1)
                self.having[key] = self.having.get(key, 0) + 1
            if len(self.keys) > MAX_KEYS:
                raise InputError(
                    f"the examples have more than {MAX_KEYS} different keys: they are not records of one kind"
                )

    def schema(self) -> dict[str, object]:
        found = self.types - {"integer"} if "number" in self.types else self.types
        types = [name for name in _TYPES.values() if name in found]
        if not types:
            return {}
        schema: dict[str, object] = {"type": types[0] if len(types) == 1 else types}
        if "string" in types and self.are_dates:
            schema["pattern"] = DATE_PATTERN
        if "array" in types:
            schema["items"] = self.items.schema() if self.items is not None else {}
        if "object" in types:
            schema["properties"] = {key: part.schema() for key, part in self.keys.items()}
            schema["required"] = [key for key in self.keys if self.having[key] == self.objects]
            schema["additionalProperties"] = False
        return schema


def draft_schema(examples: Iterable[object]) -> dict[str, object]:
    """Return a JSON schema that every example satisfies.

    Args:
        examples: JSON values, read once: `{"age": 54}` gives `{"type": "object", "properties": {"age": {"type":
            "integer"}}, "required": ["age"], "additionalProperties": false}`.

    Raises:
        InputError: If there is no example, or the examples are not records of one kind.
    """
    seen, count = _Seen(), 0
    for example in examples:
        seen.note(example)
        count += 1
    if not count:
        raise InputError("there is no example in it")
    return seen.schema()


def csv_examples(
    blocks: Iterable[bytes], delimiter: str = ",", quotes: bool | None = None
) -> Iterator[dict[str, object]]:
    """Yield the rows of a CSV file as records; a cell's type is the narrowest that all cells of its column have.

    A pipe allows no second pass, so each cell gets the type that it alone could have; `draft_schema` widens it. Numbers
    with a leading zero are texts (`007`), empty cells are null.

    Raises:
        InputError: If the file has no header, a row of another length, or a field that is too long.
    """
    table = CsvTable(delimiter, MAX_ROW_BYTES, quotes)
    table.open(blocks)
    if len(set(table.header)) < len(table.header):
        raise InputError("two of its columns have the same name: name each differently")
    for cells in table.rows():
        if isinstance(cells, str):
            raise InputError(f"line {table.first}: {cells}")
        named = enumerate(zip(table.header, cells, strict=True))
        yield {name: _cell(text) for place, (name, text) in named if text.strip() or place not in table.unnamed}


def settle_columns(schema: dict[str, object]) -> dict[str, object]:
    """Widen the columns of a table whose cells differ: a column of texts and numbers holds texts."""
    properties = schema.get("properties")
    for part in properties.values() if isinstance(properties, dict) else ():
        types = part["type"] if isinstance(part["type"], list) else [part["type"]]
        kinds = [name for name in types if name != "null"]
        if len(kinds) > 1:
            kinds = ["string"]
            part.pop("pattern", None)
        wide = kinds + [name for name in types if name == "null"]
        part["type"] = wide[0] if len(wide) == 1 else wide
    return schema


def is_schema(document: object) -> TypeGuard[Mapping[str, object]]:
    """Return whether a document looks like a JSON schema and not like a record."""
    if not isinstance(document, Mapping):
        return False
    is_typed = document.get("type") in _TYPES.values()
    has_type = is_typed and any(key in document for key in ("properties", "items", "required"))
    return "$schema" in document or has_type


def _cell(text: str) -> object:
    if not text.strip():
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
