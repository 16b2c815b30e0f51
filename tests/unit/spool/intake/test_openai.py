"""A published job of OpenAI Batch lines: one shape in its outputs, whatever stands among the lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.results.reading.answers import Answer, read_answers, read_failures
from obcd.results.reading.seed_files import write_response_files
from obcd.results.reading.sources import PublishedFolder
from obcd.results.verify import Verdict, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import ControlVerb
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox.publication import publish
from tests.golden.wording import wording
from tests.openai_types import check_batch
from tests.unit.spool.spools import accept_bytes, answer, failure, lines_of, record

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def asked(custom_id: Any, body: Any = HELLO, url: str = "/v1/chat/completions") -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"


#: A batch with all that may stand in one: blank and broken lines, a line of ours, an id that comes again.
MIXED = b"".join(
    (
        b"broken\n",
        asked("a"),
        b"\n",
        b'{"id": 9, "prompt": "ours"}\n',
        b'{"prompt": "without an id"}\n',
        asked("a"),
        asked(70),
        asked("v", {"input": "one"}, "/v1/embeddings"),
    )
)


@pytest.fixture
def folder(layout: Layout) -> Path:
    accept_bytes(layout, MIXED)
    document = json.loads(answer(6, line=8, embeddings=[[1.0, 0.0]], eval_tokens=0))
    del document["response"], document["done_reason"]
    record(layout, "job1", [answer(1, "Hi."), answer(2, line=4), failure(3, line=5), json.dumps(document).encode()])
    return publish(layout, "job1", {})


def test_every_line_of_a_batch_is_told_in_openais_shape(folder: Path) -> None:
    responses, errors = lines_of(folder / "responses.jsonl"), lines_of(folder / "errors.jsonl")

    assert [(item["custom_id"], item["id"]) for item in responses] == [
        ("a", "batch_req_job1_2"),
        ("9", "batch_req_job1_4"),
        ("v", "batch_req_job1_8"),
    ]
    assert [item["custom_id"] for item in errors] == ["line-1", "line-5", "a", "70"]
    message = errors[2]["response"]["body"]["error"]["message"]
    assert message == wording("its-custom-id-stood-in-an-2")
    lines = MIXED.splitlines(keepends=True)
    assert (folder / "retry.jsonl").read_bytes() == b"".join(lines[number] for number in (0, 4, 5, 6))


def test_manifest_holds_the_batch_object(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())

    batch = check_batch(manifest["batch"])
    assert (batch.id, batch.status, batch.endpoint) == ("batch_job1", "completed", "/v1/chat/completions")
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (7, 3, 4)
    assert (batch.output_file_id, batch.error_file_id) == ("responses.jsonl", "errors.jsonl")


def test_cancelled_job_is_a_cancelled_batch(layout: Layout) -> None:
    accept_bytes(layout, asked("a") + asked("b"))
    record(layout, "job1", [answer(0)])
    order = {"uid": 0, "value": 0, "by_daemon": True}
    (layout.jobs / "job1" / ControlVerb.CANCEL).write_text(json.dumps(order), "utf-8")

    folder = publish(layout, "job1", {})

    batch = check_batch(json.loads((folder / "manifest.json").read_bytes())["batch"])
    assert (batch.status, batch.completed_at) == ("cancelled", None)
    assert batch.cancelled_at is not None
    (error,) = lines_of(folder / "errors.jsonl")
    assert (error["response"], error["error"]["code"]) == (None, "batch_cancelled")


def test_file_of_ours_stays_ours_with_a_line_of_openais_in_it(layout: Layout) -> None:
    accept_bytes(
        layout, b'{"prompt": "one"}\n' + asked("a") + asked("a") + b'{"id": 5, "custom_id": "b", "prompt": ""}'
    )
    record(layout, "job1", [answer(0), answer(1), answer(2)])

    folder = publish(layout, "job1", {})

    assert [(item["id"], item["prompt"]) for item in lines_of(folder / "responses.jsonl")] == [
        (1, "one"), ("a", "Hello"), ("a", "Hello"),
    ]  # fmt: skip
    assert [item["id"] for item in lines_of(folder / "errors.jsonl")] == [5]
    assert "batch" not in json.loads((folder / "manifest.json").read_bytes())
    assert verify("notes", folder).verdict is Verdict.COMPLETE


def test_bad_line_of_openais_in_a_file_of_ours_keeps_its_custom_id(layout: Layout) -> None:
    accept_bytes(layout, b'{"prompt": "one"}\n' + asked("bad", {"messages": []}))
    record(layout, "job1", [answer(0)])

    (error,) = lines_of(publish(layout, "job1", {}) / "errors.jsonl")

    assert (error["id"], error["line"]) == ("bad", 2)


def test_batch_verifies(folder: Path) -> None:
    found = verify("notes", folder)

    assert (found.problems, found.verdict) == ((), Verdict.COMPLETE)
    assert (found.requests, found.responses, found.failures) == (7, 3, 4)


@pytest.mark.parametrize(
    ("change", "name", "problem"),
    [
        (lambda item: item.update(custom_id="b"), "responses.jsonl", wording("responses-jsonl-line-1-its-id")),
        (lambda item: item.update(id="batch_req"), "responses.jsonl", wording("responses-jsonl-line-1-it-does")),
        (lambda item: item["response"].update(body={}), "responses.jsonl", wording("responses-jsonl-line-1-there-is")),
        (
            lambda item: item["response"]["body"]["choices"].clear(),
            "responses.jsonl",
            wording("responses-jsonl-line-1-there-is-2"),
        ),
        (
            lambda item: item["response"]["body"]["usage"].update(completion_tokens=8),
            "responses.jsonl",
            "manifest.json: tokens.eval is ",
        ),
        (lambda item: item.update(custom_id="b"), "errors.jsonl", wording("errors-jsonl-line-1-its-id")),
        (lambda item: item["response"].update(body={}), "errors.jsonl", wording("errors-jsonl-line-1-class-message")),
    ],
)
def test_batch_that_was_changed_does_not_verify(
    folder: Path, change: Callable[[Any], None], name: str, problem: str
) -> None:
    first, *others = lines_of(folder / name)
    change(first)
    path = folder / name
    path.chmod(0o600)
    path.write_bytes(b"".join(json.dumps(item).encode() + b"\n" for item in [first, *others]))

    found = verify("notes", folder)

    assert found.verdict is Verdict.WRONG
    assert any(sentence.startswith(problem) for sentence in found.problems), found.problems


def test_reports_read_a_batch_with_its_prompts(folder: Path, tmp_path: Path) -> None:
    source = PublishedFolder(folder, "notes")

    answers = [item for item in read_answers(source) if isinstance(item, Answer)]
    assert [(item.request_id, item.line, item.record["prompt"]) for item in answers] == [
        ("a", 2, "Hello"),
        ("9", 4, "ours"),
        ("v", 8, "one"),
    ]
    assert answers[0].record["response"] == "Hi."
    assert answers[2].record["embeddings"] == [[1.0, 0.0]]
    left = list(read_failures(source))
    assert left[1].reason == wording("the-request-failed-server-error-after")

    assert write_response_files(folder, tmp_path) == 3
    written = [json.loads(path.read_bytes()) for path in sorted(tmp_path.glob("*-2.json"))]
    assert written == [{"prompt": "Hello", "response": "Hi."}]


def test_answers_of_a_batch_are_read_without_the_input_too(folder: Path) -> None:
    (folder / "input.jsonl").unlink()

    answers = [item for item in read_answers(PublishedFolder(folder, "notes")) if isinstance(item, Answer)]

    assert ["prompt" in item.record for item in answers] == [False, False, False]


def test_header_without_the_key_is_one_of_a_file_of_ours(layout: Layout) -> None:
    document = accept_bytes(layout, asked("a")).to_json()
    assert document.pop("asks") == "/v1/chat/completions"

    assert JobHeader.from_json(document).asks == ""
