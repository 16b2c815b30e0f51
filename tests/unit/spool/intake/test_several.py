"""Lines that want several answers: as many requests, one line of the outputs."""

from __future__ import annotations

import json

import pytest

from obcd.core.answer.record_codec import to_ascii
from obcd.core.request.records import JobSettings
from obcd.results.verify import Verdict, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.intake import reading
from obcd.spool.intake.recovery import load_job
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import read_places, read_request_line
from obcd.spool.outbox.publication import publish
from tests.golden.wording import wording
from tests.unit.spool.spools import accept_bytes, answer, failure, lines_of, record

MIXED = (
    b'{"prompt": "one"}\nno prompt\n\n{"id": "b", "prompt": "two", "n": 3}\n{"embed": ["x", "y"]}\n{"prompt": "z"}\n'
)
VECTORS = [[1.0, 0.0], [0.6, 0.8]]


def embedded(ordinal: int) -> bytes:
    document = json.loads(answer(ordinal, line=5))
    del document["response"], document["done_reason"]
    return to_ascii({**document, "embeddings": VECTORS})


def test_line_that_wants_three_answers_becomes_three_requests_one_after_another(layout: Layout) -> None:
    header = accept_bytes(layout, MIXED)

    places = list(read_places(layout.jobs / "job1"))
    assert [(place.line, place.answer) for place in places] == [(1, 0), (2, 0), (4, 0), (4, 1), (4, 2), (5, 0), (6, 0)]
    assert (header.requests, header.bad_lines, header.lines) == (7, 1, 6)
    lines = {read_request_line(layout.jobs / "job1", ordinal)[1] for ordinal in (2, 3, 4)}
    assert lines == {b'{"id": "b", "prompt": "two", "n": 3}'}


def test_profile_says_how_many_where_the_line_does_not(layout: Layout) -> None:
    settings = JobSettings(model="llama3.2", n=2)

    accept_bytes(layout, MIXED, settings=settings)

    places = read_places(layout.jobs / "job1")
    assert [(place.line, place.answer) for place in places] == [
        *((1, 0), (1, 1), (2, 0)),
        *((4, 0), (4, 1), (4, 2), (5, 0), (6, 0), (6, 1)),
    ]


def test_file_that_wants_too_many_answers_loses_the_lines_that_want_several(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_REQUESTS", 3)

    header = accept_bytes(
        layout, b'{"prompt": "a", "n": 2}\n{"prompt": "b", "n": 2}\n{"prompt": "c"}\n{"prompt": "d"}\n'
    )

    assert (header.requests, header.bad_lines) == (5, 1)
    (told,) = [json.loads(raw) for _, raw in ledger.read_valid(layout.jobs / "job1" / ledger.NAME)]
    assert (told["ordinal"], told["line"]) == (2, 2)
    assert told["message"] == wording("more-than-3-answers-are-wanted")


def test_all_answers_of_a_line_stand_in_one_response_and_the_job_verifies(layout: Layout) -> None:
    # given answers that came in no order, from two endpoints
    accept_bytes(layout, MIXED)
    three = [
        answer(4, "C", line=4, seed=9, endpoint="gpu1"),
        answer(2, "A", line=4, seed=7),
        answer(3, " ", line=4, seed=8, done_reason="length"),
    ]
    record(layout, "job1", [three[0], answer(6, line=6), three[1], embedded(5), three[2], answer(0)])

    # when
    folder = publish(layout, "job1", {})

    # then
    found = lines_of(folder / "responses.jsonl")
    assert [item["line"] for item in found] == [1, 4, 5, 6]
    several = found[1]
    assert (several["id"], several["response"], several["done_reason"]) == ("b", "A", "length")
    assert [(item["response"], item["seed"], item["endpoint"]) for item in several["responses"]] == [
        ("A", 7, "gpu0"),
        (" ", 8, "gpu0"),
        ("C", 9, "gpu1"),
    ]
    assert {"ordinal", "outcome", "finished", "line"}.isdisjoint(several["responses"][0])
    assert all(item["finished_at"] and item["eval_tokens"] == 7 for item in several["responses"])
    assert (several["eval_tokens"], several["seconds"]) == (21, 1.5)
    assert found[2]["prompt"] == ["x", "y"]
    assert found[2]["embeddings"] == VECTORS
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["counts"] == {
        "lines": 6,
        "requests": 5,
        "responses": 4,
        "failures": 1,
        "cut_short": 1,
        "empty": 1,
        "repairs": 0,
        "cached": 0,
        "same": 0,
    }
    assert manifest["tokens"]["eval"] == 6 * 7
    assert manifest["endpoints"]["gpu1"]["responses"] == 1
    assert verify("notes", folder).verdict is Verdict.COMPLETE


def test_line_with_one_failed_answer_fails_keeps_the_others_and_is_retried_once(layout: Layout) -> None:
    accept_bytes(layout, MIXED)
    record(layout, "job1", [answer(0), answer(2, "A", line=4, seed=7), failure(3, "boom", line=4)])
    record(layout, "job1", [answer(4, "C", line=4, seed=9), embedded(5), answer(6, line=6)])

    folder = publish(layout, "job1", {})

    bad, error = lines_of(folder / "errors.jsonl")
    assert (bad["line"], error["line"], error["id"], error["class"]) == (2, 4, "b", "server_error")
    assert error["message"] == wording("1-of-3-answers-failed-the-2")
    assert [(item["response"], item["seed"]) for item in error["responses"]] == [("A", 7), ("C", 9)]
    assert (folder / "retry.jsonl").read_bytes() == b'no prompt\n{"id": "b", "prompt": "two", "n": 3}\n'
    assert [item["line"] for item in lines_of(folder / "responses.jsonl")] == [1, 5, 6]
    assert verify("notes", folder).verdict is Verdict.COMPLETE


def test_recovery_knows_which_of_a_lines_answers_are_there(layout: Layout) -> None:
    accept_bytes(layout, MIXED)
    record(layout, "job1", [answer(3, "B", line=4)])

    loaded = load_job(layout, "job1")

    assert list(loaded.replay.done) == [0, 1, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("change", [{"n": 2}, {"responses": 5}, {"responses": [5]}, {"responses": [{"response": 5}]}])
def test_verify_sees_an_answer_that_is_not_there(layout: Layout, change: dict[str, object]) -> None:
    accept_bytes(layout, b'{"prompt": "two", "n": 3}\n')
    record(layout, "job1", [answer(number, line=1) for number in range(3)])
    folder = publish(layout, "job1", {})
    (document,) = lines_of(folder / "responses.jsonl")
    changed = {**document, "responses": document["responses"][:2]} if "n" in change else {**document, **change}
    (folder / "responses.jsonl").write_bytes(to_ascii(changed) + b"\n")

    problems = verify("notes", folder).problems
    assert any(problem.startswith("responses.jsonl line 1: ") for problem in problems), problems
