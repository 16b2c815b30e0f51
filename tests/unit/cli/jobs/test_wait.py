"""What who waits for answers is told when they do not come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from obcd.cli.jobs import wait
from obcd.client.watching.bars import JobBar
from obcd.clock import wall
from obcd.coordinator.jobs.running_job import idle_view
from obcd.coordinator.view import JobState, JobView
from obcd.core.request.records import JobSettings
from obcd.errors import TimedOutError
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox.status_folders import StatusFolders
from obcd.spool.submit.dropping import Submitted
from tests.golden.wording import wording
from tests.unit.spool.spools import make_layout

TROUBLE = "no endpoint is up: gpu0: connection refused: no server listens there"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return a spool whose coordinator runs a job that gets no endpoint."""
    made = make_layout(tmp_path)
    header = JobHeader(id="j", name="q.jsonl", requests=1, settings=JobSettings(model="m"), drop_id="ab12")
    StatusFolders(made).show_progress(header, idle_view(header, JobState.RUNNING, TROUBLE).to_json())
    made.status.write_text(json.dumps({"updated": wall()}), "utf-8")
    return made


@pytest.fixture
def submitted() -> Submitted:
    return Submitted(name="q.jsonl", profile="", drop_id="ab12", prompts=1, bad=0, bad_lines=())


class Bar(JobBar):
    """The bar on a terminal, without drawing."""

    notes: ClassVar[list[str]] = []

    def __init__(self, name: str, total: int) -> None:
        self.notes.clear()

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def show(self, job: JobView, trouble: str) -> None:
        self.notes.append(trouble)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obcd.client.watching.bars.JobBar", Bar)
    monkeypatch.setattr(wait, "is_terminal", lambda: True)
    monkeypatch.setattr(wait, "LOOK_SECONDS", 0.01)


def test_trouble_of_a_job_is_shown_and_told_when_the_time_is_over(layout: Layout, submitted: Submitted) -> None:
    with pytest.raises(TimedOutError) as caught:
        wait.wait_for_all([submitted], layout, 0.05, quiet=False)

    assert str(caught.value) == wording("q-jsonl-is-not-answered-yet", TROUBLE)
    assert set(Bar.notes) == {TROUBLE}


def test_without_a_coordinator_it_is_told_how_one_is_started(layout: Layout, submitted: Submitted) -> None:
    layout.status.unlink()

    with pytest.raises(TimedOutError, match=wording("no-coordinator-runs-obcd-up-or")):
        wait.wait_for_all([submitted], layout, 0.02, quiet=False)
