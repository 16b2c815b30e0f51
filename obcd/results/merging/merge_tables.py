"""Merge into tables, csv, parquet and sqlite: first pass collects values and columns, second pass writes rows.

The keys of an object are columns: those of the job's schema first, then the others in the order of their first
appearance; any other value goes into the column `value`.
Objects and arrays inside a cell are JSON. `merge_rows` decides about the columns before them.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import tempfile
from abc import abstractmethod
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from obcd.errors import InputError
from obcd.results.merging.column_kinds import ColumnKind
from obcd.results.merging.merge import load_pyarrow
from obcd.results.merging.merge_rows import VALUE_COLUMN, Column, Part, RowWriter

#: the maximum of SQLite as it is compiled by default (SQLITE_MAX_COLUMN)
MAX_SQLITE_COLUMNS = 2000
#: the beginnings of a cell that a spreadsheet computes (OWASP: CSV injection)
FORMULA_MARKS = frozenset("=+-@\t\r\n＝＋－＠")
#: most characters of a cell in Excel ("Excel specifications and limits", support.microsoft.com)
EXCEL_CHARS = 32_767
#: maximum number of rows in memory, and of the characters of their text
ROWS_PER_GROUP = 10_000
CHARS_PER_GROUP = 16 * 1024 * 1024
#: The characters that an empty cell counts for.
CELL_CHARS = 8

#: NUL ends a text of C (and Python's csv refused it before 3.11); Ctrl-Z is the end of a file for DOS, R and MySQL.
_CUT_MARK = re.compile("[\0\x1a]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class MergeTable:
    """The rows of a finished first pass."""

    columns: dict[str, ColumnKind]  #: {column name: kinds of its values}, fields first
    rows: Iterator[list[Any]]  # one cell a column; None where the answer has no such key


class TableWriter(RowWriter):
    """Makes rows with a cell for each column; the subclass decides about the kind of table."""

    def _write_rows(self, columns: list[Column]) -> None:
        # All answers are `{}`: rows without a column still count.
        columns = columns or [Column(VALUE_COLUMN, Part.VALUE, VALUE_COLUMN, ColumnKind(0))]
        rows = ([parts[column.part].get(column.key) for column in columns] for parts in self._parts())
        self._write(MergeTable({column.name: column.kind for column in columns}, rows))

    @abstractmethod
    def _write(self, table: MergeTable) -> None:
        """Write all rows to the stream."""


class CsvWriter(TableWriter):
    """RFC 4180: CRLF, quotes where needed, UTF-8; null is an empty cell, true and false as in JSON.

    NUL and Ctrl-Z become U+FFFD, and `cut_marks` counts these cells: many readers end a cell or the file there.

    Args:
        is_for_spreadsheets: Whether text that a spreadsheet would compute gets a leading `'`, because a prompt can talk
            a model into `=HYPERLINK(…)` (CWE-1236). The file then also begins with a byte order mark, without which
            Excel takes UTF-8 for the machine's old encoding. If false, such cells are unchanged, and `formulas` counts
            them.
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
        self.formulas = 0  # cells that a spreadsheet would compute
        self.cut_marks = 0
        self.long_cells = 0  # cells of which Excel shows only a part

    def _write(self, table: MergeTable) -> None:
        if self._is_for_spreadsheets:
            self._stream.write(BOM_UTF8)
        text = io.TextIOWrapper(self._stream, encoding="utf-8", newline="", write_through=True)
        rows = csv.writer(text)
        rows.writerow(_apart(self._cell(name) or "" for name in table.columns))
        rows.writerows([self._cell(cell) for cell in row] for row in table.rows)
        text.detach()

    def _cell(self, cell: Any) -> str | None:
        text = cell_text(cell)
        if not isinstance(cell, str) or text is None:
            return text
        if _CUT_MARK.search(text):
            self.cut_marks += 1
            text = _CUT_MARK.sub("\ufffd", text)
        self.long_cells += len(text) > EXCEL_CHARS
        if text[:1] not in FORMULA_MARKS:
            return text
        self.formulas += 1
        return f"'{text}" if self._is_for_spreadsheets else text


class SqliteWriter(TableWriter):
    """A SQLite database with one table, `answers`; it is built in a file beside the output, and copied as a whole."""

    def _write(self, table: MergeTable) -> None:
        if len(table.columns) > MAX_SQLITE_COLUMNS:
            raise InputError(f"the answers have more than {MAX_SQLITE_COLUMNS} different keys: merge them to jsonl")
        kinds = list(table.columns.values())
        names = _distinct(table.columns)
        for name, chosen in zip(table.columns, names, strict=True):
            if chosen != name:
                self.renamed[chosen] = self.renamed.pop(name, name)
        columns = ", ".join(f"{_quoted(name)} {_sqlite_type(kind)}" for name, kind in zip(names, kinds, strict=True))
        is_text = [_sqlite_type(kind) == "TEXT" for kind in kinds]
        insert = f"INSERT INTO answers VALUES ({', '.join('?' * len(kinds))})"  # noqa: S608 - marks only
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".sqlite") as file:
            with closing(sqlite3.connect(file.name)) as database:
                database.execute("PRAGMA journal_mode = OFF")  # no other program sees the file, so it needs no rollback
                database.execute(f"CREATE TABLE answers ({columns})")
                for group in _groups(table.rows, is_text):
                    database.executemany(insert, group)
                database.commit()
            with open(file.name, "rb") as source:
                shutil.copyfileobj(source, self._stream, 2**20)


class ParquetWriter(TableWriter):
    """One row group for each `ROWS_PER_GROUP` rows; the types are those of the data.

    Raises:
        UsageError: If pyarrow is not installed; raised before any answer is read.
    """

    def __init__(self, stream: BinaryIO, fields: tuple[str, ...] = (), folder: Path | None = None) -> None:
        self._arrow = load_pyarrow()
        super().__init__(stream, fields, folder)

    def _write(self, table: MergeTable) -> None:
        types = [self._type(kind) for kind in table.columns.values()]
        names = [_encodable(name) for name in table.columns]
        schema = self._arrow.schema(list(zip(names, types, strict=True)))
        is_text = [arrow_type == self._arrow.string() for arrow_type in types]
        with self._arrow.parquet.ParquetWriter(self._stream, schema) as writer:
            for group in _groups(table.rows, is_text):
                columns = [
                    self._arrow.array(cells, kind) for cells, kind in zip(zip(*group, strict=True), types, strict=True)
                ]
                writer.write_table(self._arrow.Table.from_arrays(columns, schema=schema))

    def _type(self, kind: ColumnKind) -> Any:
        """Return the narrowest type that holds every value of a column exactly; strings hold anything."""
        if kind == ColumnKind.BOOL:
            return self._arrow.bool_()
        if kind and kind in ColumnKind.INT | ColumnKind.WIDE_INT:
            return self._arrow.int64()
        if kind and kind in ColumnKind.INT | ColumnKind.FLOAT:
            return self._arrow.float64()
        return self._arrow.string()


def cell_text(cell: Any) -> str | None:
    """Return a cell as text: strings unchanged, everything else as JSON, None for null."""
    if cell is None:
        return None
    return _encodable(cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False))


def _sqlite_type(kind: ColumnKind) -> str:
    """Return the narrowest type that holds every value of a column exactly."""
    if kind == ColumnKind.BOOL:
        return "BOOLEAN"
    if kind and kind in ColumnKind.INT | ColumnKind.WIDE_INT:
        return "INTEGER"
    return "REAL" if kind and kind in ColumnKind.INT | ColumnKind.FLOAT else "TEXT"


def _distinct(names: Iterable[str]) -> list[str]:
    """Return names that are distinct for SQLite, to which `Age` and `age` are equal."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        chosen = _encodable(name).replace("\0", "\ufffd")
        while chosen.lower() in taken:
            chosen += "_"
        taken.add(chosen.lower())
        distinct.append(chosen)
    return distinct


def _apart(names: Iterable[str]) -> Iterator[str]:
    """Yield names, with a `_` behind those that equal an earlier one: `_cell` may make two of them equal."""
    taken: set[str] = set()
    for name in names:
        while name in taken:
            name += "_"  # noqa: PLW2901
        taken.add(name)
        yield name


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _groups(rows: Iterator[list[Any]], is_text: list[bool]) -> Iterator[list[list[Any]]]:
    """Yield rows in lists that fit into memory, with the cells of text columns as text."""
    group: list[list[Any]] = []
    size = 0
    for row in rows:
        cells = [cell_text(cell) if text else cell for cell, text in zip(row, is_text, strict=True)]
        size += CELL_CHARS * len(cells) + sum(len(cell) for cell in cells if isinstance(cell, str))
        group.append(cells)
        if len(group) >= ROWS_PER_GROUP or size >= CHARS_PER_GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _encodable(text: str) -> str:
    r"""Replace lone surrogates (`"\ud800"` is valid JSON), which UTF-8 cannot hold."""
    return _SURROGATE.sub("\ufffd", text)
