"""CSV as JSON lines, one for each row, by the names of the header; and back. Pure, a row at a time.

    mrn,note                      {"mrn": "7", "note": "BP 150/95,\\nno cough"}
    7,"BP 150/95,
    no cough"

UTF-8, with or without a byte order mark; quotes as in RFC 4180. A row that is not valid gives a line that is not an
object, so that it fails wherever it is read again, and keeps its text: `["8,one field too many,x"]`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from obcd.errors import FormError, LineError
from obcd.text import printable

#: Most columns, and most characters of a column's name.
MAX_COLUMNS, MAX_NAME_LENGTH = 2000, 200
BOM = "\ufeff"
#: {usual character between fields: its name in the plural}
_SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_QUOTED = re.compile(r'"[^"]*"')


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
        delimiter: The character between fields.
        most_bytes: The longest row, in bytes.
        read: Makes a document of the cells of a row, by the names of their columns; LineError if they are not valid.
        check: Raises FormError if the columns cannot be used.
        header: The names of the columns, once a row was read.
        cut: At the end: why the file seems to be incomplete; "" if it does not.
    """

    delimiter: str
    most_bytes: int
    read: Callable[[dict[str, str]], dict[str, object]] = field(kw_only=True, default=dict)
    check: Callable[[list[str]], None] | None = field(kw_only=True, default=None)
    header: list[str] = field(init=False, default_factory=list)
    cut: str = ""
    _held: list[str] = field(default_factory=list)  # the lines of the present row
    _lines: int = 0  # number of lines read
    _has_end: bool = True  # whether the last line had its LF

    def rows(self, blocks: Iterable[bytes]) -> Iterator[Row]:
        """Yield the rows of a file.

        Raises:
            FormError: If the header is not valid, or a row is too long.
        """
        csv.field_size_limit(2**31 - 1)  # one limit for the whole process; rows are bounded here
        reader = csv.reader(self._texts(blocks), delimiter=self.delimiter, strict=True)
        header = self.header = self._header(reader)
        while True:
            self._held.clear()
            first = self._lines + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    self.cut = f"its last row, from line {first} on, ends within quotes"
                yield self._bad(f"it is not CSV: {_reason(error)}", first)
                continue
            if fields:
                yield self._row(header, fields, first)

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            header = next((row for row in reader if row), None)
        except csv.Error as error:
            check_delimiter("".join(self._held), self.delimiter)
            raise FormError(f"its header (the first line) is not CSV: {_reason(error)}") from None
        if header is None:
            raise FormError("it is empty: a first line with the names of the columns is needed")
        if not self._has_end:
            self.cut = "its header (the first line) has no end"
        else:  # half a header may become a valid one
            check_delimiter("".join(self._held).lstrip("\r\n"), self.delimiter)
        _check_header(header)
        if self.check is not None and not self.cut:
            self.check(header)
        return header

    def _row(self, header: list[str], fields: list[str], first: int) -> Row:
        if len(fields) != len(header):
            if len(fields) < len(header) and not self._has_end:
                self.cut = f"its last row (line {first}) is cut off"
            return self._bad(f"it has {len(fields)} fields where the header has {len(header)}", first)
        text = "".join(self._held)
        if "\0" in text:
            return self._bad("it holds a NUL character", first)
        try:
            text.encode()
            document = self.read(dict(zip(header, fields, strict=True)))
        except UnicodeEncodeError:
            return self._bad("it is not UTF-8: save the file as UTF-8", first)
        except LineError as error:
            return self._bad(str(error), first)
        return Row(encoded(document))

    def _bad(self, fault: str, first: int) -> Row:
        text = "".join(self._held).rstrip("\r\n")
        return Row(json.dumps([text]).encode("ascii"), f"{fault} (line {first} of the file)")

    def _texts(self, blocks: Iterable[bytes]) -> Iterator[str]:
        """Yield the lines of a file, each with its LF, and keep those of the present row."""
        size = 0
        for raw in split_lines(blocks, self.most_bytes):
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
            if self._lines == 0:
                text = text.removeprefix(BOM)
            self._lines += 1
            self._held.append(text)
            yield text


def to_csv(header: Sequence[str], rows: Iterable[Sequence[str]], delimiter: str = ",") -> Iterator[bytes]:
    """Yield the lines of a CSV file that `Sheet` reads back as the same rows; the header comes first."""
    for fields in chain((header,), rows):
        text = io.StringIO()
        # All fields: otherwise a lone CR at a field's end, or a row of one empty field, would not be read back.
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(fields)
        yield text.getvalue().encode()


def split_lines(blocks: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    """Yield lines with their LF; of a line that is too long, only a beginning that is too long as well."""
    rest = b""
    for block in blocks:
        *ended, tail = block.split(b"\n")
        if ended:
            yield rest + ended[0] + b"\n"
            for line in ended[1:]:
                yield line + b"\n"
            rest = tail
        else:
            rest += tail
        if len(rest) > most_bytes:
            yield rest
            rest = b""
    if rest:
        yield rest


def read_header(lines: Iterator[str], delimiter: str) -> tuple[list[str], int]:
    """Take the header off the lines of a table.

    Returns:
        The names of the columns, [] if there is no header, and the number of its lines.

    Raises:
        FormError: If it is not CSV, or has another delimiter.
    """
    held: list[str] = []

    def taken() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line

    try:
        header = next((row for row in csv.reader(taken(), delimiter=delimiter, strict=True) if row), [])
    except csv.Error as error:
        check_delimiter("".join(held), delimiter)
        raise FormError(f"its header (the first line) is not CSV: {_reason(error)}") from None
    check_delimiter("".join(held).lstrip("\r\n"), delimiter)
    return header, len(held)


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
    name = "name the file .csv" if delimiter == "\t" else ""
    said = f"set delimiter = \"{found}\" in the configuration or its profile, or --delimiter '{found}' on command lines"
    needs_name_alone = name and found == ","
    raise FormError(f"{where}: {name if needs_name_alone else ' and '.join(filter(None, (name, said)))}")


def encoded(document: dict[str, object]) -> bytes:
    """Return a line of JSON, as readable as possible."""
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, written as \ud800 in a cell of JSON
        return json.dumps(document).encode("ascii")


def _check_header(header: list[str]) -> None:
    if len(header) > MAX_COLUMNS:
        raise FormError(f"its header has {len(header)} columns, more than {MAX_COLUMNS}")
    seen: set[str] = set()
    for number, name in enumerate(header, 1):
        if "\0" in name or (not name.isascii() and not _is_text(name)):
            raise FormError("its header (the first line) is not UTF-8: save the file as UTF-8")
        if not name.strip():
            raise FormError(f"column {number} of its header has no name: give it one, or remove the column")
        if len(name) > MAX_NAME_LENGTH:
            raise FormError(f"the name of column {number} is longer than {MAX_NAME_LENGTH} characters: is it a header?")
        if name in seen:
            raise FormError(f"two columns of its header are named `{printable(name)}`: rename one")
        seen.add(name)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _reason(error: csv.Error) -> str:
    text = str(error)
    if "expected after" in text:
        return "there is text behind a closing quote"
    if "unexpected end" in text:
        return "a quote is not closed"
    if "new-line" in text:
        return "it has a CR without LF: end lines with LF, or CR and LF"
    return text
