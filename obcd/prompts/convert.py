"""Convert a prompt file from one format to another, line by line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from obcd.core.request.json_objects import is_blank_line
from obcd.core.request.rows import PLAIN, Reading
from obcd.core.tables.converting import LineShape, columns_of, read_ours, write_cells, write_line
from obcd.core.tables.csv_cells import sheet_of
from obcd.core.tables.csv_lines import split_lines
from obcd.core.tables.csv_reader import Sheet, to_csv
from obcd.core.tables.file_format import PARQUET, Form
from obcd.core.tables.json_shape import open_json
from obcd.core.tables.parquet_rows import ParquetSheet
from obcd.core.tables.unpacking import unfold
from obcd.errors import InputError, LineError
from obcd.spool.folders.disk import BLOCK
from obcd.text_files import LeftOut

#: Longest line, in bytes; the largest `[spool] max_line_bytes`.
MAX_LINE_BYTES = 2**28
#: Maximum size of a packed file after unpacking.
MAX_UNPACKED_BYTES = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The format into which lines are converted.

    Attributes:
        shape: The shape of the lines.
        delimiter: The delimiter of a table.
        columns: The columns of a table; (): those of the table that is read, or the keys of the first line.
        model: For OpenAI's lines: the model of a line that names none.
    """

    shape: LineShape
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """How many lines were written, and how many were left out.

    Attributes:
        nameless: `{name given to a column without one: the first row that has something in it}`.
    """

    lines: int
    left_out: int
    nameless: Mapping[str, int] = field(default_factory=dict)


def convert(
    source: BinaryIO,
    form: Form,
    wanted: Wanted,
    stream: BinaryIO,
    report: Callable[[LeftOut], None],
    reading: Reading = PLAIN,
) -> ConversionReport:
    """Convert a file; report each line that cannot be converted, in order.

    Args:
        reading: The settings with which the rows of a table are read.

    Raises:
        InputError: If the file as a whole is not of the expected format, or no line of it could be written.
    """
    left_out = 0
    sheet = _sheet(form, reading)

    def converted() -> Iterator[tuple[int, dict[str, object]]]:
        for number, read in _read(source, form, sheet):
            try:
                ours = read()
            except LineError as error:
                refuse(number, error)
            else:
                yield number, ours

    def refuse(number: int, error: LineError) -> None:
        nonlocal left_out
        left_out += 1
        report(LeftOut(f"{'line' if form.is_json else 'row'} {number}", str(error)))

    try:
        if wanted.shape is LineShape.TABLE:
            written = _write_table(converted(), wanted, sheet, stream, refuse)
        else:
            written = _write_lines(converted(), wanted, stream, refuse)
    except OSError as error:
        raise InputError(f"cannot convert: {error.strerror}") from error
    if not written:
        raise InputError("nothing was written: every line was left out" if left_out else "there is no prompt in it")
    return ConversionReport(written, left_out, sheet.nameless if isinstance(sheet, Sheet) else {})


_Refuse = Callable[[int, LineError], None]
_Sheet = Sheet | ParquetSheet | None
_Lines = Iterable[tuple[int, dict[str, object]]]


def _write_lines(lines: _Lines, wanted: Wanted, stream: BinaryIO, refuse: _Refuse) -> int:
    written = 0
    for number, ours in lines:
        try:
            raw = write_line(ours, number, wanted.shape, wanted.model)
        except LineError as error:
            refuse(number, error)
            continue
        stream.write(raw + b"\n")
        written += 1
    return written


def _write_table(lines: _Lines, wanted: Wanted, sheet: _Sheet, stream: BinaryIO, refuse: _Refuse) -> int:
    columns, written = wanted.columns, 0
    for number, ours in lines:
        columns = columns or (tuple(ours) if sheet is None else columns_of(sheet.header))
        try:
            cells = write_cells(ours, number, columns)
            rows = list(to_csv(columns, [cells], wanted.delimiter))
        except UnicodeEncodeError:
            refuse(number, LineError("it contains half a character (a lone surrogate), which UTF-8 cannot hold"))
            continue
        except LineError as error:
            refuse(number, error)
            continue
        stream.writelines(rows if not written else rows[1:])
        written += 1
    return written


def _read(source: BinaryIO, form: Form, sheet: _Sheet) -> Iterator[tuple[int, Callable[[], dict[str, object]]]]:
    """Yield the number of each line and a function that returns it as an obcd line."""
    blocks = iter(partial(source.read, BLOCK), b"")
    if sheet is None:
        lines = split_lines(open_json(blocks, form, MAX_UNPACKED_BYTES).blocks, MAX_LINE_BYTES)
        for number, raw in enumerate(lines, 1):
            line = raw.removesuffix(b"\n").removeprefix(b"\xef\xbb\xbf" if number == 1 else b"")
            if not is_blank_line(line):
                yield number, partial(read_ours, line, number)
        return
    with ExitStack() as files:
        if isinstance(sheet, ParquetSheet):
            rows = sheet.rows(_seekable(source, files))
        else:
            rows = sheet.rows(unfold(blocks, form, MAX_UNPACKED_BYTES))
        for number, row in enumerate(rows, 1):
            yield number, partial(_of_row, row.line, row.fault, number)
    if isinstance(sheet, Sheet) and sheet.cut:
        raise InputError(f"{sheet.cut}: more may be missing")


def _sheet(form: Form, reading: Reading) -> _Sheet:
    if form.kind == PARQUET:
        return ParquetSheet(reading)
    return None if form.is_json else sheet_of(form, reading, MAX_LINE_BYTES)


def _seekable(source: BinaryIO, files: ExitStack) -> BinaryIO:
    """Return a file that can be read at any place: a copy, if the source is a pipe."""
    if source.seekable():
        return source
    copy = cast("BinaryIO", files.enter_context(TemporaryFile()))  # noqa: SIM115 - closed by the stack
    shutil.copyfileobj(source, copy, BLOCK)
    return copy


def _of_row(line: bytes, fault: str, number: int) -> dict[str, object]:
    if fault:
        raise LineError(fault)
    return read_ours(line, number)
