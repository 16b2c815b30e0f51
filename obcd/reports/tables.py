"""Merge into tables, csv, parquet and sqlite: first pass collects values and columns, second pass writes rows.

An object's keys are columns, those of the job's schema first, then in the order in which they are first seen; anything
else goes into the column `value`.
Objects and arrays inside a cell are JSON. Fields of the answer itself (`line`, `id` …) come first when asked for.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
import shutil
import sqlite3
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Flag, auto
from pathlib import Path
from typing import Any, BinaryIO

from obcd.core.schemas import find_part
from obcd.errors import InputError, UsageError
from obcd.reports.answers import Answer
from obcd.reports.merge import Writer

#: fields of an answer that can be put beside its value
FIELDS = (
    "file",
    "line",
    "id",
    "prompt",
    "model",
    "done_reason",
    "endpoint",
    "attempts",
    "seconds",
    "prompt_tokens",
    "eval_tokens",
    "finished_at",
)
#: the column of answers that are no objects
VALUE_COLUMN = "value"
#: more than this is no table but free-form keys
MAX_COLUMNS = 10_000
#: what SQLite takes as it is compiled by default (SQLITE_MAX_COLUMN)
MAX_SQLITE_COLUMNS = 2000
#: how a cell begins that a spreadsheet computes (OWASP: CSV injection)
FORMULA_MARKS = frozenset("=+-@\t\r")
#: rows that are in memory at a time, at most, and their text in characters
ROWS_PER_GROUP = 10_000
CHARS_PER_GROUP = 16 * 1024 * 1024

_INT64 = range(-(2**63), 2**63)
_EXACT_AS_FLOAT = range(-(2**53), 2**53 + 1)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Kind(Flag):
    """Which kinds of values a column holds; none of them: only nulls."""

    BOOL = auto()
    INT = auto()
    WIDE_INT = auto()  # exact as int64, not as a double
    FLOAT = auto()
    TEXT = auto()  # strings, and what has no type of its own: nested values, integers beyond int64


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a finished first pass."""

    columns: dict[str, Kind]  #: {column name: kinds of its values}, fields first
    rows: Iterator[list[Any]]  # one cell a column; None where the answer has no such key


class TableWriter(Writer):
    """Collects rows in a temporary file in `folder`; what kind of table they become is up to the subclass."""

    def __init__(self, stream: BinaryIO, fields: tuple[str, ...] = (), folder: Path | None = None) -> None:
        self._stream = stream
        self._fields = fields
        self._field_kinds = {field: Kind(0) for field in fields}
        self._kinds: dict[str, Kind] = {}
        self._folder = folder
        self.formulas = 0  # cells that a spreadsheet would compute
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()

    def add(self, value: Any, answer: Answer) -> None:
        """Keep a row for the second pass and learn its columns.

        Raises:
            InputError: The answers have more different keys than a table can hold.
        """
        cells = value if isinstance(value, dict) else {VALUE_COLUMN: value}
        own = [_field(answer, field) for field in self._fields]
        for field, cell in zip(self._fields, own, strict=True):
            self._field_kinds[field] |= kind_of(cell)
        for key, cell in cells.items():
            self._kinds[key] = self._kinds.get(key, Kind(0)) | kind_of(cell)
        if len(self._kinds) > MAX_COLUMNS:
            raise InputError(f"the answers have more than {MAX_COLUMNS} different keys: merge them to jsonl instead")
        self._spool.write(json.dumps([own, cells]).encode("ascii") + b"\n")

    def expect(self, schema: Mapping[str, Any]) -> None:
        """Name and type the columns as a schema does that the answers fit; what they hold beyond it still counts."""
        for key, kind in schema_kinds(schema).items():
            self._kinds[key] = self._kinds.get(key, Kind(0)) | kind

    def finish(self) -> None:
        """Write the table."""
        self._write(Table(self._columns(), self._rows()))

    def close(self) -> None:
        """Drop the temporary file."""
        self._spool.close()

    @abstractmethod
    def _write(self, table: Table) -> None:
        """Write all rows to the stream."""

    def _columns(self) -> dict[str, Kind]:
        """Name the columns; a field that is also a key of the answers becomes `_line`, `_id` …"""
        named = {}
        for field, kind in self._field_kinds.items():
            name = field
            while name in self._kinds:
                name = f"_{name}"
            named[name] = kind
        columns = named | self._kinds
        return columns or {VALUE_COLUMN: Kind(0)}  # only `{}` was answered: rows of nothing still count

    def _rows(self) -> Iterator[list[Any]]:
        self._spool.seek(0)
        keys = list(self._kinds) or ([] if self._fields else [VALUE_COLUMN])
        for line in self._spool:
            own, cells = json.loads(line)
            yield own + [cells.get(key) for key in keys]


class CsvWriter(TableWriter):
    """RFC 4180: CRLF, quotes where needed, UTF-8; null is an empty cell, true and false as in JSON.

    Args:
        is_for_spreadsheets: Whether text that a spreadsheet would compute gets a `'` in front: a prompt can talk a
            model into `=HYPERLINK(…)` (CWE-1236). Otherwise such cells are as answered, and `formulas` counts them.
    """

    def __init__(
        self,
        stream: BinaryIO,
        fields: tuple[str, ...] = (),
        folder: Path | None = None,
        *,
        is_for_spreadsheets: bool = False,
    ) -> None:
        super().__init__(stream, fields, folder)
        self._is_for_spreadsheets = is_for_spreadsheets

    def _write(self, table: Table) -> None:
        text = io.TextIOWrapper(self._stream, encoding="utf-8", newline="", write_through=True)
        rows = csv.writer(text)
        rows.writerow([self._cell(name) for name in table.columns])
        rows.writerows([self._cell(cell) for cell in row] for row in table.rows)
        text.detach()

    def _cell(self, cell: Any) -> str | None:
        text = cell_text(cell)
        if not isinstance(cell, str) or text is None or text[:1] not in FORMULA_MARKS:
            return text
        self.formulas += 1
        return f"'{text}" if self._is_for_spreadsheets else text


class SqliteWriter(TableWriter):
    """A SQLite database with one table, `answers`; it is made in a file beside the output, and copied as a whole."""

    def _write(self, table: Table) -> None:
        if len(table.columns) > MAX_SQLITE_COLUMNS:
            raise InputError(f"the answers have more than {MAX_SQLITE_COLUMNS} different keys: merge them to jsonl")
        kinds = list(table.columns.values())
        columns = ", ".join(
            f"{_quoted(name)} {_sqlite_type(kind)}" for name, kind in zip(_distinct(table.columns), kinds, strict=True)
        )
        is_text = [_sqlite_type(kind) == "TEXT" for kind in kinds]
        insert = f"INSERT INTO answers VALUES ({', '.join('?' * len(kinds))})"  # noqa: S608 - marks only
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".sqlite") as file:
            with closing(sqlite3.connect(file.name)) as database:
                database.execute("PRAGMA journal_mode = OFF")  # a file that nobody sees needs no way back
                database.execute(f"CREATE TABLE answers ({columns})")
                for group in _groups(table.rows, is_text):
                    database.executemany(insert, group)
                database.commit()
            with open(file.name, "rb") as source:
                shutil.copyfileobj(source, self._stream, 2**20)


class ParquetWriter(TableWriter):
    """One row group for each `ROWS_PER_GROUP` rows; types from the data.

    Raises:
        UsageError: pyarrow is not installed; raised before any answer is read.
    """

    def __init__(self, stream: BinaryIO, fields: tuple[str, ...] = (), folder: Path | None = None) -> None:
        try:
            self._arrow = importlib.import_module("pyarrow")
            self._parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise UsageError("parquet needs pyarrow, which is not installed: pip install 'obcd[parquet]'") from error
        super().__init__(stream, fields, folder)

    def _write(self, table: Table) -> None:
        types = [self._type(kind) for kind in table.columns.values()]
        names = [_encodable(name) for name in table.columns]
        schema = self._arrow.schema(list(zip(names, types, strict=True)))
        is_text = [arrow_type == self._arrow.string() for arrow_type in types]
        with self._parquet.ParquetWriter(self._stream, schema) as writer:
            for group in _groups(table.rows, is_text):
                columns = [
                    self._arrow.array(cells, kind) for cells, kind in zip(zip(*group, strict=True), types, strict=True)
                ]
                writer.write_table(self._arrow.Table.from_arrays(columns, schema=schema))

    def _type(self, kind: Kind) -> Any:
        """Return the narrowest type that holds every value of a column exactly; strings hold anything."""
        if kind == Kind.BOOL:
            return self._arrow.bool_()
        if kind and kind in Kind.INT | Kind.WIDE_INT:
            return self._arrow.int64()
        if kind and kind in Kind.INT | Kind.FLOAT:
            return self._arrow.float64()
        return self._arrow.string()


def schema_kinds(schema: Mapping[str, Any]) -> dict[str, Kind]:
    """Return the columns that a schema gives: `{"age": Kind.INT, …}`; nothing where it is not that of an object.

    A column that may be of several types, or has none of ours, is text; nothing is said of one that may only be null.
    """
    properties = _resolved(schema, schema).get("properties")
    if not isinstance(properties, dict):
        return {}
    return {key: _schema_kind(_resolved(part, schema), schema) for key, part in properties.items()}


_SCHEMA_KINDS = {"boolean": Kind.BOOL, "integer": Kind.INT, "number": Kind.FLOAT, "null": Kind(0)}


def _schema_kind(part: Mapping[str, Any], root: Mapping[str, Any]) -> Kind:
    for key in ("anyOf", "oneOf"):
        if isinstance(part.get(key), list):
            kinds = Kind(0)
            for choice in part[key]:
                kinds |= _schema_kind(_resolved(choice, root), root)
            return kinds
    if isinstance(part.get("enum"), list):
        kinds = Kind(0)
        for value in part["enum"]:
            kinds |= kind_of(value)
        return kinds
    if "const" in part:
        return kind_of(part["const"])
    types = part.get("type")
    kinds = Kind(0)
    for name in types if isinstance(types, list) else [types]:
        kinds |= _SCHEMA_KINDS.get(str(name), Kind.TEXT)
    return kinds


def _resolved(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a `$ref` into the schema itself, a few steps at most."""
    for _ in range(8):
        reference = part.get("$ref") if isinstance(part, dict) else None
        if not isinstance(reference, str):
            break
        part = find_part(root, reference)
    return part if isinstance(part, dict) else {}


def kind_of(cell: Any) -> Kind:
    """Return the kind of one cell; nothing for null."""
    if cell is None:
        return Kind(0)
    if isinstance(cell, bool):
        return Kind.BOOL
    if isinstance(cell, float):
        return Kind.FLOAT
    if isinstance(cell, int) and cell in _INT64:
        return Kind.INT if cell in _EXACT_AS_FLOAT else Kind.WIDE_INT
    return Kind.TEXT


def cell_text(cell: Any) -> str | None:
    """Return a cell as text: strings as they are, everything else as JSON, None for null."""
    if cell is None:
        return None
    return _encodable(cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False))


def _sqlite_type(kind: Kind) -> str:
    """Return the narrowest type that holds every value of a column exactly."""
    if kind == Kind.BOOL:
        return "BOOLEAN"
    if kind and kind in Kind.INT | Kind.WIDE_INT:
        return "INTEGER"
    return "REAL" if kind and kind in Kind.INT | Kind.FLOAT else "TEXT"


def _distinct(names: Iterable[str]) -> list[str]:
    """Return names as SQLite can tell them apart: it does not know `Age` from `age`."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        chosen = _encodable(name).replace("\0", "\ufffd")
        while chosen.lower() in taken:
            chosen += "_"
        taken.add(chosen.lower())
        distinct.append(chosen)
    return distinct


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _groups(rows: Iterator[list[Any]], is_text: list[bool]) -> Iterator[list[list[Any]]]:
    """Yield rows in lists that fit into memory, the cells of text columns as text."""
    group: list[list[Any]] = []
    size = 0
    for row in rows:
        cells = [cell_text(cell) if text else cell for cell, text in zip(row, is_text, strict=True)]
        size += sum(len(cell) for cell in cells if isinstance(cell, str))
        group.append(cells)
        if len(group) >= ROWS_PER_GROUP or size >= CHARS_PER_GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _field(answer: Answer, name: str) -> Any:
    if name == "file":
        return answer.file
    if name == "line":
        return answer.line
    return answer.record.get(name)


def _encodable(text: str) -> str:
    r"""Replace lone surrogates (`"\ud800"` is valid JSON), which UTF-8 cannot hold."""
    return _SURROGATE.sub("\ufffd", text)
