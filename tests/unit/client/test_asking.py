"""Rows in, answers out: in order, missing where there is none, and the failures named."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from pydantic import BaseModel

import obcd
from obcd.client.jobs import Job
from obcd.errors import InputError
from tests.unit.client.conftest import StandInDaemon, echo

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}, "name": {"type": "string"}}, "required": ["age"]}


class Visit(BaseModel):
    age: int


@pytest.fixture(autouse=True)
def working(daemon: StandInDaemon, monkeypatch: pytest.MonkeyPatch) -> StandInDaemon:
    """Let the daemon work whenever somebody waits; its replies are in `daemon.reply`."""

    def work(_: float) -> None:
        daemon.work(daemon.reply)

    monkeypatch.setattr("obcd.client.jobs.time.sleep", work)
    return daemon


def test_answers_come_in_the_order_of_the_rows_and_a_second_time_without_being_sent(daemon: StandInDaemon) -> None:
    rows = [{"note": word} for word in ("c", "a", "b")]

    assert obcd.ask(rows, "{note}!") == ["<c!>", "<a!>", "<b!>"]
    assert obcd.ask(iter(rows), "{note}!") == ["<c!>", "<a!>", "<b!>"]
    assert daemon.sent == ["c!", "a!", "b!"]


def test_no_rows_have_no_answers_and_nothing_is_submitted(daemon: StandInDaemon) -> None:
    assert obcd.ask([], "{note}!") == []
    assert obcd.ask((), daemon=False) == []
    assert daemon.sent == []
    with pytest.raises(InputError):
        obcd.ask("", "{note}!")


def test_row_without_an_answer_is_missing_and_the_warning_says_how_to_find_it(daemon: StandInDaemon) -> None:
    daemon.reply = lambda line: None if line["prompt"] == "b" else echo(line)

    with pytest.warns(obcd.ObcdWarning, match=r"1 of 3 rows.*obcd\.attach\('letters'\)\.failures\(\)"):
        assert obcd.ask(["a", "b", "c"], key="letters") == ["<a>", None, "<c>"]

    (failure,) = obcd.attach("letters").failures()
    assert (failure.row, failure.kind, failure.message) == (1, "server_error", "it broke")


def test_warnings_name_the_line_of_the_user() -> None:
    with pytest.warns(obcd.ObcdWarning) as warned:
        obcd.ask([{"note": "a"}, {"note": None}], "{note}!")

    assert [item.filename for item in warned] == [__file__, __file__]


def test_damaged_outbox_shifts_no_answer(daemon: StandInDaemon) -> None:
    obcd.ask(["a", "b", "c"], key="letters")
    file = daemon.layout.outbox / "letters" / "responses.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"{damaged\n" + lines[2])

    with pytest.warns(obcd.ObcdWarning, match="1 of 3 rows"):
        assert obcd.ask(["a", "b", "c"], key="letters") == ["<a>", None, "<c>"]
    assert [item.kind for item in obcd.attach("letters").failures()] == ["damaged"]


def test_schema_gives_values_and_a_class_gives_its_objects(daemon: StandInDaemon) -> None:
    daemon.reply = lambda line: {"age": len(line["prompt"])}

    assert obcd.ask(["a", "bb"], schema=SCHEMA) == [{"age": 1}, {"age": 2}]
    assert obcd.ask(["a", "bb"], schema=Visit) == [Visit(age=1), Visit(age=2)]


def test_answer_that_its_class_refuses_is_a_failure(daemon: StandInDaemon) -> None:
    daemon.reply = lambda line: {"age": 1 if line["prompt"] == "a" else "old"}

    with pytest.warns(obcd.ObcdWarning, match="1 of 2 rows"):
        assert obcd.ask(["a", "bb"], schema=Visit, key="refused") == [Visit(age=1), None]

    (failure,) = obcd.attach("refused", schema=Visit).failures()
    assert (failure.row, failure.kind) == (1, "invalid_answer")
    assert "age" in failure.message


def test_interrupted_wait_leaves_the_job_and_the_next_call_takes_it(
    daemon: StandInDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("obcd.client.jobs.time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            obcd.ask(["a"])

    assert obcd.ask(["a"]) == ["<a>"]
    assert daemon.sent == ["a"]


def test_no_warning_where_nothing_failed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        obcd.ask(["a"])


def test_job_shows_its_state(daemon: StandInDaemon) -> None:
    job = obcd.submit(["a", "b"], key="two")
    assert repr(job) == "<obcd job 'two': WAITING>"
    daemon.work()
    assert repr(job) == "<obcd job 'two': PUBLISHED, 2/2>"
    assert isinstance(job, Job)
