"""Read texts that become prompts: files of a folder, lines, or a column of a CSV file.

Each reader yields `Prompt | LeftOut` one at a time: input that is not text (not UTF-8, empty, a link) is reported and
does not stop the reader.
"""

from __future__ import annotations

import codecs
import fnmatch
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from obcd.core.request.lines import MESSAGE_KEYS, OUR_KEYS
from obcd.core.request.templates import TemplateField
from obcd.core.tables.csv_table import CsvTable
from obcd.errors import FormError, InputError
from obcd.text import describe_encoding, printable
from obcd.text_files import LeftOut, bounded_lines

#: which files of a folder are texts by default
DEFAULT_GLOBS = ("*.txt", "*.md")
#: maximum size of a text file, line or CSV field; more than any model reads
MAX_TEXT_BYTES = 64 * 1024 * 1024
#: how much of a table is read at once
BLOCK_BYTES = 2**20
#: the field of a template that is the text itself
TEXT_FIELD = "text"
#: keys of a line that have a meaning to obcd (design.md 4): an echoed column must not take one of these names
RESERVED_KEYS = OUR_KEYS | MESSAGE_KEYS | {"embed", "custom_id", "method", "url", "body"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text that becomes a line."""

    id: str | int
    text: str
    place: str  # where it was read, ready to print: `visits.csv row 7`
    extra: Mapping[str, object] = field(default_factory=dict)  # other keys of the line: {"ward": "3b"}
    fields: Mapping[str, str] = field(default_factory=dict)  # for the template, beside the text: {"age": "54"}


Read = Callable[[Path, str], Prompt | LeftOut]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a CSV file are used."""

    text: str
    id: str | None = None  # None: the id is the number of the row, from 1
    keep: bool = False  # whether the other columns are echoed
    fields: tuple[TemplateField, ...] = ()  # the columns that the template names
    delimiter: str = ","
    quotes: bool | None = None  # whether quotes enclose cells; None: found by the rows


def prompts_from_folder(
    folder: Path, globs: tuple[str, ...] = DEFAULT_GLOBS, read: Read | None = None
) -> Iterator[Prompt | LeftOut]:
    """Yield every file in a folder and below it, in the order of names; the id is its path below the folder.

    Hidden files and folders are ignored. Symbolic links are not followed but reported.

    Args:
        folder: the folder.
        read: makes a prompt of a file, given its name below the folder; None: the prompt is the file's text.
        globs: patterns, in any case; a file counts if its name matches one, or its path matches one with a slash.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read {printable(str(folder))}: {error.strerror}") from error
    yield from _prompts_below(entries, "", globs, read or prompt_from_file)


def prompt_from_file(path: Path, name: str) -> Prompt | LeftOut:
    """Return a text file, without the line breaks at its end, as one prompt with its name as id."""
    place = printable(name)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        return LeftOut(place, f"it cannot be read: {error.strerror}")
    text = _text_of(data)
    if isinstance(text, LeftOut):
        return LeftOut(place, text.reason)
    # A name that is not UTF-8 comes as lone surrogates, which only Python's JSON reader accepts.
    return Prompt(name.encode("utf-8", "backslashreplace").decode("utf-8"), text, place)


def prompts_from_lines(stream: BinaryIO) -> Iterator[Prompt | LeftOut]:
    """Yield every line that is not blank; the id is the number of the line, from 1.

    Raises:
        InputError: If the stream cannot be read.
    """
    try:
        for number, data in enumerate(bounded_lines(stream, MAX_TEXT_BYTES), 1):
            if data.isspace():
                continue
            text, place = _text_of(data.removesuffix(b"\n")), f"line {number}"
            yield LeftOut(place, text.reason) if isinstance(text, LeftOut) else Prompt(number, text, place)
    except OSError as error:
        raise InputError(f"cannot read the lines: {error.strerror}") from error


def prompts_from_csv(stream: BinaryIO, name: str, columns: Columns) -> Iterator[Prompt | LeftOut]:
    """Yield a column of a CSV file, row by row; blank rows are not counted.

    Args:
        stream: the file, UTF-8 with or without a byte order mark; left open.
        name: the name of the file in messages, ready to print.
        columns: which columns are used.

    Raises:
        FormError: If it is not CSV, or a quote that is never closed swallows the rest.
        InputError: If there is no such column, or the file is not UTF-8.
    """
    table = CsvTable(columns.delimiter, MAX_TEXT_BYTES, columns.quotes)
    try:
        table.open(_utf8_blocks(stream))
        yield from _prompts_from_rows(table, name, columns)
    except FormError as error:
        raise FormError(f"{name}: {error}", option=error.option) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is {describe_encoding(error.object)}") from None
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from error


def _utf8_blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the blocks of a file, or raise UnicodeDecodeError: a text of another encoding is refused as a whole."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    while block := stream.read(BLOCK_BYTES):
        decoder.decode(block)
        yield block
    decoder.decode(b"", final=True)


def csv_columns(stream: BinaryIO, delimiter: str, quotes: bool | None = None) -> list[str]:
    """Return the column names of a CSV file, for messages.

    Raises:
        FormError: If it has no header, or another character divides them.
    """
    table = CsvTable(delimiter, MAX_TEXT_BYTES, quotes)
    table.open(iter(partial(stream.read, BLOCK_BYTES), b""))
    return table.header


def _prompts_below(
    entries: list[os.DirEntry[str]], prefix: str, globs: tuple[str, ...], read: Read
) -> Iterator[Prompt | LeftOut]:
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            if _matches(name, globs) or entry.is_dir():
                yield LeftOut(printable(name), "it is a symbolic link, which is not followed")
        elif entry.is_dir():
            try:
                inner = sorted(os.scandir(entry.path), key=lambda each: each.name)
            except OSError as error:
                yield LeftOut(f"{printable(name)}/", f"it cannot be read: {error.strerror}")
                continue
            yield from _prompts_below(inner, f"{name}/", globs, read)
        elif _matches(name, globs):
            is_file = entry.is_file()  # a FIFO would block for ever
            yield read(Path(entry.path), name) if is_file else LeftOut(printable(name), "it is not a regular file")


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    last = name.rpartition("/")[2]
    return any(fnmatch.fnmatchcase((name if "/" in glob else last).lower(), glob.lower()) for glob in globs)


def _text_of(data: bytes) -> str | LeftOut:
    """Return bytes as text without the line breaks at its end, or the reason why they are not text."""
    if len(data) > MAX_TEXT_BYTES:
        return LeftOut("", f"it is longer than {MAX_TEXT_BYTES // 1024 // 1024} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return LeftOut("", f"it is not UTF-8 (byte {error.start + 1})")
    return _checked(text.rstrip("\r\n"))


def _checked(text: str) -> str | LeftOut:
    if not text.strip():
        return LeftOut("", "it is empty")
    if "\0" in text:
        return LeftOut("", "it is not text (it contains NUL characters; is it UTF-16?)")
    return text


def _prompts_from_rows(table: CsvTable, name: str, columns: Columns) -> Iterator[Prompt | LeftOut]:
    header = table.header
    text_at = _column(header, columns.text, name)
    id_at = None if columns.id is None else _column(header, columns.id, name)
    fields_at = _fields(header, name, columns)
    kept = _kept(header, {text_at, id_at}, name) if columns.keep else {}
    for number, row in enumerate(table.rows(), 1):
        place = f"{name} row {number}"
        if isinstance(row, str):
            if table.is_open:
                raise InputError(f"{name}: {table.cut}: more may be missing")
            yield LeftOut(place, row)
            continue
        text = _checked(row[text_at])
        if isinstance(text, LeftOut):
            yield LeftOut(place, text.reason)
            continue
        extra = {key: row[index] for key, index in kept.items() if row[index] or index not in table.unnamed}
        fields = {field: row[index] for field, index in fields_at.items()}
        yield Prompt(number if id_at is None or not row[id_at].strip() else row[id_at], text, place, extra, fields)


def _fields(header: list[str], name: str, columns: Columns) -> dict[str, int]:
    """Return {field of the template except the text: index of its column}."""
    others = [field for field in columns.fields if field.name != TEXT_FIELD]
    if len(others) < len(columns.fields) and TEXT_FIELD in header and columns.text != TEXT_FIELD:
        raise InputError(
            f"{name} has a column named {TEXT_FIELD}, and {{{TEXT_FIELD}}} stands for the column "
            f"{printable(columns.text)}: name that one in the template"
        )
    try:
        names = [_column_name(field, header) for field in others if not _is_absent(field, header)]
        return {each: _column(header, each, name) for each in names}
    except InputError as error:
        raise InputError(f"{error} (the template names it; write literal braces twice: {{{{ }}}})") from None


def _is_absent(field: TemplateField, header: list[str]) -> bool:
    return field.is_optional and field.name not in header and field.text not in header


def _column_name(field: TemplateField, header: list[str]) -> str:
    return field.name if field.name in header and field.text not in header else field.text


def _column(header: list[str], wanted: str, name: str) -> int:
    if header.count(wanted) == 1:
        return header.index(wanted)
    fault = "more than one column" if wanted in header else "no column"
    known = ", ".join(printable(each) for each in header) or "none"
    raise InputError(f"{name} has {fault} named {printable(wanted)}; its columns are: {known}")


def _kept(header: list[str], used: set[int | None], name: str) -> dict[str, int]:
    """Return {key of the line: index} of the echoed columns; a column named like a key of obcd gets a leading `_`."""
    kept: dict[str, int] = {}
    for index, column in enumerate(header):
        if index in used:
            continue
        key = column
        while key in RESERVED_KEYS or (key != column and key in header):
            key = f"_{key}"
        if key in kept:
            raise InputError(
                f"{name} has more than one column named {printable(column)}: --keep cannot tell them apart"
            )
        kept[key] = index
    return kept
