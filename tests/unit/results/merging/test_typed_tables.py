"""Tables whose columns the schema names and types: csv, parquet and sqlite."""

from __future__ import annotations

import csv
import importlib
import io
import json
import sqlite3
import tracemalloc
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import InputError
from obcd.results.merging.column_kinds import ColumnKind, schema_kinds
from obcd.results.merging.merge import merge_answers
from obcd.results.merging.merge_tables import MAX_SQLITE_COLUMNS, CsvWriter, ParquetWriter, SqliteWriter, TableWriter
from obcd.results.reading.answers import Answer
from tests.golden.wording import wording
from tests.unit.results.conftest import Publish

ANSWER = Answer(place="line 1", file="f", line=1, record={})
SCHEMA: dict[str, Any] = {
    "$defs": {"sex": {"enum": ["f", "m"]}},
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "weight": {"type": "number"},
        "smokes": {"type": "boolean"},
        "sex": {"$ref": "#/$defs/sex"},
        "height": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "mixed": {"type": ["integer", "string"]},
        "drugs": {"type": "array"},
        "version": {"const": 2},
        "odd": {},
    },
}


def write(writer: TableWriter, stream: io.BytesIO, values: Iterable[Any], schema: dict[str, Any]) -> bytes:
    with closing(writer):
        writer.expect(schema)
        for value in values:
            writer.add(value, ANSWER)
        writer.finish()
    return stream.getvalue()


def database(data: bytes, folder: Path) -> sqlite3.Connection:
    (folder / "x.db").write_bytes(data)
    return sqlite3.connect(folder / "x.db")


def test_schema_gives_each_column_its_kind() -> None:
    assert schema_kinds(SCHEMA) == {
        "name": ColumnKind.TEXT,
        "age": ColumnKind.INT,
        "weight": ColumnKind.FLOAT,
        "smokes": ColumnKind.BOOL,
        "sex": ColumnKind.TEXT,
        "height": ColumnKind.INT,
        "mixed": ColumnKind.INT | ColumnKind.TEXT,
        "drugs": ColumnKind.TEXT,
        "version": ColumnKind.INT,
        "odd": ColumnKind.TEXT,
    }


CIRCLE = {"$ref": "#/$defs/N"}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"properties": 5},
        {"$ref": "#/no"},
        {"$ref": "#"},
        {"properties": {"a": 5}},
        {"properties": {"a": CIRCLE}, "$defs": {"N": {"anyOf": [{"type": "null"}, CIRCLE]}}},
    ],
)
def test_schema_without_columns_gives_none_or_text(schema: dict[str, Any]) -> None:
    assert set(schema_kinds(schema).values()) <= {ColumnKind.TEXT}


def test_columns_are_the_schemas_in_its_order_even_where_no_answer_has_them() -> None:
    stream = io.BytesIO()

    data = write(CsvWriter(stream), stream, [{"more": 1, "age": 3}], SCHEMA)

    assert data.decode().splitlines() == [
        "name,age,weight,smokes,sex,height,mixed,drugs,version,odd,more",
        ",3,,,,,,,,,1",
    ]


def test_parquet_types_are_the_schemas() -> None:
    stream = io.BytesIO()

    data = write(ParquetWriter(stream), stream, [{"weight": 70, "drugs": [{"a": 1}]}], SCHEMA)

    table = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "name": "string",
        "age": "int64",
        "weight": "double",
        "smokes": "bool",
        "sex": "string",
        "height": "int64",
        "mixed": "string",
        "drugs": "string",
        "version": "int64",
        "odd": "string",
    }
    assert table.to_pylist()[0]["drugs"] == '[{"a": 1}]'


def test_value_that_does_not_fit_its_schema_is_kept_exactly() -> None:
    stream = io.BytesIO()

    data = write(ParquetWriter(stream), stream, [{"age": "about 50"}, {"age": 51}], SCHEMA)

    table = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))
    assert table.column("age").to_pylist() == ["about 50", "51"]


def test_sqlite_has_one_table_with_typed_columns(tmp_path: Path) -> None:
    stream = io.BytesIO()
    values = [{"name": "Mira", "age": 54, "weight": 70, "smokes": True, "drugs": ["a"]}, {"name": None, "age": 2**62}]

    data = write(SqliteWriter(stream, ("line",), tmp_path), stream, values, SCHEMA)

    assert list(tmp_path.iterdir()) == []
    with closing(database(data, tmp_path)) as found:
        types = {name: kind for _, name, kind, *_ in found.execute("PRAGMA table_info(answers)")}
        assert (types["line"], types["age"], types["weight"], types["smokes"]) == (
            "INTEGER",
            "INTEGER",
            "REAL",
            "BOOLEAN",
        )
        rows = found.execute("SELECT line, name, age, weight, smokes, drugs FROM answers").fetchall()
        assert rows == [(1, "Mira", 54, 70.0, 1, '["a"]'), (1, None, 2**62, None, None, None)]
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sqlite_takes_any_names_of_columns_and_any_values(tmp_path: Path) -> None:
    stream = io.BytesIO()
    value = {
        'a"b; DROP TABLE answers': 1,
        "Age": 1,
        "age": 2,
        "AGE_": 3,
        "": 4,
        "n\0l": "x\0y",
        "\ud800": 10**30,
        "e": {},
    }

    data = write(SqliteWriter(stream, (), tmp_path), stream, [value], {})

    with closing(database(data, tmp_path)) as found:
        assert found.execute("SELECT * FROM answers").fetchall() == [(1, 1, 2, 3, 4, "x\0y", "1" + "0" * 30, "{}")]


def test_sqlite_notes_what_it_names_otherwise(tmp_path: Path) -> None:
    stream = io.BytesIO()
    writer = SqliteWriter(stream, ("line", "id"), tmp_path)

    data = write(writer, stream, [{"ID": 1, "i": 2, "I": 3, "line": 4, "_LINE": 5}], {})

    with closing(database(data, tmp_path)) as found:
        names = [name for _, name, *_ in found.execute("PRAGMA table_info(answers)")]
    assert names == ["_line", "id", "ID_", "i", "I_", "line", "_LINE_"]
    assert writer.renamed == {"_line": "line", "ID_": "ID", "I_": "I", "_LINE_": "_LINE"}


def test_sqlite_says_when_there_are_too_many_columns(tmp_path: Path) -> None:
    stream = io.BytesIO()
    value = {f"k{number}": 1 for number in range(MAX_SQLITE_COLUMNS + 1)}

    with pytest.raises(InputError, match=wording("more-than-2000-different-keys-merge")):
        write(SqliteWriter(stream, (), tmp_path), stream, [value], {})


@pytest.mark.parametrize("is_for_spreadsheets", [True, False])
def test_text_that_a_spreadsheet_would_compute_is_counted_and_defused_where_wanted(
    *, is_for_spreadsheets: bool
) -> None:
    stream = io.BytesIO()
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "a=b", "", " =1"]
    writer = CsvWriter(stream, is_for_spreadsheets=is_for_spreadsheets)

    data = write(writer, stream, [{"=k": cell, "n": -5} for cell in cells], {})

    text = data.decode()
    assert text.startswith("\ufeff") is is_for_spreadsheets  # without it Excel garbles what is not ASCII
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    mark = "'" if is_for_spreadsheets else ""
    assert rows[0] == [f"{mark}=k", "n"]
    assert [row[0] for row in rows[1:]] == [f"{mark}{cell}" for cell in cells[:6]] + cells[6:]
    assert {row[1] for row in rows[1:]} == {"-5"}  # a number is no formula
    assert writer.formulas == 7


def test_merge_reads_the_schema_of_each_folder(publish: Publish) -> None:
    folder = publish("notes", {1: '{"b": 1}'})
    manifest = json.loads((folder / "manifest.json").read_text())
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "settings": {"format": schema}}))
    stream = io.BytesIO()

    with closing(CsvWriter(stream)) as writer:
        merge_answers([folder], writer, ignore=None, report=lambda _: None)

    assert stream.getvalue() == b"a,b\r\n,1\r\n"


@pytest.mark.parametrize("kind", [CsvWriter, ParquetWriter, SqliteWriter])
def test_memory_does_not_grow_with_the_answers(
    kind: type[TableWriter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obcd.results.merging.merge_tables.ROWS_PER_GROUP", 100)

    def peak(count: int) -> int:
        with open(tmp_path / "out", "wb") as stream, closing(kind(stream, (), tmp_path)) as writer:
            tracemalloc.start()
            for number in range(count):
                writer.add({"a": "x" * 2500, "n": number}, ANSWER)
            writer.finish()
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    peak(10)  # what is imported at the first time
    assert peak(800) < peak(200) + 2**20
