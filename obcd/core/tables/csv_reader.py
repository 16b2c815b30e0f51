"""CSV as JSON lines, one for each row, by the names of the header; and back. Pure, a row at a time.

    mrn,note                      {"mrn": "7", "note": "BP 150/95,\\nno cough"}
    7,"BP 150/95,
    no cough"

UTF-8, with or without a byte order mark; quotes as in RFC 4180, or part of the texts (`csv_quotes`). A row that is not
valid gives a line that is not an object, so that it fails wherever it is read again, and keeps its text:
`["8,one field too many,x"]`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from obcd.core.tables.csv_table import CsvTable
from obcd.errors import FormError, LineError
from obcd.text import printable

#: Most characters of a column's name.
MAX_NAME_LENGTH = 200
_encode_text = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Row:
    """A row as a line of JSON, without its LF.

    Attributes:
        fault: Why it is not valid; "" if it is.
    """

    line: bytes
    fault: str = ""


@dataclass(slots=True)
class Sheet:
    """Reads CSV.

    Attributes:
        delimiter: The character between fields; a first line `sep=;` counts more.
        most_bytes: The longest row, in bytes.
        quotes: Whether quotes enclose cells; None: found by the rows.
        read: Makes a document of the cells of a row, by the names of their columns; LineError if they are not valid.
        check: Raises FormError if the columns cannot be used.
        nameless: `{name given to a column without one: the first row, from 1, that has something in it}`.
    """

    delimiter: str
    most_bytes: int
    quotes: bool | None = None
    read: Callable[[dict[str, str]], dict[str, object]] = field(kw_only=True, default=dict)
    check: Callable[[list[str]], None] | None = field(kw_only=True, default=None)
    nameless: dict[str, int] = field(init=False, default_factory=dict)
    _table: CsvTable = field(init=False)

    def __post_init__(self) -> None:
        self._table = CsvTable(self.delimiter, self.most_bytes, self.quotes)

    @property
    def cut(self) -> str:
        """At the end: why the file seems to be incomplete; "" if it does not."""
        return self._table.cut

    @property
    def header(self) -> list[str]:
        """The names of the columns, once a row was read: all that have a name, or something in a row so far."""
        table = self._table
        return [name for place, name in enumerate(table.header) if place not in table.unnamed or name in self.nameless]

    def rows(self, blocks: Iterable[bytes]) -> Iterator[Row]:
        """Yield the rows of a file.

        Raises:
            FormError: If the header is not valid, a row is too long, or a broken quote makes one row of several.
        """
        table = self._table
        table.open(blocks)
        names = table.header
        _check_names(names)
        if self.check is not None and not table.cut:
            self.check(self.header)
        for number, cells in enumerate(table.rows(), 1):
            if isinstance(cells, str):
                yield self._bad(cells)
                continue
            row = self._named(names, cells, number) if table.unnamed else dict(zip(names, cells, strict=True))
            try:
                yield Row(encoded(self.read(row)))
            except LineError as error:
                yield self._bad(str(error))

    def _named(self, names: list[str], cells: list[str], number: int) -> dict[str, str]:
        row: dict[str, str] = {}
        for place, (name, cell) in enumerate(zip(names, cells, strict=True)):
            if place not in self._table.unnamed:
                row[name] = cell
            elif cell.strip():
                self.nameless.setdefault(name, number)
                row[name] = cell
        return row

    def _bad(self, fault: str) -> Row:
        text = self._table.text.rstrip("\r\n")
        return Row(json.dumps([text]).encode("ascii"), f"{fault} ({self._table.place} of the file)")


def to_csv(header: Sequence[str], rows: Iterable[Sequence[str]], delimiter: str = ",") -> Iterator[bytes]:
    """Yield the lines of a CSV file that `Sheet` reads back as the same rows; the header comes first."""
    for fields in chain((header,), rows):
        text = io.StringIO()
        # All fields: otherwise a lone CR at a field's end would not be read back, and quotes in TSV might be text.
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(fields)
        yield text.getvalue().encode()


def encoded(document: dict[str, object]) -> bytes:
    """Return a line of JSON, as readable as possible."""
    try:
        return _encode_text(document).encode()
    except UnicodeEncodeError:  # half a surrogate pair, written as \ud800 in a cell of JSON
        return json.dumps(document).encode("ascii")


def _check_names(header: list[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(header, 1):
        if len(name) > MAX_NAME_LENGTH:
            raise FormError(f"the name of column {number} is longer than {MAX_NAME_LENGTH} characters: is it a header?")
        if name in seen:
            raise FormError(f"two columns of its header are named `{printable(name)}`: rename one")
        seen.add(name)
