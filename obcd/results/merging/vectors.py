"""Write the vectors of answered `embed` lines as one document: one row per vector, in the order of the prompts.

    {"id": "a", "line": 1, "index": 0, "text": "One text.", "embedding": [0.0123, …]}

One pass; memory holds one answer, and for Parquet one group of rows.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

from obcd.core.answer.vectors import why_no_vectors
from obcd.errors import InputError, UsageError
from obcd.results.merging.merge import Merged, load_pyarrow
from obcd.results.reading.answers import Answer
from obcd.results.reading.with_retries import Retries, find_wholes, read_whole
from obcd.text import printable
from obcd.text_files import LeftOut

#: Maximum count of numbers of Parquet rows in memory: 8 MiB of them.
NUMBERS_PER_GROUP = 2**21
#: {suffix of the output file: whether it is Parquet}
SUFFIXES = {".jsonl": False, ".ndjson": False, ".parquet": True}


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One vector, and the text that it represents.

    Attributes:
        id: The user's own id of the line.
        line: The number of the line in the prompt file; None if it is unknown.
        index: The index of the text in its line, from 0.
    """

    id: object
    line: int | None
    index: int
    text: str
    embedding: list[float]


def _document(row: VectorRow) -> dict[str, object]:
    return {item.name: getattr(row, item.name) for item in fields(row)}


class VectorWriter(ABC):
    """Takes rows one by one and writes a whole document to a binary stream."""

    @abstractmethod
    def add(self, row: VectorRow) -> None:
        """Add the next row."""

    @abstractmethod
    def finish(self) -> None:
        """Write the rest; `add` must not be called afterwards."""


class JsonlVectors(VectorWriter):
    """Writes one row per line, in ASCII."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def add(self, row: VectorRow) -> None:
        """Append a line."""
        self._stream.write(json.dumps(_document(row)).encode("ascii") + b"\n")

    def finish(self) -> None:
        """Do nothing: every line is complete."""


class ParquetVectors(VectorWriter):
    """Columns `id` (text; any other value as JSON), `line`, `index`, `text`, and `embedding`: a list of float32.

    Ollama's vectors are float32 as well: no precision is lost.

    Raises:
        UsageError: If pyarrow is not installed; raised before any answer is read.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._arrow = arrow = load_pyarrow()
        self._schema = arrow.schema(
            [
                ("id", arrow.string()),
                ("line", arrow.int64()),
                ("index", arrow.int32()),
                ("text", arrow.string()),
                ("embedding", arrow.list_(arrow.float32())),
            ]
        )
        self._writer = arrow.parquet.ParquetWriter(stream, self._schema)
        self._rows: list[dict[str, object]] = []
        self._numbers = 0

    def add(self, row: VectorRow) -> None:
        """Keep a row until its group is full."""
        own = row.id
        text = row.text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be encoded
        name = own if isinstance(own, str) else json.dumps(own)
        self._rows.append({**_document(row), "id": name.encode("utf-8", "replace").decode("utf-8"), "text": text})
        self._numbers += len(row.embedding)
        if self._numbers >= NUMBERS_PER_GROUP:
            self._flush()

    def finish(self) -> None:
        """Write the last group and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._numbers = [], 0


def writer_for(path: str, stream: BinaryIO, *, is_parquet: bool | None = None) -> VectorWriter:
    """Return the writer of the given format, by default by the file's name; standard output gets JSONL.

    Raises:
        UsageError: If the name has no known suffix, or pyarrow is not installed.
    """
    if is_parquet is None:
        is_parquet = False if path == "-" else SUFFIXES.get(Path(path).suffix.lower())
    if is_parquet is None:
        raise UsageError(f"{printable(path)}: vectors go to .jsonl or .parquet; or name one of them with --format")
    return ParquetVectors(stream) if is_parquet else JsonlVectors(stream)


def write_vectors(
    folders: list[Path], writer: VectorWriter, *, ignore: Path | None, report: Callable[[LeftOut], None]
) -> Merged:
    """Write every vector of the answers in these folders, in input order.

    Args:
        folders: Published folders, or folders that contain some.
        writer: Takes the rows; it is finished at the end.
        ignore: The output file, which may be among the inputs after an earlier call.
        report: Called with each line that was left out: failed, damaged, or answered with a text.

    Raises:
        InputError: If there is neither a vector nor a line that was left out.
    """
    written = left_out = 0
    for item in _items(folders, ignore):
        if isinstance(item, LeftOut) or (why := _why_none(item)):
            report(item if isinstance(item, LeftOut) else LeftOut(item.place, why))
            left_out += 1
            continue
        for row in rows_of(item):
            writer.add(row)
            written += 1
    if not written and not left_out:
        shown = ", ".join(printable(str(folder)) for folder in folders)
        raise InputError(f"no vectors in {shown}: there is no published folder with answers")
    writer.finish()
    return Merged(written, left_out)


def rows_of(answer: Answer) -> Iterator[VectorRow]:
    """Yield the rows of an answered line, one for each text; the answer must hold vectors."""
    texts = answer.prompt if isinstance(answer.prompt, list) else [answer.prompt]
    vectors = answer.embeddings if isinstance(answer.embeddings, list) else []
    for index, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        yield VectorRow(answer.request_id, answer.line, index, str(text), vector)


def _why_none(answer: Answer) -> str:
    found, texts = answer.embeddings, answer.prompt
    if found is None:
        return "it holds no vectors: it does not answer an `embed` line"
    return why_no_vectors(found, len(texts) if isinstance(texts, list) else 1).replace("the reply", "it")


def _items(folders: list[Path], ignore: Path | None) -> Iterator[Answer | LeftOut]:
    retries = Retries()
    for source in find_wholes(folders, retries, ignore):
        yield from read_whole(source, retries)
