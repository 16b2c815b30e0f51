"""Rows of a merge: the fields of the answer, the keys of its prompt line, those around a list, those of the value.

A row is collected as its four parts, because a name may be in several of them: the columns get their names when all
rows are known. A name that is taken gets a leading `_`: the value's keys keep their names, then those around the list
whose item it is, then the fields.

    [{"line": 7, "id": "r-7"}, {"mrn": "482913"}, {}, {"id": "of the value", "age": 54}]
    line, _id, mrn, id, age
"""

from __future__ import annotations

import json
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from obcd.errors import InputError
from obcd.results.merging.column_kinds import ColumnKind, kind_of, schema_kinds
from obcd.results.merging.merge import NOTHING_AROUND, JsonlWriter, JsonWriter, Writer
from obcd.results.reading.answers import Answer

#: the field for all keys of the line that obcd does not know, each as a separate column
EXTRA = "extra"
#: fields of an answer that can be columns beside its value
FIELDS = (
    "file",
    "line",
    "id",
    EXTRA,
    "prompt",
    "index",
    "seed",
    "thinking",
    "tool_calls",
    "model",
    "done_reason",
    "endpoint",
    "attempts",
    "seconds",
    "prompt_tokens",
    "eval_tokens",
    "finished_at",
)
#: the column of answers that are not objects
VALUE_COLUMN = "value"
#: maximum number of columns; more are free-form keys and not a table
MAX_COLUMNS = 10_000


class Part(IntEnum):
    """The origins of a column, in the order of the columns."""

    FIELD = 0
    EXTRA = 1
    AROUND = 2
    VALUE = 3


#: The order in which the columns get their names.
_NAMING = (Part.VALUE, Part.AROUND, Part.FIELD, Part.EXTRA)


#: {key: cell} of each part
_Parts = list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a finished first pass."""

    name: str
    part: Part
    key: str  # in that part
    kind: ColumnKind  # of all its cells


class RowWriter(Writer):
    """Collects rows in a temporary file in `folder`; the subclass writes them."""

    #: The keys to the list whose items are the rows; None: each value is a row.
    item_keys: Sequence[str] | None = None

    def __init__(self, stream: BinaryIO, fields: tuple[str, ...] = (), folder: Path | None = None) -> None:
        self._stream = stream
        self._fields = tuple(field for field in fields if field != EXTRA)
        self._has_extra = EXTRA in fields
        self._kinds: tuple[dict[str, ColumnKind], ...] = (dict.fromkeys(self._fields, ColumnKind(0)), {}, {}, {})
        self._folder = folder
        self.renamed: dict[str, str] = {}  #: {column name: its name if that were not taken}
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()

    def add(self, value: object, answer: Answer, around: Mapping[str, object] = NOTHING_AROUND) -> None:
        """Keep a row for the second pass and learn its columns.

        Raises:
            InputError: If the answers have more different keys than a table can hold.
        """
        extra = answer.record.get(EXTRA) if self._has_extra else None
        parts: _Parts = [
            {field: _field(answer, field) for field in self._fields},
            extra if isinstance(extra, dict) else {},
            dict(around),
            value if isinstance(value, dict) else {VALUE_COLUMN: value},
        ]
        for kinds, cells in zip(self._kinds, parts, strict=True):
            for key, cell in cells.items():
                kinds[key] = kinds.get(key, ColumnKind(0)) | kind_of(cell)
        if sum(len(self._kinds[part]) for part in (Part.VALUE, Part.AROUND, Part.EXTRA)) > MAX_COLUMNS:
            raise InputError(
                f"the answers have more than {MAX_COLUMNS} different keys: merge them to jsonl instead, without --with"
            )
        self._spool.write(json.dumps(parts).encode("ascii") + b"\n")

    def expect(self, schema: Mapping[str, object]) -> None:
        """Name and type the columns by the schema of the answers; further keys of the answers still count."""
        kinds = self._kinds[Part.VALUE]
        for key, kind in schema_kinds(schema, self.item_keys).items():
            kinds[key] = kinds.get(key, ColumnKind(0)) | kind

    def finish(self) -> None:
        """Write all rows."""
        columns = self._columns()
        self.renamed = {column.name: column.key for column in columns if column.name != column.key}
        self._write_rows(columns)

    def close(self) -> None:
        """Delete the temporary file."""
        self._spool.close()

    @abstractmethod
    def _write_rows(self, columns: list[Column]) -> None:
        """Write all rows to the stream."""

    def _columns(self) -> list[Column]:
        taken: set[str] = set()
        names: dict[tuple[Part, str], str] = {}
        for part in _NAMING:
            for key in self._kinds[part]:
                name = key
                while name in taken:
                    name = f"_{name}"
                taken.add(name)
                names[part, key] = name
        return [Column(names[part, key], part, key, kind) for part in Part for key, kind in self._kinds[part].items()]

    def _parts(self) -> Iterator[_Parts]:
        self._spool.seek(0)
        for line in self._spool:
            yield json.loads(line)


class ObjectsWriter(RowWriter):
    """Writes each row as a JSON object: all fields, and those of the other keys that the row has."""

    def __init__(self, inner: JsonWriter | JsonlWriter, fields: tuple[str, ...], folder: Path | None = None) -> None:
        super().__init__(inner.stream, fields, folder)
        self._inner = inner

    def _write_rows(self, columns: list[Column]) -> None:
        names = {(column.part, column.key): column.name for column in columns}
        for parts in self._parts():
            pairs = ((part, key, cell) for part in Part for key, cell in parts[part].items())
            self._inner.add({names[part, key]: cell for part, key, cell in pairs})
        self._inner.finish()


def _field(answer: Answer, name: str) -> object:
    match name:
        case "file":
            return answer.file
        case "line":
            return answer.line
        case "index":
            return answer.index
        case _:  # as it was read
            return answer.record.get(name)
