"""Merge the JSON inside answers into one document: json, jsonl, csv or parquet.

One pass over the answers in input order; memory holds one answer at a time. Tables need to know their columns first:
they keep the parsed values in a temporary file for a second pass (`tables`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from obcd.core.extract import Found, Missing, find_json
from obcd.errors import InputError, UsageError
from obcd.logs import printable
from obcd.reports.answers import Answer, read_schema
from obcd.reports.healing import Retries, find_wholes, read_whole
from obcd.reports.sources import LeftOut, PublishedFolder


class Format(StrEnum):
    """What kind of document is written."""

    JSON = "json"  # one array, indented by 2, ASCII: the seed's bytes
    JSONL = "jsonl"  # one value a line, ASCII
    CSV = "csv"  # RFC 4180, UTF-8
    PARQUET = "parquet"
    SQLITE = "sqlite"  # a database with the table `answers`


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


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did."""

    values: int  # written
    left_out: int  # damaged, without JSON, or failed


class Writer(ABC):
    """Takes values one by one and leaves a whole document in a binary stream."""

    @abstractmethod
    def add(self, value: Any, answer: Answer) -> None:
        """Take the next value and the answer it was found in."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is still due; nothing is added afterwards."""

    def expect(self, schema: Mapping[str, Any]) -> None:
        """Take note of the JSON schema that answers to come fit; by default nothing comes of it."""
        return

    def close(self) -> None:
        """Give back what the writer holds, whether it was finished or not; by default nothing."""
        return


class JsonWriter(Writer):
    """One JSON array, byte for byte what `json.dump(values, file, indent=2)` writes, without holding the values."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._is_empty = True

    def add(self, value: Any, answer: Answer) -> None:
        """Append an element."""
        # No string of ASCII JSON holds a line break, so every one in the text is a place to indent.
        text = json.dumps(value, indent=2).replace("\n", "\n  ")
        self._stream.write((("[\n  " if self._is_empty else ",\n  ") + text).encode("ascii"))
        self._is_empty = False

    def finish(self) -> None:
        """Close the array; like the seed's, the file ends without a line break."""
        self._stream.write(b"[]" if self._is_empty else b"\n]")


class JsonlWriter(Writer):
    """One value a line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def add(self, value: Any, answer: Answer) -> None:
        """Append a line."""
        self._stream.write(json.dumps(value).encode("ascii") + b"\n")

    def finish(self) -> None:
        """Do nothing: every line is complete."""


def format_of(path: str) -> Format:
    """Return the format that a file's name asks for."""
    suffix = Path(path).suffix.lower()
    if suffix and suffix not in SUFFIXES:
        raise UsageError(f"{printable(path)}: no format ends in {printable(suffix)}; name one with --format")
    return SUFFIXES.get(suffix, Format.JSON)


def merge_answers(
    folders: list[Path], writer: Writer, *, ignore: Path | None, report: Callable[[LeftOut], None]
) -> Merged:
    """Write the JSON value of every answer in these folders, in input order.

    Args:
        folders: published folders, or folders that hold some, or per-prompt files.
        writer: gets the values and is finished.
        ignore: the output file, which may lie among the inputs from an earlier merge.
        report: called with everything that was left out, in order; reasons never quote an answer.

    Raises:
        InputError: There is nothing to merge: no answer, no failure, no damaged line.
    """
    values = left_out = 0
    for item in _items(folders, ignore, writer):
        found = item if isinstance(item, LeftOut) else value_of(item)
        if isinstance(item, Answer) and isinstance(found, Found):
            writer.add(found.value, item)
            values += 1
        elif isinstance(found, Missing) and isinstance(item, Answer):
            report(LeftOut(item.place, found.reason))
            left_out += 1
        elif isinstance(item, LeftOut):
            report(item)
            left_out += 1
    if not values and not left_out:
        shown = ", ".join(printable(str(folder)) for folder in folders)
        raise InputError(f"nothing to merge in {shown}: no per-prompt files and no published folder with answers")
    writer.finish()
    return Merged(values, left_out)


def value_of(answer: Answer) -> Found | Missing:
    """Return the JSON value of an answer; one that was found at its job, or is no text, is taken as it is."""
    if "parsed" in answer.record:
        return Found(answer.record["parsed"])
    if "response" not in answer.record:
        has_vectors = "embeddings" in answer.record
        return Missing("it holds vectors: `obcd vectors` writes them" if has_vectors else "it has no response")
    response = answer.record["response"]
    if isinstance(response, str):
        return find_json(response)
    if isinstance(response, (dict, list)):
        return Found(response)
    return Missing("its response is not text")


def _items(folders: list[Path], ignore: Path | None, writer: Writer) -> Iterator[Answer | LeftOut]:
    """Yield answers and failures source by source, each in the order of the prompts."""
    retries = Retries()
    for source in find_wholes(folders, retries, ignore):
        if isinstance(source, PublishedFolder):
            for part in (source, *retries.below(source)):
                writer.expect(read_schema(part))
        yield from read_whole(source, retries)
