"""Who is begun next, and who is cleared when: on values and with a clerk that only notes its calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.coordinator.clerk.calls import CallFailed, ClearCrashes, ClerkCall, LoadJob, Release
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.quarantine import DISK_SECONDS, QUIET_SECONDS, Quarantine
from obcd.coordinator.jobs.running_job import RunningJob
from obcd.core.answer.counts import Counts
from obcd.core.request.records import JobSettings
from obcd.spool.folders.layout import Layout
from obcd.spool.intake.recovery import LoadedJob
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.job.ledger import Replay
from tests.golden.wording import wording
from tests.unit.coordinator.jobs.test_running_job import job


class NotingClerks(ClerkPair):
    """Notes the calls; each is done at once, and nothing comes of it."""

    def __init__(self, layout: Layout, calls: list[ClerkCall[Any]]) -> None:
        super().__init__("intake", layout)
        self.calls = calls

    def submit(self, call: ClerkCall[Any], then: Callable[[Any], None]) -> None:
        self.calls.append(call)
        then(None)


@pytest.fixture
def calls() -> list[ClerkCall[Any]]:
    return []


@pytest.fixture
def kept_apart(tmp_path: Path, calls: list[ClerkCall[Any]]) -> Quarantine:
    layout = Layout.at(tmp_path / "root")
    layout.create([])
    return Quarantine(layout.jobs, NotingClerks(layout, calls), ProgressFolders(layout))


def header(name: str) -> JobHeader:
    return JobHeader(id=name, name=f"{name}.jsonl", requests=10, settings=JobSettings(model="llama3.2"))


def loaded(quarantine: Quarantine, name: str, done: int, running: dict[str, RunningJob]) -> None:
    """Have a job read, as the coordinator does."""
    replay = Replay(done=bytes(10), size=0, counts=Counts(responses=done))
    assert not quarantine.keeps(header(name), LoadedJob(header(name), replay, b""), 0.0)
    running[name] = job(10, done, 1.0)


def begin(quarantine: Quarantine, name: str) -> None:
    quarantine.begin(header(name), print, 0.0)


def on_trial(quarantine: Quarantine) -> bool:
    return quarantine.is_on_trial


def test_suspect_is_on_trial_until_it_has_a_new_result(kept_apart: Quarantine) -> None:
    running: dict[str, RunningJob] = {}
    kept_apart.take_over([], {"a": 2, "b": 1})
    assert (kept_apart.suspicion("a"), kept_apart.suspicion("b")) == (2, 0)  # once is no suspicion
    assert not on_trial(kept_apart)

    begin(kept_apart, "b")
    assert not on_trial(kept_apart)
    begin(kept_apart, "a")
    loaded(kept_apart, "a", 3, running)
    kept_apart.tick(running, 0.0)
    assert on_trial(kept_apart)

    running["a"] = job(10, 4, 1.0)
    kept_apart.tick(running, 0.0)
    assert not on_trial(kept_apart)


@pytest.mark.parametrize("is_readable", [True, False])
def test_suspect_that_is_published_or_unreadable_keeps_nobody_waiting(
    kept_apart: Quarantine, is_readable: bool
) -> None:
    kept_apart.take_over([], {"a": 2})
    begin(kept_apart, "a")
    if is_readable:
        loaded(kept_apart, "a", 10, {})  # and gone before anybody looked
    else:
        assert not kept_apart.keeps(header("a"), CallFailed("damaged"), 0.0)

    kept_apart.tick({}, 0.0)

    assert not on_trial(kept_apart)


def test_job_without_a_result_is_cleared_after_a_quiet_while(
    kept_apart: Quarantine, calls: list[ClerkCall[Any]]
) -> None:
    running: dict[str, RunningJob] = {}
    begin(kept_apart, "a")
    loaded(kept_apart, "a", 0, running)

    kept_apart.tick(running, QUIET_SECONDS - 1)
    assert calls == [LoadJob(header("a"), is_counted=True)]
    kept_apart.tick(running, QUIET_SECONDS + 1)
    kept_apart.tick(running, 2 * QUIET_SECONDS)

    assert calls[1:] == [ClearCrashes("a")]


def test_released_job_is_begun_again_once(kept_apart: Quarantine, calls: list[ClerkCall[Any]]) -> None:
    assert kept_apart.keeps(header("a"), None, 0.0)
    assert "a.jsonl is QUARANTINED" in kept_apart.troubles()[0]
    assert [item.state for item in kept_apart.views()] == ["QUARANTINED"]

    for name in ("a", "a", "b"):
        kept_apart.release(name)

    assert calls == [Release("a")]
    assert kept_apart.tick({}, 0.0) == [header("a")]
    assert kept_apart.tick({}, 0.0) == []
    assert kept_apart.troubles() == []
    assert kept_apart.views() == []


def test_job_that_the_disk_does_not_let_us_read_is_tried_again_later_and_holds_nobody_up(
    kept_apart: Quarantine,
) -> None:
    begin(kept_apart, "a")

    assert kept_apart.keeps(header("a"), CallFailed("No space left on device", is_disk=True), 0.0)

    assert wording("a-jsonl-cannot-be-read-no") in kept_apart.troubles()[0]
    assert kept_apart.later == (header("a"),)
    assert kept_apart.tick({}, DISK_SECONDS - 1) == []
    assert kept_apart.tick({}, DISK_SECONDS + 1) == [header("a")]
    assert kept_apart.troubles() == []


def test_job_that_cannot_be_read_at_all_is_kept_and_told_with_its_reason(kept_apart: Quarantine) -> None:
    assert not kept_apart.keeps(header("a"), CallFailed(wording("obcd-s-clerk-died-3-times")), 0.0)

    assert list(kept_apart.kept) == ["a"]
    assert kept_apart.troubles() == [wording("a-jsonl-cannot-be-run-obcd")]
    assert kept_apart.troubles(["a", "b"])[1:] == [wording("jobs-b-is-damaged-and-left")]
