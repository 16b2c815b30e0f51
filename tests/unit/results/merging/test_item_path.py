"""One row for each item of a list inside the answers: `merge --rows PATH`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from obcd.cli.main import run
from obcd.core.schema.extract import NoJson
from obcd.errors import ExitCode, UsageError
from obcd.results.merging import item_path
from obcd.results.merging.column_kinds import ColumnKind, schema_kinds
from obcd.results.merging.item_path import ItemPath
from tests.golden.wording import wording
from tests.unit.results.conftest import Publish


def rows(path: str, value: Any) -> list[tuple[Any, dict[str, Any]]] | str:
    found = ItemPath.parse(path).rows(value)
    return found.reason if isinstance(found, NoJson) else [(row.item, dict(row.around)) for row in found]


def test_path_that_is_deeper_than_any_answer_is_refused() -> None:
    assert len(ItemPath.parse(".".join(["a"] * 200)).steps) == 200
    with pytest.raises(UsageError, match=wording("rows-has-more-than-200")):
        ItemPath.parse("a[0]" * 101)


@pytest.mark.parametrize("path", ["items", "$.items", ".items", "items[]", "items[*]", "$.items[*]"])
def test_a_path_may_be_written_as_jq_and_jsonpath_do(path: str) -> None:
    assert rows(path, {"items": [1, 2]}) == [(1, {}), (2, {})]


def test_the_keys_around_the_list_are_repeated() -> None:
    value = {"name": "Ann", "visits": [{"day": 1, "drugs": ["a", "b"]}, {"day": 2, "drugs": ["c"]}]}

    assert rows("visits", value)[0] == ({"day": 1, "drugs": ["a", "b"]}, {"name": "Ann"})
    assert rows("visits.drugs", value) == [
        ("a", {"name": "Ann", "visits.day": 1}),
        ("b", {"name": "Ann", "visits.day": 1}),
        ("c", {"name": "Ann", "visits.day": 2}),
    ]


@pytest.mark.parametrize(
    ("path", "value", "items"),
    [
        ("a.items", {"a": {"items": [1]}}, [1]),
        ("a.items", {"a.items": [1]}, [1]),  # a key with a point in it
        ("pages[1].items", {"pages": [{"items": [1]}, {"items": [2]}]}, [2]),
        ("items", [{"items": [1]}, {"items": [2]}], [1, 2]),  # the answer is a list itself
        ("items", {"items": []}, []),
        ("items", {"items": None}, []),
        ("a.items", {"a": [{"items": [1]}, {}]}, [1]),
        ("", [1, 2], [1, 2]),
        ("", {"a": 1}, [{"a": 1}]),
    ],
)
def test_items_are_found(path: str, value: Any, items: list[Any]) -> None:
    found = ItemPath.parse(path).rows(value)

    assert isinstance(found, list)
    assert [row.item for row in found] == items


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("items", {}),
        ("items", 5),
        ("items", {"items": {"a": 1}}),
        ("items", {"items": "text"}),
        ("a.items", {"a": {}}),
        ("pages[3].items", {"pages": []}),
    ],
)
def test_an_answer_without_such_a_list_gives_the_reason(path: str, value: Any) -> None:
    assert isinstance(ItemPath.parse(path).rows(value), NoJson)


@pytest.mark.parametrize("path", ["a..b", "a[x]", "[", "a]"])
def test_what_is_not_a_path_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        ItemPath.parse(path)


def test_rows_that_would_take_the_square_of_an_answer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_path, "MOST_REPEATED_BYTES", 1000)

    assert isinstance(rows("items", {"text": "x" * 100, "items": [0] * 11}), str)
    assert isinstance(rows("items", {"text": "x" * 50, "items": [0] * 11}), list)


# --- the command -----------------------------------------------------------------------------------------------------

TWO = {1: {"items": [{"a": 1}, {"a": 2}]}, 2: {"items": [{"b": "x"}]}}


def published(publish: Publish, answers: dict[int, Any]) -> str:
    return str(publish("notes", {line: json.dumps(answer) for line, answer in answers.items()}))


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_r13_rows_of_a_list_have_the_id_of_their_line_and_the_columns_of_all_lines(
    tmp_path: Path, publish: Publish
) -> None:
    folder, out = published(publish, TWO), tmp_path / "out.csv"

    assert run(["merge", folder, "-o", str(out), "--rows", "items"]) == ExitCode.DONE
    assert table(out) == [["id", "a", "b"], ["n1", "1", ""], ["n1", "2", ""], ["n2", "", "x"]]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_r13_documents_have_an_object_for_each_item(tmp_path: Path, publish: Publish, kind: str) -> None:
    folder, out = published(publish, TWO), tmp_path / f"out.{kind}"

    assert run(["merge", "--rows", "items", folder, "-o", str(out)]) == ExitCode.DONE
    text = out.read_text()
    found = json.loads(text) if kind == "json" else list(map(json.loads, text.splitlines()))
    assert found == [{"id": "n1", "a": 1}, {"id": "n1", "a": 2}, {"id": "n2", "b": "x"}]


def test_rows_with_other_fields_or_none(tmp_path: Path, publish: Publish) -> None:
    folder = published(publish, {1: {"id": "own", "items": ["x"]}})

    assert run(["merge", folder, "-o", str(tmp_path / "a.csv"), "--rows=items", "--with", "line,id"]) == ExitCode.DONE
    assert run(["merge", folder, "-o", str(tmp_path / "b.csv"), "--rows=items", "--with", ""]) == ExitCode.DONE
    assert table(tmp_path / "a.csv") == [["line", "_id", "id", "value"], ["1", "n1", "own", "x"]]
    assert table(tmp_path / "b.csv") == [["id", "value"], ["own", "x"]]


def test_an_answer_without_the_list_is_left_out_and_named(
    tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = published(publish, {**TWO, 3: {"else": 1}}), tmp_path / "out.csv"

    assert run(["merge", folder, "-o", str(out), "--rows", "items"]) == ExitCode.PARTIAL
    assert "line 3" in capsys.readouterr().err
    assert len(table(out)) == 4


@pytest.mark.parametrize("order", [["--rows", "DIR"], ["DIR", "--rows"]])
def test_rows_without_a_path_take_lists_apart(tmp_path: Path, publish: Publish, order: list[str]) -> None:
    folder, out = published(publish, {1: [{"n": 1}, {"n": 2}], 2: {"n": 3}}), tmp_path / "out.json"

    given = [folder if word == "DIR" else word for word in order]
    assert run(["merge", *given, "-o", str(out)]) == ExitCode.DONE
    assert json.loads(out.read_text()) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_r01_each_value_of_an_answer_becomes_rows(tmp_path: Path, publish: Publish) -> None:
    folder, out = str(publish("notes", {1: '[{"n": 1}]\n[{"n": 2}]'})), tmp_path / "out.json"

    assert run(["merge", folder, "--rows", "-o", str(out)]) == ExitCode.DONE
    assert json.loads(out.read_text()) == [{"n": 1}, {"n": 2}]


def test_a_path_that_no_answer_has_is_not_called_missing_json(
    tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(["merge", published(publish, TWO), "-o", str(tmp_path / "out.csv"), "--rows", "else"]) == ExitCode.PARTIAL
    )
    said = capsys.readouterr().err
    assert wording("no-answer-holds-a-list-there") in said
    assert wording("no-answer-holds-json-text-merges") not in said


@pytest.mark.parametrize("words", [["--rows", "items", "--text"], ["--rows", "a["], ["-o", ""]])
def test_rows_that_cannot_be_meant_are_a_usage_error(tmp_path: Path, publish: Publish, words: list[str]) -> None:
    assert run(["merge", published(publish, TWO), "-o", str(tmp_path / "out.csv"), *words]) == ExitCode.USAGE


def test_empty_lists_have_no_rows_and_are_no_fault(tmp_path: Path, publish: Publish) -> None:
    folder, out = published(publish, {1: {"items": []}}), tmp_path / "out.csv"

    assert run(["merge", folder, "-o", str(out), "--rows", "items"]) == ExitCode.DONE
    assert table(out) == [["id"]]


@pytest.mark.parametrize("text", ["a\0b", "a\x1ab"])
def test_no_cell_ends_the_file_for_a_reader(tmp_path: Path, publish: Publish, text: str) -> None:
    folder, out = published(publish, {1: {"a": text, text: 1}}), tmp_path / "out.csv"

    assert run(["merge", folder, "-o", str(out)]) == ExitCode.DONE
    assert table(out) == [["a", "a\ufffdb"], ["a\ufffdb", "1"]]


def test_names_that_become_equal_are_told_apart(tmp_path: Path, publish: Publish) -> None:
    folder, out = published(publish, {1: {"\0": 1, "\x1a": 2, "\ufffd_": 3}}), tmp_path / "out.csv"

    assert run(["merge", folder, "-o", str(out)]) == ExitCode.DONE
    assert table(out) == [["\ufffd", "\ufffd_", "\ufffd__"], ["1", "2", "3"]]


def test_cells_that_excel_cuts_are_counted(
    tmp_path: Path, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = published(publish, {1: {"a": "x" * 32_768, "b": "x" * 32_767}})

    assert run(["merge", folder, "-o", str(tmp_path / "a.csv"), "--spreadsheet"]) == ExitCode.DONE
    assert wording("1-cell-longer-than-32767") in capsys.readouterr().err


def test_columns_of_the_items_are_typed_by_the_schema() -> None:
    item = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = {
        "$defs": {"item": item},
        "type": "object",
        "properties": {"data": {"type": "array", "items": {"$ref": "#/$defs/item"}}},
    }

    assert schema_kinds(schema, ["data"]) == {"a": ColumnKind.INT}
    assert schema_kinds({"type": "array", "items": item}, []) == {"a": ColumnKind.INT}
    assert schema_kinds(schema, ["else"]) == {}
