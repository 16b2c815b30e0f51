"""Rows of a program as lines of a prompt file: texts, mappings, conversations, objects; a line for each row, in order.

    "Why is the sky blue?"                             {"prompt": "Why is the sky blue?"}
    {"mrn": "7", "note": "BP 150/95"} and a template   {"id": "7", "prompt": "Summarise: BP 150/95"}
    [{"role": "user", "content": "Hi"}]                {"messages": [{"role": "user", "content": "Hi"}]}

A row whose fields do not fill the template becomes a line without a prompt, which fails: so line and row always have
the same number.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from obcd.core.request.rows import ID_FIELD
from obcd.core.request.templates import fields_of, fill, is_blank, parse_template
from obcd.errors import InputError, LineError, UsageError
from obcd.prompts.texts import RESERVED_KEYS, TEXT_FIELD
from obcd.text import printable

#: Rows without a prompt that are listed with their reason.
LISTED = 10
#: Rows of how many different sets of fields are remembered.
MOST_SHAPES = 100
#: Deepest nesting of a value in a row.
MAX_DEPTH = 100
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is requested for every row.

    Attributes:
        template: Makes the prompt of each row, as in a profile: `Summarise: {note}`; None: a row is a text, or a line
            of obcd with its own `prompt` or `messages`.
        id_field: The field of a row that is its id; without it the id is the row's number, from 1.
        keep: Fields that the results repeat in `extra`.
        line: Keys of every line, e.g. `{"model": "llama3.2", "think": False}`; those of a row come first.
    """

    template: str | None = None
    id_field: str = ID_FIELD
    keep: Sequence[str] = ()
    line: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.keep, str):
            raise UsageError(f"keep is a list of fields: keep=[{self.keep!r}]")
        if self.template is None:
            if self.keep or self.id_field != ID_FIELD:
                raise UsageError("keep and id_field are for rows with a template: without one a row is a line as it is")
            return
        try:
            parse_template(self.template)
        except ValueError as error:
            raise UsageError(f"the template cannot be read: {error}") from None
        if taken := sorted(RESERVED_KEYS.intersection(self.keep)):
            raise UsageError(f"keep: `{taken[0]}` has a meaning in a line of obcd: rename that column")

    @property
    def is_plain(self) -> bool:
        """Whether lines stay as they are."""
        return self.template is None and not self.line

    def wanted(self, names: Iterable[str]) -> list[str]:
        """Return those of a row's fields that have an effect on its line."""
        if self.template is None:
            return list(names)
        fields = fields_of(self.template)
        exact = {self.id_field, *self.keep, *(item.name for item in fields), *(item.text for item in fields)}
        within = tuple(item.name for item in fields)
        return [
            name for name in names if name in exact or any(one.startswith((f"{name}.", f"{name}[")) for one in within)
        ]


@dataclass(slots=True)
class LineWriter:
    """Makes the line of each row.

    Attributes:
        unfilled: The number of rows without a prompt.
        reasons: `[(row, reason)]` of the first of them; rows are counted from 1.
        has_ids: Whether a row has the field of the id.
    """

    wish: Wish
    rows: int = 0
    unfilled: int = 0
    reasons: list[tuple[int, str]] = field(default_factory=list)
    has_ids: bool = False
    _tail: bytes = field(init=False)
    _chosen: dict[tuple[object, ...], list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._tail = _encode(self.wish.line)[1:-1].encode("ascii")

    def lines(self, rows: Iterable[object]) -> Iterator[bytes]:
        """Yield the line of each row, in ASCII, with its LF.

        Raises:
            InputError: If a row is not one, or holds a value that JSON cannot hold; it names the row.
        """
        for row in rows:
            self.rows += 1
            try:
                document = self._document(row)
                raw = _encode(document)
            except (TypeError, ValueError, RecursionError) as error:
                raise InputError(f"row {self.rows}: {_why(error)}") from None
            yield self._with_tail(raw.encode("ascii"), document)

    def _document(self, row: object) -> Mapping[str, object]:
        if self.wish.template is None:
            return _mapping_of(row, "prompt")
        if isinstance(row, dict):
            row = {name: row[name] for name in self._wanted(row)}
        return self._from_template(_mapping_of(row, TEXT_FIELD))

    def _wanted(self, row: Mapping[Any, object]) -> list[str]:
        """Return the fields of a row that count; the others may hold what JSON cannot."""
        names = tuple(row)
        if names not in self._chosen:
            if len(self._chosen) >= MOST_SHAPES:
                self._chosen.clear()
            self._chosen[names] = self.wish.wanted(name for name in names if isinstance(name, str))
        return self._chosen[names]

    def _from_template(self, row: Mapping[str, object]) -> Mapping[str, object]:
        wish = self.wish
        if self.rows == 1 and (missing := [name for name in wish.keep if name not in row]):
            raise ValueError(f"it has no field `{printable(missing[0])}`, which keep= names")
        own = row.get(wish.id_field)
        self.has_ids = self.has_ids or wish.id_field in row
        document: dict[str, object] = {} if is_blank(own) else {"id": own}
        try:
            document["prompt"] = fill(wish.template or "", row)
        except LineError as error:
            document["prompt"] = ""
            self.unfilled += 1
            if len(self.reasons) < LISTED:
                self.reasons.append((self.rows, str(error)))
        for name in wish.keep:
            document[name] = row.get(name)
        return document

    def _with_tail(self, raw: bytes, document: Mapping[str, object]) -> bytes:
        if not self._tail:
            return raw + b"\n"
        if self.wish.template is None and not document.keys().isdisjoint(self.wish.line):
            return _encode({**self.wish.line, **document}).encode("ascii") + b"\n"
        return raw[:-1] + (b"," if document else b"") + self._tail + b"}\n"


_PLAIN_TYPES = frozenset((str, int, bool, type(None)))


def _why(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _mapping_of(row: object, text_field: str) -> Mapping[str, object]:
    """Return a row as plain JSON values.

    Raises:
        TypeError: If it is not a row.
    """
    value = plain(row)
    if isinstance(value, dict):
        return value
    if value is None or isinstance(value, str):
        return {text_field: value or ""}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {"messages": value}
    raise TypeError(f"{_kind(row)} is not a row: give texts, mappings, or lists of messages")


def plain(value: object, depth: int = 0) -> Any:  # noqa: C901, PLR0911 - a table of kinds
    """Return a value as JSON holds it: NaN, NaT and NA as None, times in ISO 8601, numpy's values as Python's.

    Raises:
        TypeError: If JSON has no form for it.
        RecursionError: If it is nested deeper than `MAX_DEPTH`.
    """
    if type(value) in _PLAIN_TYPES:
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth >= MAX_DEPTH:
        raise RecursionError
    if isinstance(value, dict | Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | PurePath | timedelta):
        return str(value)
    return _plain_object(value, depth)


def _plain_object(value: object, depth: int) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value), depth + 1)
    numpy, pydantic = sys.modules.get("numpy"), sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        if isinstance(value, numpy.datetime64 | numpy.timedelta64):  # nanoseconds have no type of Python
            return None if numpy.isnat(value) else str(value)
        return plain(value.tolist(), depth + 1)
    raise TypeError(f"{_kind(value)} is in it, which JSON cannot hold")


def _kind(value: object) -> str:
    return f"a value of the type {printable(type(value).__qualname__)}"
