"""Tables of pandas, polars and Arrow: their rows one after the other, and columns of answers in their form.

None of these libraries is imported here before a value of it is there or `to_pandas` and the like request it.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from obcd.core.request.json_objects import is_blank_line, parse_object
from obcd.core.request.rows import Reading
from obcd.core.tables.csv_cells import sheet_of
from obcd.core.tables.csv_lines import split_lines
from obcd.core.tables.file_format import PARQUET, Form, form_of
from obcd.core.tables.json_shape import open_json
from obcd.core.tables.parquet_rows import ParquetSheet
from obcd.core.tables.unpacking import unfold
from obcd.errors import FormError, InputError, LineError, UsageError
from obcd.results.merging.column_kinds import ColumnKind
from obcd.spool.folders.disk import BLOCK
from obcd.spool.submit.dropping import open_source
from obcd.spool.submit.line_check import MOST_UNPACKED_BYTES
from obcd.text import printable

#: Rows of a table that are plain Python values at the same time.
CHUNK = 1000
#: Longest line of a file whose rows get a template; the largest `[spool] max_line_bytes`.
MAX_LINE_BYTES = 2**28

#: Chooses the columns that are read.
Choose = Callable[[Iterable[str]], list[str]]


@dataclass(frozen=True, slots=True)
class AnswerColumn:
    """A column of answers: its values, None where there is none, and their kind; no kind: whatever they are."""

    values: list[Any]
    kind: ColumnKind | None = None


def each_row(rows: object, choose: Choose, reading: Reading) -> Iterator[object]:
    """Yield the rows of a table, a file, or anything that can be iterated.

    Args:
        choose: The columns of a table that are read.
        reading: How the rows of a file are read.

    Raises:
        InputError: If it has no rows, or its columns have no distinct names; and for a file that cannot be read.
    """
    library = library_of(rows)
    if library == "pandas":
        return _pandas_rows(rows, choose)
    if library == "polars":
        return _polars_rows(rows, choose)
    if library == "pyarrow":
        return _arrow_rows(rows, choose)
    if isinstance(rows, Path):
        return _file_rows(rows, reading)
    if isinstance(rows, str | bytes):
        raise InputError(
            "a text is neither rows nor a file: give [text] for one prompt, or pathlib.Path(text) for a file"
        )
    if isinstance(rows, Mapping):
        raise InputError("a mapping is one row: give a list of rows")
    if not isinstance(rows, Iterable):
        raise InputError(
            f"a value of the type {printable(type(rows).__qualname__)} has no rows: give a table, a list, a Path"
        )
    return iter(rows)


def library_of(rows: object) -> str:
    """Return the library of a table or a column; "" for anything else. Imports nothing."""
    for name, kinds in _TABLES.items():
        module = sys.modules.get(name)
        if module is not None and isinstance(
            rows, tuple(getattr(module, kind) for kind in kinds if hasattr(module, kind))
        ):
            return name
    return ""


def is_empty(rows: object) -> bool:
    """Return whether a table, a column or a list is known to have no rows; of an iterator it is not."""
    return isinstance(rows, Sized) and not isinstance(rows, str | bytes | Mapping) and len(rows) == 0


_TABLES = {
    "pandas": ("DataFrame", "Series", "Index"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch", "RecordBatchReader", "ChunkedArray", "Array"),
}


def load(name: str, *, package: str = "") -> Any:
    """Return a library.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(f"{name} is not installed: pip install {package or name}") from None


def _names(columns: Iterable[object]) -> list[str]:
    names = [str(name) for name in columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two columns of the table are called '{printable(twice)}': rename one")
    return names


def _pandas_rows(table: Any, choose: Choose) -> Iterator[object]:
    if not hasattr(table, "columns"):
        for start in range(0, len(table), CHUNK):
            yield from _pandas_values(table[start : start + CHUNK])
        return
    names = _names(table.columns)
    places = {name: number for number, name in enumerate(names)}
    chosen = choose(names)
    for start in range(0, len(table), CHUNK):
        part = table.iloc[start : start + CHUNK]
        columns = [_pandas_values(part.iloc[:, places[name]]) for name in chosen]
        yield from _zipped(chosen, columns, len(part))


def _pandas_values(column: Any) -> list[Any]:
    """Return values as Python's own, None for a missing one."""
    values = column.tolist()
    missing = column.isna()
    return [None if is_missing else value for value, is_missing in zip(values, missing.tolist(), strict=True)]


def _polars_rows(table: Any, choose: Choose) -> Iterator[object]:
    if not hasattr(table, "columns"):
        for start in range(0, len(table), CHUNK):
            yield from table[start : start + CHUNK].to_list()
        return
    chosen = choose(table.columns)
    for part in table.select(chosen).iter_slices(CHUNK):
        yield from part.iter_rows(named=True)


def _arrow_rows(table: Any, choose: Choose) -> Iterator[object]:
    if not hasattr(table, "schema"):
        for start in range(0, len(table), CHUNK):
            yield from table[start : start + CHUNK].to_pylist()
        return
    chosen = choose(_names(table.schema.names))
    batches: Iterable[Any] = table  # a reader
    if hasattr(table, "num_rows"):
        batches = table.to_batches() if hasattr(table, "to_batches") else [table]
    for batch in batches:
        columns = [batch.column(batch.schema.get_field_index(name)) for name in chosen]
        for start in range(0, batch.num_rows, CHUNK):
            count = min(CHUNK, batch.num_rows - start)
            yield from _zipped(chosen, [column.slice(start, count).to_pylist() for column in columns], count)


def _zipped(names: Sequence[str], columns: Sequence[Sequence[Any]], count: int) -> Iterator[dict[str, Any]]:
    if not names:
        yield from ({} for _ in range(count))
        return
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))


def _file_rows(path: Path, reading: Reading) -> Iterator[dict[str, object]]:
    """Yield the rows of a prompt file of any form."""
    form = form_of(path.name) or Form()
    number = 0
    with open_source(path) as file:
        blocks = iter(partial(file.read, BLOCK), b"")
        try:
            if form.is_json:
                found = open_json(blocks, form, MOST_UNPACKED_BYTES, is_data=reading.template is not None)
                for number, raw in enumerate(split_lines(found.blocks, MAX_LINE_BYTES), 1):
                    line = raw.removesuffix(b"\n").removeprefix(b"\xef\xbb\xbf" if number == 1 else b"")
                    if not is_blank_line(line):
                        yield parse_object(line)
                return
            rows = (
                ParquetSheet(reading).rows(file)
                if form.kind == PARQUET
                else sheet_of(form, reading, MAX_LINE_BYTES).rows(unfold(blocks, form, MOST_UNPACKED_BYTES))
            )
            for number, row in enumerate(rows, 1):  # noqa: B007 - for the message below
                if row.fault:
                    raise LineError(row.fault)
                yield parse_object(row.line)
        except LineError as error:
            raise InputError(f"{printable(str(path))}, line {number}: {error}") from None
        except FormError as error:
            raise InputError(f"{printable(str(path))}: {error}") from None


def to_frame(library: str, columns: Mapping[str, AnswerColumn], index: Any = None) -> Any:
    """Return columns as a table of pandas, polars or pyarrow.

    Args:
        index: For pandas: the index of its rows; None: 0, 1, …
    """
    if library == "pandas":
        pandas = load("pandas")
        series = {name: _pandas_column(pandas, column, index) for name, column in columns.items()}
        return pandas.DataFrame(series, index=index)
    if library == "polars":
        polars = load("polars")
        return polars.DataFrame([_polars_column(polars, name, column) for name, column in columns.items()])
    arrow = load("pyarrow")
    return arrow.table({name: _arrow_column(arrow, column) for name, column in columns.items()})


def to_column(library: str, name: str, column: AnswerColumn, index: Any = None) -> Any:
    """Return a column as pandas, polars or pyarrow has it; for any other library the list."""
    if library == "pandas":
        return _pandas_column(load("pandas"), column, index).rename(name)
    if library == "polars":
        return _polars_column(load("polars"), name, column)
    return _arrow_column(load("pyarrow"), column) if library == "pyarrow" else column.values


def _type_of(column: AnswerColumn) -> str:
    """Return the narrowest type that holds every value exactly: `bool`, `int`, `float`, `text`; "" for other values."""
    kind = column.kind
    if kind is None:
        return ""
    if kind == ColumnKind.BOOL:
        return "bool"
    if kind and kind in ColumnKind.INT | ColumnKind.WIDE_INT:
        return "int"
    if kind and kind in ColumnKind.INT | ColumnKind.FLOAT:
        return "float"
    return "text" if all(value is None or isinstance(value, str) for value in column.values) else ""


_PANDAS_TYPES = {"bool": "boolean", "int": "Int64", "float": "Float64", "text": "string"}


def _pandas_column(pandas: Any, column: AnswerColumn, index: Any) -> Any:
    name = _type_of(column)
    if name:
        try:
            return pandas.Series(column.values, index=index, dtype=_PANDAS_TYPES[name])
        except (OverflowError, TypeError, ValueError):  # an integer beyond 64 bits, a damaged file
            pass
    return pandas.Series(column.values, index=index, dtype=object)


def _polars_column(polars: Any, name: str, column: AnswerColumn) -> Any:
    types = {"bool": polars.Boolean, "int": polars.Int64, "float": polars.Float64, "text": polars.String}
    kind = _type_of(column)
    for attempt in ({"dtype": types[kind]} if kind else None, {"strict": True}, {"dtype": polars.Object}):
        if attempt is not None:
            try:
                return polars.Series(name, column.values, **attempt)
            except (OverflowError, TypeError, ValueError, polars.exceptions.PolarsError):
                continue
    raise InputError(f"the column '{printable(name)}' has values that polars cannot hold")


def _arrow_column(arrow: Any, column: AnswerColumn) -> Any:
    types = {"bool": arrow.bool_(), "int": arrow.int64(), "float": arrow.float64(), "text": arrow.string()}
    kind = _type_of(column)
    for attempt in (types.get(kind), None):
        try:
            return arrow.array(column.values, attempt)
        except (OverflowError, arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError):
            continue
    texts = [None if value is None else json.dumps(value, default=str) for value in column.values]
    return arrow.array(texts, arrow.string())
