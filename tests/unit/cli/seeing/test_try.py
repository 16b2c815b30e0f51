"""`obcd try`: what it says when its time is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from obcd.cli.seeing.try_ import _not_yet, _Trial, _trouble
from obcd.coordinator.view import JobState, JobView
from obcd.results.trying.sampling import LineSample
from obcd.spool.folders.layout import Layout
from obcd.spool.submit.dropping import Submitted
from tests.golden.wording import wording
from tests.unit.coordinator.history.test_minutes import VIEW


def test_trial_that_takes_too_long_says_how_long_why_and_what_to_do() -> None:
    said = _not_yet("notes.try.jsonl", 600.0, "waits for its window", is_coordinated=True)

    assert said == wording("not-answered-within")


def test_trial_without_a_coordinator_says_how_to_start_one() -> None:
    said = _not_yet("notes.try.jsonl", 600.0, "", is_coordinated=False)

    assert said.startswith(wording("not-answered-and-no-coordinator"))
    assert "obcd" in said.rpartition(": ")[2]


def test_trial_that_does_not_run_yet_says_why_it_waits(tmp_path: Path) -> None:
    submitted = Submitted(name="notes.try.jsonl", profile="", drop_id="d1", prompts=2, bad=0, bad_lines=())
    trial = _Trial(Layout.at(tmp_path), submitted, LineSample((1, 2), (b"{}", b"{}"), (2, 2)), None)
    job = JobView(
        job="j", name=submitted.name, profile="", drop_id="d1", state=JobState.ACCEPTED, total=2,
        trouble="waits for its window, 03:00",
    )  # fmt: skip

    assert _trouble(trial, replace(VIEW, jobs=(replace(job, drop_id="d2", trouble="other"), job))) == job.trouble
    assert _trouble(trial, None) == ""
