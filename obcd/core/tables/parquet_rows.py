"""Parquet as JSON lines, one for each row, by the names of its columns; a few rows at a time.

    prompt: string    messages: list<struct<role, content>>    when: timestamp
    {"prompt": "…", "messages": [{"role": "user", "content": "…"}], "when": "2026-11-30T08:00:00"}

Nested columns are JSON values. Dates, times and decimals are texts, as ISO 8601 and Python write them; binary columns
are texts if they are UTF-8, else base64; NaN and infinities, which JSON does not have, are null. If no template makes
the prompts, the columns are keys of the line, as those of CSV are: null in a column with the name of an obcd key means
that the line does not have the key, and texts in columns of `csv_cells.JSON_CELLS` hold JSON. pyarrow reads the file
(an extra of obcd); it is imported only here.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import IO, Any

from obcd.core.request.rows import Reading
from obcd.core.tables.csv_cells import DOORS, check_columns, keys_of, read_value
from obcd.core.tables.csv_reader import Row, encoded
from obcd.core.tables.csv_table import MAX_COLUMNS
from obcd.core.tables.file_format import PARQUET, Form, why_no_reader
from obcd.core.tables.memory_limit import memory_limit
from obcd.errors import CutOffError, FormError, LineError
from obcd.text import printable

MAGIC = b"PAR1"
#: Rows that are read at once: at most so many, and about so many bytes.
MOST_ROWS, BATCH_BYTES = 128, 2**22
#: Largest part of a file (a row group) that is read, in bytes of its columns: pyarrow holds one in memory.
MAX_GROUP_BYTES = 2**31
#: Most memory that pyarrow may take to read a few rows, in bytes, whatever the file says of its sizes: its pages, and a
#: GiB of addresses that it reserves and does not use.
MAX_MEMORY_BYTES = 3 * 2**30
#: What is read of a column at once, in bytes: without it, all of a row group.
BUFFER_BYTES = 2**20


@dataclass(slots=True)
class ParquetSheet:
    """Reads Parquet.

    Attributes:
        reading: How its rows are read.
        header: The names of its columns, once a row was read.
    """

    reading: Reading
    header: list[str] = field(init=False, default_factory=list)

    @staticmethod
    def check(file: IO[bytes]) -> None:
        """Check whether a file seems complete.

        Raises:
            CutOffError: If its end is missing.
            FormError: If it is not Parquet.
        """
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        begin = file.read(len(MAGIC))
        file.seek(max(0, size - len(MAGIC)))
        end = file.read(len(MAGIC))
        file.seek(0)
        if begin and not MAGIC.startswith(begin):
            raise FormError("it is not a Parquet file, although its name ends in .parquet: rename it")
        if end != MAGIC or size < 3 * len(MAGIC):
            raise CutOffError("the end of the Parquet file is missing")

    def rows(self, file: IO[bytes]) -> Iterator[Row]:
        """Yield the rows of a file that can be read at any place.

        Raises:
            FormError: If it is damaged, cut off or too large in its parts, or no row could be a request; or an extra
                of obcd is missing.
        """
        self.check(file)
        if why := why_no_reader(Form(PARQUET)):
            raise FormError(why)
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        try:
            with parquet.ParquetFile(
                arrow.PythonFile(file, mode="r"), buffer_size=BUFFER_BYTES, pre_buffer=False
            ) as opened:
                self._check_columns(opened)
                batches = opened.iter_batches(self._batch_size(opened.metadata), use_threads=False)
                for part in _small_parts(batches):
                    for row in _plain_times(part, arrow).to_pylist():
                        yield self._row(row)
        except MemoryError:
            raise FormError(
                f"a part of it needs more than {MAX_MEMORY_BYTES} bytes of memory: write it with smaller row groups, "
                "and without dictionaries"
            ) from None
        except UnicodeDecodeError:
            raise FormError("a text in it is not UTF-8") from None
        except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
            why = f"it is a Parquet file that cannot be read ({type(error).__name__}): write it again"
            raise FormError(why) from None

    def _check_columns(self, opened: Any) -> None:
        header = self.header = list(opened.schema_arrow.names)
        if len(header) > MAX_COLUMNS:
            raise FormError(f"it has {len(header)} columns, more than {MAX_COLUMNS}")
        if twice := next((name for name in header if header.count(name) > 1), None):
            raise FormError(f"two of its columns are named `{printable(twice)}`: rename one")
        if self.reading.template is None:
            check_columns(header)

    @staticmethod
    def _batch_size(metadata: Any) -> int:
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        size = max((group.total_byte_size for group in groups), default=0)
        if size > MAX_GROUP_BYTES:
            raise FormError(f"a row group in it has more than {MAX_GROUP_BYTES} bytes: write it with smaller ones")
        average = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
        return max(1, min(MOST_ROWS, BATCH_BYTES // max(1, average)))

    def _row(self, row: dict[str, object]) -> Row:
        document = {name: _json_value(value) for name, value in row.items()}
        try:
            if self.reading.template is None:
                document = _as_line(document)
        except LineError as error:
            return Row(json.dumps([json.dumps(document)]).encode(), str(error))
        return Row(encoded(document))


def _small_parts(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the rows of batches, and each row of a large one alone.

    A text in a dictionary is in memory once, however many rows have it; as Python's objects it is there for each row.
    """
    while True:
        with memory_limit(MAX_MEMORY_BYTES):
            batch = next(batches, None)
        if batch is None:
            return
        size = batch.num_rows if batch.nbytes <= 2 * BATCH_BYTES else 1
        for start in range(0, batch.num_rows, size or 1):
            yield batch.slice(start, size)


def _as_line(row: dict[str, object]) -> dict[str, object]:
    """Return a row as a line, as `csv_cells.read_cells` does: null says nothing in a column that obcd knows."""
    said = {name for name, value in row.items() if value is not None}
    keys = keys_of(said)
    silent = keys | keys_of(())
    document = {
        name: read_value(name, value) if name in keys and name in said else value
        for name, value in row.items()
        if name in said or name not in silent
    }
    if DOORS.keys().isdisjoint(said):  # then it fails by the name of the column, and its id is kept
        document |= {name: "" for name in [name for name in ("prompt", *DOORS) if name in row][:1]}
    return document


def _plain_times(batch: Any, arrow: Any) -> Any:
    """Return the same rows without nanoseconds, for which Python has no type."""
    fields = [
        item.with_type(arrow.timestamp("us", item.type.tz))
        if arrow.types.is_timestamp(item.type) and item.type.unit == "ns"
        else item
        for item in batch.schema
    ]
    columns = [
        column if column.type == item.type else column.cast(item.type, safe=False)
        for column, item in zip(batch.columns, fields, strict=True)
    ]
    return arrow.RecordBatch.from_arrays(columns, schema=arrow.schema(fields))


def _json_value(value: object) -> object:
    """Return the JSON value of a value of a column."""
    match value:
        case None | str() | bool() | int():
            found: object = value
        case float():
            found = value if math.isfinite(value) else None
        case dict():
            found = {str(key): _json_value(item) for key, item in value.items()}
        case list() | tuple():
            found = [_json_value(item) for item in value]
        case bytes():
            found = _text(value)
        case dt.date() | dt.time():  # a datetime is a date
            found = value.isoformat()
        case _:
            found = str(value)
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
