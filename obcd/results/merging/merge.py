"""Merge responses, their JSON or their text, into one document: json, jsonl, csv, parquet or sqlite.

One pass over the responses in input order; memory holds the answers of one line at a time. Tables must know their
columns first: they keep the values in a temporary file for a second pass (see `merge_rows`).
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from obcd.core.answer.outcomes import NOT_PARSED
from obcd.core.schema.extract import CUT, Found, NoJson, distinct, main_values, search_json
from obcd.errors import InputError, UsageError
from obcd.results.merging.item_path import ItemPath, ItemRow
from obcd.results.reading.answers import Answer, each_answer, read_schema
from obcd.results.reading.sources import PublishedFolder, Source
from obcd.results.reading.with_retries import Retries, find_wholes, read_whole
from obcd.text import printable
from obcd.text_files import LeftOut


class Format(StrEnum):
    """The format of the document."""

    JSON = "json"  # one array, indented by 2, ASCII: the seed's bytes
    JSONL = "jsonl"  # one value a line, ASCII
    CSV = "csv"  # RFC 4180, UTF-8
    PARQUET = "parquet"
    SQLITE = "sqlite"  # a database with the table `answers`


#: the keys around a value that is not an item of a list
NOTHING_AROUND: Mapping[str, object] = MappingProxyType({})
#: the key of an answer's text
TEXT_KEY = "response"
#: {suffix of the output file: its format}; any other suffix means json
SUFFIXES = {
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".sqlite": Format.SQLITE,
    ".db": Format.SQLITE,
}

#: endings of spreadsheets, which are not written
SPREADSHEETS = (".xlsx", ".xls", ".ods")


@dataclass(frozen=True, slots=True)
class Merged:
    """The counts of a merge."""

    values: int  # written: one for each answer, or one for each row
    left_out: int  # damaged, without JSON, or failed
    lines: int = 0  # of the prompts to which the written values belong
    without_json: int = 0  # answered but left out
    repaired: int = 0  # answers that are only nearly JSON
    without_list: int = field(default=0, compare=False)  # left out because the list of the rows is not in it
    answers: int = field(default=0, compare=False)  # from which values were written


class Writer(ABC):
    """Takes values one by one and writes a whole document to a binary stream."""

    @abstractmethod
    def add(self, value: object, answer: Answer, around: Mapping[str, object] = NOTHING_AROUND) -> None:
        """Add the next value, the answer in which it was found, and what stands around the list whose item it is."""

    @abstractmethod
    def finish(self) -> None:
        """Write the rest; `add` must not be called afterwards."""

    def expect(self, schema: Mapping[str, object]) -> None:
        """Announce the JSON schema of the following answers; does nothing by default."""
        return

    def close(self) -> None:
        """Release the writer's resources, whether it was finished or not; does nothing by default."""
        return


class _ValueWriter(Writer):
    """Writes only the values."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def add(self, value: object, answer: Answer | None = None, around: Mapping[str, object] = NOTHING_AROUND) -> None:
        """Write the value; the rest is ignored."""
        self.write(value)

    @abstractmethod
    def write(self, value: object) -> None:
        """Write the next value."""


class JsonWriter(_ValueWriter):
    """Writes one JSON array, byte for byte as `json.dump(values, file, indent=2)`, without holding the values."""

    _is_empty = True

    def write(self, value: object) -> None:
        """Append an element."""
        # No string of ASCII JSON contains a line break, so every line break in the text is a place to indent.
        text = json.dumps(value, indent=2).replace("\n", "\n  ")
        self.stream.write((("[\n  " if self._is_empty else ",\n  ") + text).encode("ascii"))
        self._is_empty = False

    def finish(self) -> None:
        """Close the array; like the seed's file, this one ends without a line break."""
        self.stream.write(b"[]" if self._is_empty else b"\n]")


class JsonlWriter(_ValueWriter):
    """Writes one value per line."""

    def write(self, value: object) -> None:
        """Append a line."""
        self.stream.write(json.dumps(value).encode("ascii") + b"\n")

    def finish(self) -> None:
        """Do nothing: every line is complete."""


def load_pyarrow() -> Any:
    """Return the package with its `parquet`, imported only where it is needed.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise UsageError("parquet needs pyarrow, which is not installed: pip install 'obcd[parquet]'") from error


def format_of(path: str) -> Format:
    """Return the format by the suffix of a file's name."""
    suffix = Path(path).suffix.lower()
    if suffix and suffix not in SUFFIXES:
        hint = ", such as csv with --spreadsheet for Excel" if suffix in SPREADSHEETS else ""
        raise UsageError(f"{printable(path)}: no format ends in {printable(suffix)}; name one with --format{hint}")
    return SUFFIXES.get(suffix, Format.JSON)


def merge_answers(
    folders: list[Path],
    writer: Writer,
    *,
    ignore: Path | None,
    report: Callable[[LeftOut], None],
    is_text: bool = False,
    rows: ItemPath | None = None,
) -> Merged:
    """Write the JSON value of every answer in these folders, in input order.

    Args:
        folders: published folders, or folders that contain published folders or per-prompt files.
        writer: takes the values; it is finished at the end.
        ignore: the output file, which may be among the inputs after an earlier merge.
        report: called with everything that was left out, in order; reasons never quote an answer.
        is_text: whether the text of every answer is written instead, as `{"response": "…"}`.
        rows: the list in each answer whose items are written instead of the answer; None: the answer itself is.

    Raises:
        InputError: If there is nothing to merge: no answer, no failure, no damaged line.
    """
    values = left_out = lines = without_json = repaired = 0
    answers = without_list = 0
    retries = Retries()
    for source in find_wholes(folders, retries, ignore):
        if not is_text:
            _expect_schemas(source, retries, writer)
        for item in read_whole(source, retries):
            before = values
            for part in each_answer(item) if isinstance(item, Answer) else [item]:
                if isinstance(part, LeftOut):
                    report(part)
                    left_out += 1
                    continue
                found = _find(part, is_text=is_text, is_split=rows is not None)
                items = _rows(found, rows) if isinstance(found, list) else found
                if isinstance(items, NoJson):
                    report(LeftOut(part.place, items.reason))
                    left_out += 1
                    without_json += items is found
                    without_list += items is not found
                    continue
                for row in items:
                    writer.add(row.item, part, row.around)
                values += len(items)
                answers += 1
                repaired += isinstance(found, list) and any(each.is_repaired for each in found)
            lines += values > before
    if not answers and not left_out:
        shown = ", ".join(printable(str(folder)) for folder in folders)
        raise InputError(f"nothing to merge in {shown}: no per-prompt files and no published folder with answers")
    writer.finish()
    return Merged(values, left_out, lines, without_json, repaired, without_list, answers)


def value_of(answer: Answer) -> Found | NoJson:
    """Return the one JSON value of an answer, or why there is not exactly one."""
    found = values_of(answer)
    if isinstance(found, NoJson):
        return found
    return found[0] if len(found) == 1 else NoJson(f"it holds {len(found)} JSON values: --rows writes a row for each")


def values_of(answer: Answer) -> list[Found] | NoJson:
    """Return the JSON values of an answer, which all differ, or why it has none.

    One that its job has found already, or that is not text, is used as it is.
    """
    if answer.parsed is not NOT_PARSED:
        return [Found(answer.parsed)]
    response = answer.response
    if isinstance(response, (dict, list)):
        return [Found(response)]
    if not isinstance(response, str):
        return _no_text(answer)
    search = search_json(response)
    found = distinct(main_values(search.values))
    if found and not search.is_cut:
        return found
    if not found and answer.tool_calls:
        return NoJson("it calls tools: --text --with tool_calls takes the calls")
    return NoJson(CUT) if found else search.reason


def text_of(answer: Answer) -> Found | NoJson:
    """Return the unchanged text of an answer in an object; a JSON value that is not text stays as it is."""
    response = answer.response
    return Found({TEXT_KEY: response}) if isinstance(response, (str, dict, list)) else _no_text(answer)


def _no_text(answer: Answer) -> NoJson:
    if TEXT_KEY in answer.record:
        return NoJson("its response is not text")
    has_vectors = "embeddings" in answer.record
    return NoJson("it holds vectors: `obcd vectors` writes them" if has_vectors else "it has no response")


def _find(answer: Answer, *, is_text: bool, is_split: bool) -> list[Found] | NoJson:
    """Return what of an answer is written; several values only if each becomes a row."""
    if is_split:
        return values_of(answer)
    found = text_of(answer) if is_text else value_of(answer)
    return found if isinstance(found, NoJson) else [found]


def _rows(found: list[Found], rows: ItemPath | None) -> list[ItemRow] | NoJson:
    if rows is None:
        return [ItemRow(each.value, NOTHING_AROUND) for each in found]
    made: list[ItemRow] = []
    for each in found:
        items = rows.rows(each.value)
        if isinstance(items, NoJson):
            return items
        made += items
    return made


def _expect_schemas(source: Source, retries: Retries, writer: Writer) -> None:
    """Give a writer the schemas of a job's answers and of its retries' answers."""
    if isinstance(source, PublishedFolder):
        for part in (source, *retries.below(source)):
            writer.expect(read_schema(part))
