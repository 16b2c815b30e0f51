from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import pytest

from obcd.errors import InputError, UsageError
from obcd.results.merging import merge_rows, merge_tables
from obcd.results.merging.merge_tables import CsvWriter, ParquetWriter, TableWriter
from obcd.results.reading.answers import Answer
from tests.golden.wording import wording


def answer(line: int) -> Answer:
    record = {"id": f"n{line}", "prompt": f"q{line}", "seconds": 0.5, "model": "m"}
    return Answer(place=f"line {line}", file="notes/responses.jsonl", line=line, record=record)


def write(kind: type[TableWriter], values: Iterable[Any], fields: tuple[str, ...] = ()) -> bytes:
    stream = io.BytesIO()
    with closing(kind(stream, fields)) as writer:
        for line, value in enumerate(values, 1):
            writer.add(value, answer(line))
        writer.finish()
    return stream.getvalue()


def read_parquet(data: bytes) -> Any:
    return importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))


def column_types(table: Any) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


def test_csv_columns_are_the_keys_in_the_order_first_seen() -> None:
    assert write(CsvWriter, [{"b": 1, "a": 2}, {"a": 3, "c": 4}]) == b"b,a,c\r\n1,2,\r\n,3,4\r\n"


def test_csv_quotes_as_rfc_4180() -> None:
    values = [{"a": 'say "hi"', "b": "x,y"}, {"a": "two\r\nlines", "b": " kept "}]

    data = write(CsvWriter, values)

    assert data == b'a,b\r\n"say ""hi""","x,y"\r\n"two\r\nlines", kept \r\n'
    assert list(csv.DictReader(io.StringIO(data.decode(), newline=""))) == values


def test_csv_cells_that_are_no_text_are_json() -> None:
    data = write(CsvWriter, [{"a": {"ä": [1, None]}, "b": True, "c": None, "d": 1.0, "e": "true"}])

    assert data.decode() == 'a,b,c,d,e\r\n"{""ä"": [1, null]}",true,,1.0,true\r\n'


def test_csv_puts_what_is_no_object_into_the_column_value() -> None:
    assert (
        write(CsvWriter, [[1, 2], "text", 7, None, {"a": 1}]) == b'value,a\r\n"[1, 2]",\r\ntext,\r\n7,\r\n,\r\n,1\r\n'
    )


def test_csv_fields_come_first_and_make_room_for_keys_of_the_answer() -> None:
    data = write(CsvWriter, [{"id": "theirs", "_id": 1}, {}], fields=("line", "id", "file"))

    assert data == (b"line,__id,file,id,_id\r\n1,n1,notes/responses.jsonl,theirs,1\r\n2,n2,notes/responses.jsonl,,\r\n")


@pytest.mark.parametrize("values", [[], [{}], [{}, {}]])
def test_table_without_any_key_still_counts_its_rows(values: list[Any]) -> None:
    assert list(csv.reader(io.StringIO(write(CsvWriter, values).decode()))) == [["value"], *([""] for _ in values)]
    table = read_parquet(write(ParquetWriter, values))
    assert (table.num_rows, table.column_names) == (len(values), ["value"])


def test_lone_surrogates_do_not_break_a_table() -> None:
    values = [{"a\ud800": "b\udfff"}]

    assert write(CsvWriter, values).decode() == "a\ufffd\r\nb\ufffd\r\n"
    assert read_parquet(write(ParquetWriter, values)).to_pylist() == [{"a\ufffd": "b\ufffd"}]


@pytest.mark.parametrize(
    ("cells", "kind", "read"),
    [
        ([1, None, 2], "int64", [1, None, 2]),
        ([2**62], "int64", [2**62]),
        ([1, 2.5], "double", [1.0, 2.5]),
        ([2**62, 2.5], "string", [str(2**62), "2.5"]),
        ([10**30, 1], "string", ["1" + "0" * 30, "1"]),
        ([True, None], "bool", [True, None]),
        ([True, 1], "string", ["true", "1"]),
        (["a", None], "string", ["a", None]),
        (["a", 1], "string", ["a", "1"]),
        ([[1], {"b": "ä"}, "x"], "string", ["[1]", '{"b": "ä"}', "x"]),
        ([None], "string", [None]),
    ],
)
def test_parquet_column_has_the_narrowest_type_that_is_exact(cells: list[Any], kind: str, read: list[Any]) -> None:
    table = read_parquet(write(ParquetWriter, [{"a": cell} for cell in cells]))

    assert column_types(table) == {"a": kind}
    assert table.column("a").to_pylist() == read


def test_parquet_fields_are_typed_too() -> None:
    table = read_parquet(write(ParquetWriter, [{"a": 1}], fields=("line", "id", "seconds", "endpoint")))

    assert column_types(table) == {
        "line": "int64",
        "id": "string",
        "seconds": "double",
        "endpoint": "string",
        "a": "int64",
    }


def test_parquet_row_groups_bound_what_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_tables, "ROWS_PER_GROUP", 3)
    monkeypatch.setattr(merge_tables, "CHARS_PER_GROUP", 10)
    monkeypatch.setattr(merge_tables, "CELL_CHARS", 0)
    data = write(ParquetWriter, [{"a": text} for text in ["x", "y", "z", "0123456789", "1"]])

    parquet = importlib.import_module("pyarrow.parquet").ParquetFile(io.BytesIO(data))

    assert [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)] == [3, 1, 1]
    assert parquet.read().column("a").to_pylist() == ["x", "y", "z", "0123456789", "1"]


def test_row_groups_of_many_empty_cells_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_tables, "CHARS_PER_GROUP", 10 * merge_tables.CELL_CHARS)
    data = write(ParquetWriter, [{f"key{number}": number} for number in range(5)])

    parquet = importlib.import_module("pyarrow.parquet").ParquetFile(io.BytesIO(data))

    assert [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)] == [2, 2, 1]


def test_free_form_keys_end_the_merge_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_rows, "MAX_COLUMNS", 5)

    with pytest.raises(InputError, match="more than 5 different keys"):
        write(CsvWriter, [{str(number): 1} for number in range(6)])


def test_parquet_without_pyarrow_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(UsageError, match=wording("pip-install-obcd-parquet")):
        ParquetWriter(io.BytesIO())
