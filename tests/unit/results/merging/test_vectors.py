"""Vectors of published folders as JSONL and Parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import InputError, UsageError
from obcd.results.merging.vectors import JsonlVectors, VectorRow, write_vectors, writer_for
from obcd.text_files import LeftOut
from tests.golden.wording import wording

RESPONSES: list[dict[str, Any]] = [
    {"id": "a", "line": 1, "prompt": "One.", "embeddings": [[0.5, -0.25]]},
    {"id": 2, "line": 2, "prompt": ["x", "y"], "embeddings": [[1.0, 0.0], [0.125, 1.5]]},
    {"id": 3, "line": 3, "prompt": "Why?", "response": "So."},
    {"id": 4, "line": 4, "prompt": ["x", "y"], "embeddings": [[1.0, 0.0]]},
]
ERRORS = [{"id": 5, "line": 5, "class": "timeout", "message": "no answer", "attempts": 4}]
ROWS = [
    {"id": "a", "line": 1, "index": 0, "text": "One.", "embedding": [0.5, -0.25]},
    {"id": 2, "line": 2, "index": 0, "text": "x", "embedding": [1.0, 0.0]},
    {"id": 2, "line": 2, "index": 1, "text": "y", "embedding": [0.125, 1.5]},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, records in (("responses.jsonl", RESPONSES), ("errors.jsonl", ERRORS)):
        (folder / name).write_text("".join(json.dumps(item) + "\n" for item in records), "utf-8")
    (folder / "manifest.json").write_text("{}", "utf-8")
    return folder


def test_every_vector_is_a_row_and_what_has_none_is_told(folder: Path) -> None:
    stream, told = io.BytesIO(), list[LeftOut]()

    done = write_vectors([folder], JsonlVectors(stream), ignore=None, report=told.append)

    assert [json.loads(line) for line in stream.getvalue().splitlines()] == ROWS
    assert (done.values, done.left_out) == (3, 3)
    assert [(item.place, item.reason) for item in told] == [
        ("notes/responses.jsonl line 3", wording("it-holds-no-vectors-it-is")),
        ("notes/responses.jsonl line 4", wording("it-holds-1-vectors-where-2")),
        ("notes/errors.jsonl line 1 (input line 5)", wording("the-request-failed-timeout-after-4")),
    ]


def test_parquet_holds_lists_of_float32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("obcd.results.merging.vectors.NUMBERS_PER_GROUP", 4)
    stream = io.BytesIO()

    write_vectors([folder], writer_for("v.parquet", stream), ignore=None, report=lambda item: None)

    table = parquet.read_table(io.BytesIO(stream.getvalue()))
    assert str(table.schema.field("embedding").type) == "list<element: float>"
    assert table.to_pylist() == [{**row, "id": str(row["id"])} for row in ROWS]


def test_lone_surrogates_do_not_end_the_document() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    stream = io.BytesIO()
    writer = writer_for("v.parquet", stream)

    writer.add(VectorRow("\ud800", 1, 0, "a\ud800", [1.0]))
    writer.finish()

    (row,) = parquet.read_table(io.BytesIO(stream.getvalue())).to_pylist()
    assert (row["text"][0], row["embedding"]) == ("a", [1.0])


def test_nothing_to_write_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=wording("no-vectors-in")):
        write_vectors([tmp_path], JsonlVectors(io.BytesIO()), ignore=None, report=lambda item: None)


def test_name_that_says_no_format_is_refused() -> None:
    with pytest.raises(UsageError, match=wording("v-csv-vectors-go-to-jsonl")):
        writer_for("v.csv", io.BytesIO())
