"""What stands beside the values: fields of the answer and keys of the line that was asked."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from obcd.results.merging.merge import JsonlWriter, JsonWriter
from obcd.results.merging.merge_rows import FIELDS, ObjectsWriter, RowWriter
from obcd.results.merging.merge_tables import CsvWriter, ParquetWriter
from obcd.results.reading.answers import Answer


def answer(line: int, extra: Any = None, index: int = 0) -> Answer:
    record = {"id": f"r-{line}", "seed": 40 + index, "extra": extra}
    return Answer(place=f"line {line}", file="f", line=line, record=record, index=index)


def write(writer: RowWriter, stream: io.BytesIO, rows: Iterable[tuple[Any, Answer]]) -> bytes:
    with closing(writer):
        for value, given in rows:
            writer.add(value, given)
        writer.finish()
    return stream.getvalue()


def objects(rows: Iterable[tuple[Any, Answer]], fields: tuple[str, ...]) -> list[Any]:
    stream = io.BytesIO()
    data = write(ObjectsWriter(JsonlWriter(stream), fields), stream, rows)
    return [json.loads(line) for line in data.splitlines()]


def table(rows: Iterable[tuple[Any, Answer]], fields: tuple[str, ...]) -> list[list[str]]:
    stream = io.BytesIO()
    data = write(CsvWriter(stream, fields), stream, rows)
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_keys_of_the_line_are_columns_between_fields_and_value() -> None:
    rows = [({"age": 54}, answer(1, {"mrn": "1", "ward": "3b"})), ({"age": 7}, answer(2, {"mrn": "2", "more": [1]}))]

    assert table(rows, ("extra", "id")) == [
        ["id", "mrn", "ward", "more", "age"],
        ["r-1", "1", "3b", "", "54"],
        ["r-2", "2", "", "[1]", "7"],
    ]


def test_keys_of_the_line_are_typed_in_parquet() -> None:
    stream = io.BytesIO()

    data = write(ParquetWriter(stream, ("extra",)), stream, [({"a": "x"}, answer(1, {"n": 5, "ok": True}))])

    found = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))
    assert {field.name: str(field.type) for field in found.schema} == {"n": "int64", "ok": "bool", "a": "string"}


def test_names_that_are_taken_get_a_mark_in_front_the_same_in_every_row() -> None:
    rows = [({"name": "A", "id": 1}, answer(1, {"name": "B", "line": "C", "_name": "D"})), ({}, answer(2, {"line": 0}))]

    assert objects(rows, ("line", "id", "extra")) == [
        {"line": 1, "_id": "r-1", "_name": "B", "_line": "C", "__name": "D", "name": "A", "id": 1},
        {"line": 2, "_id": "r-2", "_line": 0},
    ]


def test_names_that_were_taken_are_noted() -> None:
    stream = io.BytesIO()
    writer = CsvWriter(stream, ("line", "id", "extra"))

    write(writer, stream, [({"id": 1}, answer(1, {"line": 2}))])

    assert writer.renamed == {"_id": "id", "_line": "line"}


def test_json_holds_objects_where_fields_are_asked_for_and_what_is_none_stands_under_value() -> None:
    stream = io.BytesIO()
    rows = [([1, 2], answer(1)), ({"a": None}, answer(2)), ("text", answer(3))]

    data = write(ObjectsWriter(JsonWriter(stream), ("line",)), stream, rows)

    expected = [{"line": 1, "value": [1, 2]}, {"line": 2, "a": None}, {"line": 3, "value": "text"}]
    assert data.decode() == json.dumps(expected, indent=2)


def test_index_and_seed_tell_the_answers_of_a_line_apart() -> None:
    rows = [("x", answer(1, index=index)) for index in (0, 1)]

    assert [(row["line"], row["index"], row["seed"]) for row in objects(rows, ("line", "index", "seed"))] == [
        (1, 0, 40),
        (1, 1, 41),
    ]


@pytest.mark.parametrize("extra", [None, 5, [], {}])
def test_line_without_further_keys_adds_no_column(extra: Any) -> None:
    assert objects([({"a": 1}, answer(1, extra))], ("extra",)) == [{"a": 1}]


def test_field_that_an_answer_lacks_is_null() -> None:
    (row,) = objects([({}, answer(1))], tuple(field for field in FIELDS if field != "extra"))

    assert row.keys() == set(FIELDS) - {"extra"}
    assert (row["line"], row["tool_calls"]) == (1, None)


def test_rows_are_collected_where_the_output_lies_and_nothing_stays(tmp_path: Path) -> None:
    stream = io.BytesIO()

    write(ObjectsWriter(JsonlWriter(stream), ("line",), tmp_path), stream, [(1, answer(1))])

    assert list(tmp_path.iterdir()) == []
