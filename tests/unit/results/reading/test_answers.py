from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from obcd.core.answer.openai.openai_response import openai_response_line
from obcd.core.answer.outcomes import NOT_PARSED
from obcd.core.request.records import Kind
from obcd.results.reading import answers
from obcd.results.reading.answers import Answer, AnswerTally, each_answer, read_answers, read_failures, read_tally
from obcd.results.reading.sources import PromptFile, PublishedFolder
from obcd.text_files import LeftOut
from tests.golden.wording import wording
from tests.unit.core.answer.made import response_of
from tests.unit.results.conftest import Publish


def test_line_of_a_published_folder_knows_its_place_and_fields(publish: Publish) -> None:
    [answer] = read_answers(PublishedFolder(publish("notes", {1: "yes"}), "notes"))

    assert isinstance(answer, Answer)
    assert (answer.place, answer.file) == ("notes/responses.jsonl line 1", "notes/responses.jsonl")
    assert (answer.line, answer.request_id, answer.record["response"]) == (1, "n1", "yes")


def test_place_tells_the_input_line_where_it_differs(publish: Publish) -> None:
    [answer] = read_answers(PublishedFolder(publish("notes", {7: "yes"}), "notes"))

    assert isinstance(answer, Answer)
    assert answer.place == "notes/responses.jsonl line 1 (input line 7)"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b'{"line": 2, "resp', wording("the-line-is-not-json")),
        (b"[]", wording("the-line-is-not-a-json")),
        (b'{"response": "\xff"}', wording("the-line-is-not-utf-8")),
        ('{"response": "x"}'.encode("utf-16"), wording("the-line-is-not-utf-8")),
        (b"[" * 100_000, wording("the-line-is-not-json")),
        (b'{"response": ' + b"9" * 5000 + b"}", wording("the-line-is-not-json")),
        (b"{" + b" " * 2000 + b"}", wording("the-line-is-longer-than-0")),
    ],
)
def test_damaged_line_is_named_and_the_others_are_read(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, damage: bytes, reason: str
) -> None:
    if "longer" in reason:
        monkeypatch.setattr(answers, "MAX_RECORD_BYTES", 1000)
    folder = publish("notes", {1: "yes", 2: "no"})
    first, second = (folder / "responses.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "responses.jsonl").write_bytes(first + damage + b"\n\n" + second)

    items = list(read_answers(PublishedFolder(folder, "notes")))

    assert items[1] == LeftOut("notes/responses.jsonl line 2", reason)
    assert [item.place for item in items[2:]] == ["notes/responses.jsonl line 4 (input line 2)"]


def test_failures_are_told_by_class_and_never_by_message(publish: Publish) -> None:
    folder = publish("notes", {1: "yes"}, failed={2: "timeout", 5: "no such \x1b class"})

    assert [(item.place, item.reason) for item in read_failures(PublishedFolder(folder, "notes"))] == [
        ("notes/errors.jsonl line 1 (input line 2)", wording("the-request-failed-timeout-after-3")),
        ("notes/errors.jsonl line 2 (input line 5)", wording("the-request-failed-after-3-attempts")),
    ]


def test_tally_comes_from_the_manifest_or_else_from_the_lines(publish: Publish) -> None:
    folder = publish("notes", {1: "yes", 3: "yes"}, failed={2: "timeout"})
    source = PublishedFolder(folder, "notes")

    assert read_tally(source) == AnswerTally(3, 1)
    for damage in ("", "[]", '{"counts": {"requests": "3", "failures": null}}'):
        (folder / "manifest.json").write_text(damage)
        assert read_tally(source) == AnswerTally(3, 1)


def test_per_prompt_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "1-1.json").write_bytes(b'\xef\xbb\xbf{"prompt": "q", "response": "a"}')

    [answer] = read_answers(PromptFile(tmp_path / "1-1.json", "1-1.json"))

    assert isinstance(answer, Answer)
    assert (answer.place, answer.line, answer.record) == ("1-1.json", None, {"prompt": "q", "response": "a"})


def test_per_prompt_file_that_is_gone_or_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "2.json").write_text("{")

    assert list(read_answers(PromptFile(tmp_path / "1.json", "1.json"))) == [
        LeftOut("1.json", wording("the-file-cannot-be-read-no"))
    ]
    assert list(read_answers(PromptFile(tmp_path / "2.json", "2.json"))) == [
        LeftOut("2.json", wording("the-file-is-not-json"))
    ]


def line_of(record: dict[str, Any]) -> Answer:
    return Answer(place="notes/responses.jsonl line 1", file="notes/responses.jsonl", line=1, record=record)


def test_several_answers_are_each_one_with_what_is_the_lines() -> None:
    several = [{"response": "a", "seed": 40, "seconds": 1.0}, {"response": "b", "seed": 41, "thinking": "…"}]
    whole = {"id": "r", "line": 1, "prompt": "p", "extra": {"w": 1}, "response": "a", "seconds": 3.0, "parsed": 5}

    first, second = each_answer(line_of({**whole, "responses": several}))

    kept = {"id": "r", "line": 1, "prompt": "p", "extra": {"w": 1}}
    assert (first.index, first.place) == (0, "notes/responses.jsonl line 1, answer 1")
    assert first.record == {**several[0], **kept}
    assert (second.index, second.line, second.place) == (1, 1, "notes/responses.jsonl line 1, answer 2")
    assert second.record == {**several[1], **kept}


@pytest.mark.parametrize("several", [None, [], 5, [{"response": "a"}, 5]])
def test_line_without_several_answers_is_its_one_answer(several: Any) -> None:
    answer = line_of({"response": "a", "responses": several})

    assert each_answer(answer) == [answer]


def test_several_choices_of_an_openai_line_are_each_an_answer(publish: Publish) -> None:
    said = {"done_reason": "stop", "endpoint": "e", "attempts": 1, "finished_at": "2026-11-28T10:00:00Z"}
    calls = [{"function": {"index": 0, "name": "weather", "arguments": {"city": "Bonn"}}}]
    several = [
        {"response": '{"a": 1}', "parsed": {"a": 1}, "seed": 40, **said},
        {"response": "", "tool_calls": calls, "seed": 41, **said},
    ]
    line = {"id": "r", "line": 1, "prompt": "p", "model": "m", **several[0], "extra": {"w": 1}, "responses": several}
    folder = publish("notes", {})
    (folder / "responses.jsonl").write_text(
        json.dumps(openai_response_line(response_of(line), line, "job1", Kind.CHAT)) + "\n"
    )
    (folder / "input.jsonl").write_text('{"prompt": "p"}\n')

    [answer] = read_answers(PublishedFolder(folder, "notes"))
    assert isinstance(answer, Answer)
    first, second = each_answer(answer)

    assert (first.parsed, first.record["seed"], first.index) == ({"a": 1}, 40, 0)
    assert second.parsed is NOT_PARSED
    call: Any = second.tool_calls[0]
    assert (call["function"], second.record["seed"]) == (calls[0]["function"], 41)
    assert (second.record["id"], second.record["model"], second.record["extra"]) == ("r", "m", {"w": 1})
    assert (second.record["prompt"], second.index) == ("p", 1)
