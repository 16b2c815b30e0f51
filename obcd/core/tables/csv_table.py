"""Read the rows of a table as lists of cells, and its header. Pure, a row at a time.

Columns without a name and rows without a text are nothing: spreadsheets write them by the hundred. A column without a
name that holds something, such as the index of pandas, is called by its number, `column_1`.

A row that is not valid has a fault, and the others go on. After a broken quote there is nothing to go on from: the
lines that follow may be rows or part of a text. Then the table is refused as a whole, with their numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from obcd.core.tables.csv_lines import find_separator, table_lines
from obcd.core.tables.csv_quotes import WINDOW_BYTES, RowShape, opens_cell, weigh_quotes
from obcd.errors import CutOffError, FormError
from obcd.text import describe_encoding, plural

#: Most columns; further ones count only if they have a name.
MAX_COLUMNS = 2000
#: Most lines of one row: each takes 60 bytes of memory beside its text.
MAX_ROW_LINES = 2**20
#: {usual character between fields: its name in the plural}
_SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_QUOTED = re.compile(r'"[^"]*"')
#: The ways out of a broken quote.
_QUOTE_ADVICE = 'write a quote within a cell twice (""), or set quotes = false if quotes are part of the texts'
_NO_QUOTES = "--no-quotes"
_Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL or csv.QUOTE_NONE


@dataclass(slots=True)
class _Unquoted:
    """The lines of a table with tabs before the first where quotes could enclose a cell.

    Attributes:
        next: That line, once all others were taken; empty at the end of the table.
        bare: The number of lines before it that have quotes.
    """

    lines: Iterator[bytes]
    next: list[bytes] = field(default_factory=list)
    bare: int = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self.lines:
            if b'"' in line:
                if opens_cell(line, b"\t"):
                    self.next.append(line)
                    return
                self.bare += 1
            yield line


@dataclass(slots=True)
class CsvTable:
    """Reads a table.

    Attributes:
        delimiter: The character between fields; a first line `sep=;` changes it.
        most_bytes: The longest row, in bytes.
        quotes: Whether quotes enclose cells; None: found by the rows (see `csv_quotes`).
        header: The names of the columns, in their order, once the header was read.
        unnamed: The places of the columns whose names are only `column_<number>`.
        first: The number of the present row's first line in the file.
        cut: At the end: why the file seems to be incomplete; "" if it does not.
        is_open: At the end: whether it ends within quotes.
    """

    delimiter: str
    most_bytes: int
    quotes: bool | None = None
    header: list[str] = field(init=False, default_factory=list)
    unnamed: frozenset[int] = field(init=False, default=frozenset())
    first: int = field(init=False, default=1)
    cut: str = field(init=False, default="")
    is_open: bool = field(init=False, default=False)
    _held: list[str] = field(init=False, default_factory=list)  # the lines of the present row
    _lines: int = field(init=False, default=0)  # number of lines read
    _has_end: bool = field(init=False, default=True)  # whether the last line had its LF
    _shape: RowShape = field(init=False, default=RowShape(",", 1, 1))
    _source: Iterator[bytes] = field(init=False, default=iter(()))
    _by_ids: bool = field(init=False, default=True)  # whether only ids show that a quote swallowed rows
    _has_quotes: bool = field(init=False, default=False)  # whether the header has quotes: then they enclose cells too

    @property
    def text(self) -> str:
        """The text of the present row."""
        return "".join(self._held)

    @property
    def place(self) -> str:
        """The lines of the present row in the file: `line 3`, `lines 3 to 8`."""
        return f"line {self.first}" if self._lines <= self.first else f"lines {self.first} to {self._lines}"

    def open(self, blocks: Iterable[bytes]) -> None:
        """Read the header of a file.

        Raises:
            FormError: If it is not valid.
        """
        csv.field_size_limit(2**31 - 1)  # one limit for the whole process; rows are bounded here
        self._source = self._read_separator(table_lines(blocks, self.most_bytes))
        self._read_header(self._source)

    def rows(self) -> Iterator[list[str] | str]:
        """Yield the cells of each row, one for each column of the header; or a fault, if it is not valid.

        Raises:
            FormError: If a row is too long, or a broken quote makes one row of several.
            CutOffError: If a quote that opened in an earlier line is never closed.
        """
        lines, is_plain = self._source, self.quotes is False
        if self.quotes is None and self.delimiter == "\t" and not self._has_quotes:
            found = _Unquoted(lines)
            yield from self._rows(iter(found), csv.QUOTE_NONE)
            lines, weight = self._weigh(found, lines)
            is_plain, self._by_ids = weight < 0, weight > 0
        yield from self._rows(lines, csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL)

    def _read_separator(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        first = next(lines, b"")
        separator = find_separator(first)
        if not separator:
            return chain((first,), lines) if first else lines
        self.delimiter = separator
        self._lines = 1
        return lines

    def _read_header(self, lines: Iterator[bytes]) -> None:
        quoting: _Quoting = csv.QUOTE_NONE if self.quotes is False else csv.QUOTE_MINIMAL
        reader = csv.reader(self._texts(lines), delimiter=self.delimiter, strict=True, quoting=quoting)
        names: list[str] = []
        try:
            while not any(map(str.strip, names)):
                self._held.clear()
                names = next(reader)
        except StopIteration:
            raise FormError("it is empty: a first line with the names of the columns is needed") from None
        except csv.Error as error:
            check_delimiter(self.text, self.delimiter)
            raise FormError(
                f"its header (the first line) is not CSV: {_reason(error)}; {_QUOTE_ADVICE}", option=_NO_QUOTES
            ) from None
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise FormError(f"its header (the first line) is {_encoding(self.text)}") from None
        if "\0" in self.text:
            raise FormError(
                "its header (the first line) is not UTF-8 (it holds NUL characters): save the file as UTF-8"
            )
        if not self._has_end:
            self.cut = "its header (the first line) has no end"
        else:  # half a header may become a valid one
            check_delimiter(self.text, self.delimiter)
        self._name_columns(names)
        self._has_quotes = opens_cell(self.text.encode(), self.delimiter.encode())

    def _name_columns(self, names: list[str]) -> None:
        least = max(place for place, name in enumerate(names, 1) if name.strip())
        if least > MAX_COLUMNS:
            raise FormError(f"its header has {least} columns, more than {MAX_COLUMNS}")
        del names[MAX_COLUMNS:]
        given = set(names)
        unnamed = [place for place, name in enumerate(names) if not name.strip()]
        for place in unnamed:
            names[place] = f"column_{place + 1}"
            while names[place] in given:
                names[place] = f"_{names[place]}"
        self.header, self.unnamed = names, frozenset(unnamed)
        self._shape = RowShape(self.delimiter, least, len(names))

    def _weigh(self, found: _Unquoted, lines: Iterator[bytes]) -> tuple[Iterator[bytes], int]:
        """Return the lines from the first quote on, and what `weigh_quotes` says of those in the window."""
        ahead, size = found.next, sum(map(len, found.next))
        while size < WINDOW_BYTES and (line := next(lines, b"")):
            ahead.append(line)
            size += len(line)
        texts = [line.decode("utf-8", "surrogateescape") for line in ahead]
        return chain(ahead, lines), weigh_quotes(texts, self._shape, bare=found.bare, is_end=size < WINDOW_BYTES)

    def _rows(self, lines: Iterator[bytes], quoting: _Quoting) -> Iterator[list[str] | str]:
        reader = csv.reader(self._texts(lines), delimiter=self.delimiter, strict=True, quoting=quoting)
        is_doubtful = self.quotes is None and not self._has_quotes
        while True:
            self._held.clear()
            self.first = self._lines + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._broken(error)
                continue
            if is_doubtful and len(self._held) > 1 and self._shape.are_rows(self._held, by_ids=self._by_ids):
                raise FormError(
                    f"{self._swallowing()}, that look like rows: {_QUOTE_ADVICE}, quotes = true if it is one row",
                    option=f"{_NO_QUOTES} or --quotes",
                )
            if any(map(str.strip, cells)):
                yield self._fitted(cells)

    def _broken(self, error: csv.Error) -> str:
        reason = _reason(error)
        if "unexpected end" in str(error):
            if len(self._held) > 1:
                raise CutOffError(
                    f"its last row, from line {self.first} on, ends within quotes (line {self._lines}): close the "
                    f"quote, {_QUOTE_ADVICE}",
                    option=_NO_QUOTES,
                )
            self.cut, self.is_open = f"its last row, from line {self.first} on, ends within quotes", True
        elif len(self._held) > 1 and "expected after" in str(error):
            raise FormError(f"{self._swallowing()}, and {reason}: {_QUOTE_ADVICE}", option=_NO_QUOTES)
        return f"it is not CSV: {reason}"

    def _swallowing(self) -> str:
        return f"a quote in line {self.first} makes one row of {len(self._held)} lines, {self.first} to {self._lines}"

    def _fitted(self, cells: list[str]) -> list[str] | str:
        text = self.text
        if "\0" in text:
            return "it holds a NUL character"
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"it is {_encoding(text)}"
        count, most = len(cells), self._shape.most
        if count == most:
            return cells
        if self._shape.least <= count < most:
            return cells + [""] * (most - count)
        if count > most and not any(map(str.strip, cells[most:])):
            return cells[:most]
        if count < most and not self._has_end:
            self.cut = f"its last row (line {self.first}) is cut off"
        return f"it has {plural(count, 'field')} where the header has {most}"

    def _texts(self, lines: Iterable[bytes]) -> Iterator[str]:
        """Yield the lines of a file, each with its LF, and keep those of the present row."""
        size = 0
        for raw in lines:
            if not self._held:
                size = 0
            size += len(raw)
            if size > self.most_bytes:
                where = f"the row that begins in line {self._lines + 1 - len(self._held)}"
                raise FormError(
                    f"{where} is longer than {self.most_bytes} bytes ([spool] max_line_bytes): is a quote open?"
                )
            self._has_end = raw.endswith(b"\n")
            text = raw.decode("utf-8", "surrogateescape")
            self._lines += 1
            if len(self._held) >= MAX_ROW_LINES:
                raise FormError(
                    f"the row that begins in line {self._lines - len(self._held)} has more than {MAX_ROW_LINES} lines: "
                    "is a quote open?"
                )
            self._held.append(text)
            yield text


def check_delimiter(line: str, delimiter: str) -> None:
    """Refuse a header with another delimiter; only a person can know which one is meant, so a person has to set it.

    Args:
        line: The header as it is in the file. Delimiters within quotes belong to a name.

    Raises:
        FormError: With what to do.
    """
    bare = _QUOTED.sub("", line)
    if delimiter in bare:
        return
    found = next((sign for sign in _SIGNS if sign in bare), "")
    if not found:
        return
    where = f"its header has {_SIGNS[found]} where {_SIGNS.get(delimiter, repr(delimiter))} are needed"
    if found == "\t":
        raise FormError(f"{where}: name the file .tsv")
    said = (
        f'set delimiter = "{found}" in the configuration or its profile, or put the line sep={found} above the header'
    )
    name = "name the file .csv" if delimiter == "\t" else ""
    if name and found == ",":
        raise FormError(f"{where}: {name}")
    raise FormError(f"{where}: {' and '.join(filter(None, (name, said)))}", option=f"--delimiter '{found}'")


def _encoding(text: str) -> str:
    return describe_encoding(text.encode("utf-8", "surrogateescape"))


def _reason(error: csv.Error) -> str:
    text = str(error)
    if "expected after" in text:
        return "there is text behind a closing quote"
    if "unexpected end" in text:
        return "a quote is not closed"
    if "new-line" in text:
        return "it has a CR without LF: end lines with LF, or CR and LF"
    return text
