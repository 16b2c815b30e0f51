"""`obcd retry` asks no line twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.cli import main
from obcd.coordinator.jobs.running_job import idle_view
from obcd.coordinator.view import JobState
from obcd.errors import ExitCode
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import publication
from obcd.spool.outbox.status_folders import StatusFolders
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, accept_bytes, accepted, answer, drop_of, failure, order_of, record

Run = Callable[..., str]


@pytest.fixture
def notes(layout: Layout) -> Path:
    accept_bytes(layout, THREE)
    record(layout, "job1", [answer(0), failure(1), failure(2)])
    return publication.publish(layout, "job1", {})


@pytest.fixture
def run(layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "obcd.toml").write_text('model = "m"\n')

    def call(command: str, *words: object) -> str:
        assert (
            main.run([command, *map(str, words), "--config", str(tmp_path / "obcd.toml"), "--root", str(layout.root)])
            == 0
        )
        return capsys.readouterr().err

    return call


def take(layout: Layout) -> JobHeader:
    return accepted(layout, order_of(drop_of(layout.inbox / "notes.retry.jsonl"), "job2"))


def test_retry_is_dropped_with_the_job_that_it_is_of(layout: Layout, notes: Path, run: Run) -> None:
    assert run("retry", notes).endswith(wording("notes-2-lines-dropped-as-notes"))

    assert json.loads((layout.inbox / "notes.retry.jsonl.done").read_bytes())["parent"] == "job1"


def test_dropped_retry_waits_for_a_coordinator_that_does_not_run(
    notes: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obcd.cli.jobs.retry.is_watched", lambda: True)

    assert run("retry", notes).endswith(wording("waits-for-one-obcd-up-or") + "\n")


def test_folder_of_batch_is_not_dropped_where_no_coordinator_runs(
    layout: Layout, notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = notes.rename(tmp_path / "notes")
    (tmp_path / "obcd.toml").write_text('model = "m"\n')
    words = ["retry", str(folder), "--config", str(tmp_path / "obcd.toml"), "--root", str(layout.root)]

    assert main.run(words) == ExitCode.INPUT
    assert capsys.readouterr().err.endswith(wording("is-not-in-the-outbox", layout.outbox, folder / "retry.jsonl"))
    assert not list(layout.inbox.glob("notes*"))


def test_job_whose_retry_runs_is_not_tried_again(layout: Layout, notes: Path, run: Run) -> None:
    run("retry", notes)
    StatusFolders(layout).show_progress(header := take(layout), idle_view(header, JobState.RUNNING).to_json())
    (layout.inbox / "notes.retry.jsonl").unlink(missing_ok=True)

    said = run("retry", notes)

    assert said.endswith(wording("notes-it-is-being-tried-again"))
    assert not (layout.inbox / "notes.retry.jsonl").exists()


def test_print_tells_what_failed_in_the_end_and_nothing_when_all_is_answered(
    layout: Layout, notes: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("retry", notes)
    take(layout)
    record(layout, "job2", [answer(0), failure(1)])
    retry = publication.publish(layout, "job2", {})

    assert main.run(["print", str(layout.outbox)]) == 0
    assert capsys.readouterr().err == wording("notes-1-of-3-failed-and")

    accept_bytes(layout, (retry / "retry.jsonl").read_bytes(), "job3", "last.jsonl")
    record(layout, "job3", [answer(0)])
    publication.publish(layout, "job3", {})
    assert main.run(["print", str(layout.outbox)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (failure(1), wording("retry-where-1-of-2-lines")),
        (answer(1), wording("retry-obcd-merge-and-obcd-verify")),
    ],
)
def test_job_whose_retry_is_there_is_not_tried_again(
    layout: Layout, notes: Path, run: Run, last: bytes, sentence: str
) -> None:
    run("retry", notes)
    take(layout)
    record(layout, "job2", [answer(0), last])
    publication.publish(layout, "job2", {})

    assert sentence in run("retry", notes)

    assert not (layout.inbox / "notes.retry.jsonl").exists()
