"""Choose a few lines that stand for a whole prompt file, of any kind that obcd accepts."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from obcd.core.forecasting.work_left import choose_sample
from obcd.core.request.json_objects import is_blank_line
from obcd.core.request.rows import Reading
from obcd.core.tables.csv_cells import sheet_of
from obcd.core.tables.csv_lines import split_lines
from obcd.core.tables.file_format import PARQUET, Form, form_of
from obcd.core.tables.json_shape import open_json
from obcd.core.tables.parquet_rows import ParquetSheet
from obcd.core.tables.unpacking import unfold
from obcd.errors import InputError
from obcd.spool.folders.disk import BLOCK
from obcd.spool.submit.dropping import open_source
from obcd.spool.submit.line_check import MOST_UNPACKED_BYTES
from obcd.text import printable

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class LineSample:
    """Some lines of a file.

    Attributes:
        numbers: Their numbers in the file, from 1, ascending: rows of a table, lines of other files.
        lines: The lines, without LF, as obcd reads them: the rows of a table as JSON.
        lengths: The length in bytes of every line of the file that is not blank.
    """

    numbers: tuple[int, ...]
    lines: tuple[bytes, ...]
    lengths: Sequence[int]

    @property
    def content(self) -> bytes:
        """The prompt file that holds them."""
        return b"".join(line + b"\n" for line in self.lines)


def take_sample(file: Path, count: int, reading: Reading, max_line_bytes: int) -> LineSample:
    """Return lines from all parts of a file: of short and of long ones as many as there are.

    Reads the file twice; memory holds eight bytes for each line.

    Args:
        count: How many lines are taken at most.
        reading: The settings with which its lines are read.

    Raises:
        InputError: If the file cannot be read, or has no lines.
    """
    numbers, lengths = array("Q"), array("Q")
    for number, line in _lines(file, reading, max_line_bytes):
        numbers.append(number)
        lengths.append(len(line))
    if not lengths:
        raise InputError(f"{printable(str(file))}: there is no prompt in it")
    chosen = {numbers[place] for place in choose_sample(lengths, count)}
    found = [(number, line) for number, line in _lines(file, reading, max_line_bytes) if number in chosen]
    if len(found) < len(chosen):
        raise InputError(f"{printable(str(file))} changed while it was read: try it when it is complete")
    return LineSample(tuple(number for number, _ in found), tuple(line for _, line in found), lengths)


def _lines(file: Path, reading: Reading, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each line that may be a prompt."""
    form = form_of(file.name) or Form()
    with open_source(file) as source:
        if form.kind == PARQUET:
            rows = ParquetSheet(reading).rows(source)
        elif form.is_json:
            blocks = iter(partial(source.read, BLOCK), b"")
            is_data = reading.template is not None
            opened = open_json(blocks, form, MOST_UNPACKED_BYTES, is_data=is_data).blocks
            for number, raw in enumerate(split_lines(opened, max_line_bytes), 1):
                line = raw.removesuffix(b"\n").removeprefix(_BOM if number == 1 else b"")
                if not is_blank_line(line):
                    yield number, line
            return
        else:
            sheet = sheet_of(form, reading, max_line_bytes)
            rows = sheet.rows(unfold(iter(partial(source.read, BLOCK), b""), form, MOST_UNPACKED_BYTES))
        for number, row in enumerate(rows, 1):
            if not row.fault:
                yield number, row.line.removesuffix(b"\n")
