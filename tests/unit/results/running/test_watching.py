"""A running job that is watched: each answer once, by its ledger or by its preview, to the end in the outbox."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.coordinator.jobs.running_job import idle_view
from obcd.coordinator.view import JobState, View, WaitingView
from obcd.errors import InputError
from obcd.results.reading.answers import Answer
from obcd.results.running import watching
from obcd.results.running.finding import NamedJob, Stage, find_job
from obcd.results.running.job_report import describe_job
from obcd.results.running.watching import JobWatch, PreviewWatch, watch
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import preview
from obcd.spool.outbox.status_folders import StatusFolders
from tests.golden.wording import wording
from tests.unit.spool.spools import (
    THREE,
    accept_bytes,
    accepted,
    answer,
    drop_of,
    failure,
    finish,
    make_layout,
    order_of,
    put,
    put_marker,
    record,
)

OPENAI = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": \
[{"role": "user", "content": "one"}]}}\n'


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path / "root")


@pytest.fixture
def header(layout: Layout) -> JobHeader:
    return accept_bytes(layout, THREE)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this user read no ledger, and look into the outbox each time."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(watching, "LedgerWatch", refuse)
    monkeypatch.setattr(watching, "PUBLISHED_SECONDS", 0.0)
    monkeypatch.setattr("obcd.results.running.job_report.recorded_failures", refuse)


class Shown:
    """The progress folder of a job, and the clerk that shows its results."""

    def __init__(self, layout: Layout, header: JobHeader) -> None:
        self.layout, self.header = layout, header
        self.folders = StatusFolders(layout)
        self.progress()

    def progress(self, **changes: Any) -> None:
        job = replace(idle_view(self.header, JobState.RUNNING), **changes)
        self.folders.show_progress(self.header, job.to_json())

    def extend(self, done: int) -> None:
        partial = self.folders.find_partial(self.header.id)
        assert partial is not None
        preview.extend(self.layout, self.header.id, os.geteuid(), partial, done)

    def publish(self) -> None:
        finish(self.layout, self.header)
        self.folders.end_progress(self.header.id)


def view_of(layout: Layout, header: JobHeader, done: int = 0, **changes: Any) -> View:
    job = replace(idle_view(header, JobState.RUNNING), done=done)
    facts: dict[str, Any] = {"version": "1", "pid": 1, "state": "READY", "updated": 0.0, "updated_at": ""}
    folders = {"root": str(layout.root), "inbox": str(layout.inbox), "outbox": str(layout.outbox)}
    return View(**{**facts, **folders, "jobs": (job,), **changes})


def find(layout: Layout, word: str = "notes", view: View | None = None) -> NamedJob:
    found = find_job(layout, view, word)
    assert found is not None
    return found


def texts(running: JobWatch, view: View | None = None) -> list[object]:
    found = list(running.read(view))
    assert all(isinstance(item, Answer) for item in found)
    return [item.response for item in found if isinstance(item, Answer)]


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_ledger_is_followed_as_far_as_it_is_recorded_and_to_its_end(layout: Layout, header: JobHeader) -> None:
    record(layout, "job1", [answer(1, "II"), failure(0)])
    with watch(layout, find(layout)) as running:
        assert texts(running, view_of(layout, header, done=1)) == ["II"]
        assert texts(running, view_of(layout, header, done=1)) == []
        assert (running.answered, running.failed) == (1, 0)
        assert texts(running, view_of(layout, header, done=2)) == []
        assert (running.failed, running.is_over) == (1, False)

        finish(layout, header)

        assert texts(running, view_of(layout, header, jobs=())) == ["fine"]
        assert running.is_over


def test_answer_of_a_running_job_has_its_prompt_and_its_line(layout: Layout) -> None:
    accept_bytes(layout, OPENAI)
    record(layout, "job1", [answer(0, "I")])

    with watch(layout, find(layout)) as running:
        (item,) = running.read(None)

    assert isinstance(item, Answer)
    assert (item.prompt, item.response, item.request_id) == ("one", "I", "a")
    assert (item.place, item.file, item.line) == ("notes.jsonl line 1", "notes/responses.jsonl", 1)


# --- the preview -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("closed")
def test_submitter_sees_the_preview_and_then_what_is_left_in_the_outbox(layout: Layout, header: JobHeader) -> None:
    shown = Shown(layout, header)
    record(layout, "job1", [answer(1, "II")])
    asked = layout.inbox / "notes.jsonl.show"
    with watch(layout, find(layout)) as running:
        assert texts(running) == []
        assert json.loads(asked.read_text()) == {"job": "job1"}
        shown.extend(1)
        assert texts(running) == ["II"]
        record(layout, "job1", [failure(0)])
        shown.extend(2)
        assert texts(running) == []
        assert (running.answered, running.failed, running.is_over) == (1, 1, False)

        shown.publish()

        assert texts(running) == ["fine"]
        assert (running.answered, running.failed, running.is_over) == (2, 1, True)
    assert not asked.exists()


@pytest.mark.usefixtures("closed")
def test_line_that_is_half_written_is_read_when_it_is_whole(layout: Layout, header: JobHeader) -> None:
    shown = Shown(layout, header)
    record(layout, "job1", [answer(1, "II"), answer(2, "III")])
    shown.extend(2)
    path = layout.outbox / "notes.partial" / "responses.jsonl"
    whole = path.read_bytes()
    with watch(layout, find(layout)) as running:
        path.write_bytes(whole[:-9])
        assert texts(running) == ["II"]
        path.write_bytes(whole)
        assert texts(running) == ["III"]
        path.unlink()
        assert texts(running) == []
        path.write_bytes(whole)
        assert texts(running) == []


@pytest.mark.usefixtures("closed")
def test_control_file_of_somebody_else_stays_and_one_that_was_removed_comes_again(
    layout: Layout, header: JobHeader
) -> None:
    Shown(layout, header)
    asked = layout.inbox / "notes.jsonl.show"
    asked.touch()
    with watch(layout, find(layout)) as running:
        texts(running)
    assert asked.read_bytes() == b""

    with watch(layout, find(layout)) as running:
        asked.unlink()
        texts(running)
        assert asked.exists()
    assert not asked.exists()


@pytest.mark.usefixtures("closed")
def test_job_of_another_user_is_not_shown_and_the_reason_is_given(
    layout: Layout, header: JobHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shown(layout, header)
    monkeypatch.setattr(watching, "REFUSED_SECONDS", -1.0)
    refused = view_of(layout, header, waiting=(WaitingView(file="notes.jsonl.show", why="it is not yours"),))
    with watch(layout, find(layout)) as running, pytest.raises(InputError, match="it is not yours"):
        list(running.read(refused))
    assert not (layout.inbox / "notes.jsonl.show").exists()


@pytest.mark.usefixtures("closed")
def test_no_file_stays_when_the_reader_ends_by_an_error(layout: Layout, header: JobHeader) -> None:
    Shown(layout, header)
    running = PreviewWatch(layout, find(layout))
    with contextlib.suppress(BrokenPipeError), running:
        texts(running)
        assert list(layout.inbox.glob("*.show"))
        raise BrokenPipeError

    assert list(layout.inbox.glob("*.show")) == []


# --- which job is meant ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["notes", "notes.jsonl", "job1"])
def test_job_is_found_by_its_name_and_its_id_wherever_it_is(layout: Layout, word: str) -> None:
    assert find_job(layout, None, word) is None
    header = accept_bytes(layout, THREE)
    unfinished = NamedJob(stage=Stage.UNFINISHED, key=find(layout).key, job="job1")
    assert find(layout, word) == unfinished
    assert find(layout, word, view_of(layout, header)) == unfinished

    finish(layout, header)

    if word != "job1":
        found = find(layout, word)
        assert (found.stage, found.folder) == (Stage.PUBLISHED, layout.outbox / "notes")


def test_published_job_is_found_as_such_though_the_state_still_lists_it(layout: Layout, header: JobHeader) -> None:
    before = view_of(layout, header, done=2)
    finish(layout, header)

    found = find(layout, "notes", before)

    assert (found.stage, found.folder) == (Stage.PUBLISHED, layout.outbox / "notes")


def test_file_in_the_inbox_is_meant_before_an_older_job_of_its_name(layout: Layout, header: JobHeader) -> None:
    finish(layout, header)
    put(layout, THREE)

    assert find(layout).stage is Stage.COMING


def test_newest_job_of_a_name_is_meant(layout: Layout) -> None:
    for job in ("20260101T000000-000000000001", "20260101T000000-000000000002"):
        finish(layout, accept_bytes(layout, THREE, job))
    assert find(layout).job.endswith("2")
    assert find(layout, "20260101T000000-000000000001").job.endswith("1")

    accept_bytes(layout, THREE, "20250101T000000-000000000003")

    assert find(layout).job.endswith("3")


@pytest.mark.parametrize("word", ["", "/", "../notes", ".obcd/x", "a/b/c", "notes*", "other"])
def test_other_words_name_no_job(layout: Layout, header: JobHeader, word: str) -> None:
    Shown(layout, header)

    assert find_job(layout, None, word) is None


# --- obcd status JOB -------------------------------------------------------------------------------------------------


def test_status_names_each_class_with_its_first_message(layout: Layout, header: JobHeader) -> None:
    record(layout, "job1", [failure(2, "boom\x1b"), failure(0, "bang")])
    report = describe_job(layout, view_of(layout, header, done=2), "notes")
    assert report.to_json()["failures"] == {"server_error": {"count": 2, "line": 3, "message": "boom\x1b"}}
    assert report.text() == wording("status-of-one-job")

    finish(layout, header)
    report = describe_job(layout, None, "notes")

    assert (report.state, report.to_json()["total"], report.to_json()["failed"]) == ("PUBLISHED", 3, 2)
    # in the order of the input
    assert report.to_json()["failures"] == {"server_error": {"count": 2, "line": 1, "message": "bang"}}


@pytest.mark.usefixtures("closed")
def test_submitter_sees_the_classes_and_messages_only_in_a_preview(layout: Layout, header: JobHeader) -> None:
    record(layout, "job1", [failure(2, "boom")])
    shown = Shown(layout, header)
    path = layout.outbox / "notes.partial" / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "failed_by_class": {"server_error": 4}}))
    assert describe_job(layout, None, "notes").to_json()["failures"] == {
        "server_error": {"count": 4, "line": None, "message": None}
    }

    shown.extend(1)

    assert describe_job(layout, None, "notes").to_json()["failures"] == {
        "server_error": {"count": 4, "line": 3, "message": "boom"}
    }


def test_remark_on_a_job_shows_while_it_runs_and_after(layout: Layout) -> None:
    path = put(layout, THREE)
    put_marker(path, bytes=len(THREE), by="soonish")
    header = accepted(layout, order_of(drop_of(path), "job1"))
    assert header.remark

    assert describe_job(layout, view_of(layout, header), "notes").why == header.remark
    finish(layout, header)
    assert describe_job(layout, None, "notes").why == header.remark


def test_file_that_waits_is_named_with_the_reason(layout: Layout, header: JobHeader) -> None:
    put(layout, THREE, "more.jsonl")
    why = (WaitingView(file="more.jsonl", why="it is settling"),)

    report = describe_job(layout, view_of(layout, header, waiting=why), "more")

    assert (report.state, report.why, report.failures) == ("WAITING", "it is settling", {})
    with pytest.raises(InputError):
        describe_job(layout, None, "other")
