from __future__ import annotations

import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from obcd.core.schema.extract import Found, NoJson
from obcd.errors import InputError, UsageError
from obcd.results.merging.merge import (
    Format,
    JsonlWriter,
    JsonWriter,
    Merged,
    format_of,
    merge_answers,
    text_of,
    value_of,
    values_of,
)
from obcd.results.merging.merge_tables import CsvWriter
from obcd.results.reading.answers import Answer
from obcd.text_files import LeftOut
from tests.golden.wording import wording
from tests.unit.results.conftest import Publish

ANSWER = Answer(place="1-1.json", file="1-1.json", line=None, record={})


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1],
        [{}],
        [[]],
        [{"a": [1, {"b": "line\nbreak\u2028ä\ud800"}], "c": {}}, [], [[1], []], "text", None, True, 1.5, {"z": 10**50}],
    ],
)
def test_json_has_the_bytes_of_one_dump(values: list[Any]) -> None:
    stream = io.BytesIO()
    writer = JsonWriter(stream)

    for value in values:
        writer.add(value, ANSWER)
    writer.finish()

    assert stream.getvalue().decode("ascii") == json.dumps(values, indent=2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.json", Format.JSON),
        ("x.JSONL", Format.JSONL),
        ("x.ndjson", Format.JSONL),
        ("a.b/x.csv", Format.CSV),
        ("x.parquet", Format.PARQUET),
        ("x.sqlite", Format.SQLITE),
        ("x.db", Format.SQLITE),
        ("x", Format.JSON),
        ("-", Format.JSON),
    ],
)
def test_suffix_chooses_the_format(name: str, kind: Format) -> None:
    assert format_of(name) is kind


def test_suffix_of_no_format_is_refused() -> None:
    with pytest.raises(UsageError, match=wording("no-format-ends-in-xlsx-name")):
        format_of("x.xlsx")


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        ({"response": "so: [1]"}, Found([1])),
        ({"response": "so: [1]", "parsed": {"a": 1}}, Found({"a": 1})),
        ({"response": "null", "parsed": None}, Found(None)),
        ({"response": {"a": 1}}, Found({"a": 1})),
        ({"response": None}, NoJson(wording("its-response-is-not-text"))),
        ({"response": 7}, NoJson(wording("its-response-is-not-text"))),
        ({"embeddings": [[1.0]]}, NoJson(wording("it-holds-vectors-obcd-vectors-writes"))),
        ({"response": "", "tool_calls": [{}]}, NoJson(wording("it-calls-tools-text-with-tool"))),
        ({"response": "[1]", "tool_calls": [{}]}, Found([1])),
        ({"response": '{"n": 1}\n{"n": 2}'}, NoJson(wording("it-holds-2-json-values"))),
        ({"response": '{"n": 1}\n{"n": 2}', "parsed": {"n": 2}}, Found({"n": 2})),
        ({"response": '{"n": 1}\n{"n": 2'}, NoJson(wording("its-json-is-cut-short"))),
        ({"response": "{'n': 1}"}, Found({"n": 1})),
        ({"response": 'As in [1]: <think>{"n": 2}</think> {"n": 1}'}, Found({"n": 1})),
        ({}, NoJson(wording("it-has-no-response"))),
    ],
)
def test_value_of_a_record(record: dict[str, Any], outcome: Found | NoJson) -> None:
    assert value_of(Answer(place="1", file="1", line=None, record=record)) == outcome


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        ({"response": "so: [1]", "parsed": [1]}, Found({"response": "so: [1]"})),
        ({"response": ""}, Found({"response": ""})),
        ({"response": {"a": 1}}, Found({"response": {"a": 1}})),
        ({"response": None}, NoJson(wording("its-response-is-not-text"))),
        ({}, NoJson(wording("it-has-no-response"))),
        ({"embeddings": [[1.0]]}, NoJson(wording("it-holds-vectors-obcd-vectors-writes"))),
    ],
)
def test_text_of_a_record(record: dict[str, Any], outcome: Found | NoJson) -> None:
    assert text_of(Answer(place="1", file="1", line=None, record=record)) == outcome


def merge(*folders: Path, ignore: Path | None = None, is_text: bool = False) -> tuple[list[Any], list[str], Merged]:
    stream = io.BytesIO()
    told: list[LeftOut] = []
    done = merge_answers(list(folders), JsonlWriter(stream), ignore=ignore, report=told.append, is_text=is_text)
    values = [json.loads(line) for line in stream.getvalue().splitlines()]
    return values, [f"{item.place}: {item.reason}" for item in told], done


def test_values_come_in_the_order_of_the_input_and_the_rest_is_told(tmp_path: Path, publish: Publish) -> None:
    publish("zeta", {1: '{"z": 1}'})
    publish("alpha", {1: "[1]", 2: "secret words", 12: "[12]"}, failed={5: "timeout"})
    for name, response in [("100-10.json", "[10]"), ("100-9.json", "[9]"), ("99-1.json", "secret")]:
        (tmp_path / name).write_text(json.dumps({"prompt": "secret", "response": response}))
    (tmp_path / "101-1.json").write_text('{"prompt": "secret"}')

    values, told, done = merge(tmp_path)

    assert values == [[9], [10], [1], [12], {"z": 1}]
    assert told == [
        wording("99-1-json-there-is-no"),
        wording("101-1-json-it-has-no"),
        wording("alpha-responses-jsonl-line-2-there"),
        wording("alpha-errors-jsonl-line-1-input"),
    ]
    assert done == Merged(values=5, left_out=4, lines=5, without_json=3)


def test_r01_answer_with_two_values_is_left_out_and_named(publish: Publish) -> None:
    folder = publish("alpha", {1: '[{"n": 1}]\n[{"n": 2}]', 2: "[3]", 3: "[4,]"})

    values, told, done = merge(folder)

    assert values == [[3], [4]]
    assert told == [wording("alpha-line-1-holds-2-json-values")]
    assert (done.left_out, done.repaired) == (1, 1)


def test_r01_values_of_an_answer_are_all_there_for_rows() -> None:
    answer = Answer(place="1", file="1", line=None, record={"response": '[{"n": 1}]\n[{"n": 2}]\n[{"n": 1}]'})

    assert values_of(answer) == [Found([{"n": 1}]), Found([{"n": 2}])]


def test_several_folders_come_in_the_order_given(publish: Publish) -> None:
    assert merge(publish("b", {1: "[1]"}), publish("a", {1: "[2]"}))[0] == [[1], [2]]


def test_nothing_to_merge_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "merged.json").write_text("[]")

    with pytest.raises(InputError, match=wording("nothing-to-merge")):
        merge(tmp_path, ignore=tmp_path / "merged.json")


def test_job_whose_lines_all_failed_gives_an_empty_document(publish: Publish) -> None:
    assert merge(publish("notes", {}, failed={1: "timeout"}))[2] == Merged(values=0, left_out=1)


def test_each_of_several_answers_counts_and_comes_in_its_place(publish: Publish) -> None:
    folder = publish("jokes", {1: "[1]", 2: "[0]"})
    lines = [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]
    lines[0]["responses"] = [{"response": text} for text in ("[1]", "none", "[3]")]
    (folder / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    values, told, done = merge(folder)

    assert values == [[1], [3], [0]]
    assert told == [wording("jokes-responses-jsonl-line-1-answer")]
    assert done == Merged(values=3, left_out=1, lines=2, without_json=1)


def test_text_is_merged_as_it_is_and_no_schema_adds_columns(publish: Publish) -> None:
    folder = publish("notes", {1: '```json\n{"a": 1}\n```', 2: "words"}, failed={3: "timeout"})
    manifest = json.loads((folder / "manifest.json").read_text())
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "settings": {"format": schema}}))
    stream = io.BytesIO()

    values, _, done = merge(folder, is_text=True)
    with closing(CsvWriter(stream)) as writer:
        merge_answers([folder], writer, ignore=None, report=lambda _: None, is_text=True)

    assert values == [{"response": '```json\n{"a": 1}\n```'}, {"response": "words"}]
    assert (done.values, done.left_out) == (2, 1)
    assert stream.getvalue().startswith(b"response\r\n")
