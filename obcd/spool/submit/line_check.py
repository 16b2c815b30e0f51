"""Check the lines of a drop while it is copied, so that its submitter hears of bad ones at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

from obcd.core.request.json_objects import is_blank_line
from obcd.core.request.keys.ignored_keys import note_nameless, note_unobeyed
from obcd.core.request.lines import parse_line
from obcd.core.tables.csv_cells import sheet_of
from obcd.core.tables.csv_lines import split_lines
from obcd.core.tables.csv_reader import Row
from obcd.core.tables.file_format import JSON, PARQUET, Form, form_of
from obcd.core.tables.foreign_files import OTHER_ENCODING
from obcd.core.tables.json_shape import JsonShape, open_json, why_not_lines
from obcd.core.tables.parquet_rows import ParquetSheet
from obcd.core.tables.unpacking import unfold
from obcd.errors import FormError, LineError
from obcd.spool.submit.target import Target

#: Bytes of an unpacked file that are checked; the coordinator has its own limit ([spool] max_expanded_bytes).
MOST_UNPACKED_BYTES = 2**40
#: Bad lines that are named; the others are counted.
MOST_BAD_LINES = 10


class LineCheck:
    """The lines of one drop, checked as its target reads them (after the conversion, if they are not its own).

    Attributes:
        lines: All lines so far, `prompts` those that hold a valid prompt, `bad` those that will become failures.
        bad_lines: `[(line number, reason), …]` of the first bad ones.
        unobeyed: `{key that looks like an option but is only echoed: the first line that has it}`.
    """

    def __init__(self, target: Target, max_line_bytes: int) -> None:
        self.form = form_of(target.path.name) or Form()
        self._reading = target.reading
        self._accepts = target.accepts
        self._max_line_bytes = max_line_bytes
        self.lines = self.prompts = self.bad = 0
        self.bad_lines: tuple[tuple[int, str], ...] = ()
        self.unobeyed: dict[str, int] = {}

    def check(self, copied: Iterator[bytes], copy: IO[bytes]) -> None:
        """Check a file while it is copied; of Parquet, whose beginning is its end, the copy.

        Args:
            copied: The bytes of the file; all are read.
            copy: The file to which they are written as they are read.

        Raises:
            FormError: If it is not what its name says.
        """
        form = self.form
        if form.is_json:
            found = open_json(copied, form, MOST_UNPACKED_BYTES, is_data=self._reading.template is not None)
            if found.shape is not JsonShape.LINES and JSON not in self._accepts:
                raise FormError(why_not_lines(found.shape, self._accepts))
            self._check_lines(found.blocks)
        elif form.kind == PARQUET:
            for _ in copied:
                pass
            copy.flush()
            with open(copy.name, "rb") as file:
                self._check_rows(ParquetSheet(self._reading).rows(file))
        else:
            sheet = sheet_of(form, self._reading, self._max_line_bytes)
            self._check_rows(sheet.rows(unfold(copied, form, MOST_UNPACKED_BYTES)))
            note_nameless(self.unobeyed, sheet.nameless)
            if sheet.cut:
                raise FormError(sheet.cut)

    def why_nothing(self) -> str:
        """Return what follows the name of a file without a prompt."""
        if not self.bad_lines:
            return ": there is no prompt in it, so nothing was dropped"
        line, why = self.bad_lines[0]
        if "not UTF-8" in why:
            return f" is {OTHER_ENCODING}; nothing was dropped; line {line}: {why}"
        which = f"none of its {self.bad} lines is" if self.bad > 1 else "its only line is not"
        return f": {which} a valid prompt, so nothing was dropped; line {line}: {why}"

    def _check_lines(self, blocks: Iterable[bytes]) -> None:
        for raw in split_lines(blocks, self._max_line_bytes):
            self.lines += 1
            if len(raw) > self._max_line_bytes + 1:
                raise FormError(
                    f"line {self.lines} is longer than {self._max_line_bytes} bytes ([spool] max_line_bytes)"
                )
            if not is_blank_line(raw):
                self._check_line(raw)

    def _check_rows(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.lines += 1
            if row.fault:
                self._note_bad(row.fault)
            else:
                self._check_line(row.line)

    def _check_line(self, raw: bytes) -> None:
        line = raw.rstrip(b"\n").removeprefix(b"\xef\xbb\xbf" if self.lines == 1 else b"")
        try:
            request = parse_line(line, self.lines, self._reading)
        except LineError as error:
            self._note_bad(str(error))
        else:
            self.prompts += 1
            if self._reading.template is None:
                note_unobeyed(self.unobeyed, request)

    def _note_bad(self, why: str) -> None:
        self.bad += 1
        self.bad_lines = (*self.bad_lines, (self.lines, why))[:MOST_BAD_LINES]
