"""Who is begun next, and who is acquitted when: on values and with a clerk that only notes what it is asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.clock import monotonic
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.clerk.clerk_process import CallDone, CallFailed
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.quarantine import DISK_SECONDS, QUIET_SECONDS, Quarantine
from obcd.coordinator.jobs.running_job import RunningJob
from obcd.core.answer.counts import Counts
from obcd.core.request.records import JobSettings
from obcd.spool.folders.layout import Layout
from obcd.spool.intake.recovery import LoadedJob
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.job.ledger import Replay
from tests.unit.coordinator.jobs.test_running_job import job


class NotingClerks(ClerkPair):
    """Notes the calls; each is answered at once."""

    def __init__(self, layout: Layout, asked: list[tuple[str, ...]]) -> None:
        super().__init__("intake", layout)
        self.asked = asked

    def ask(
        self, then: Callable[[CallDone | CallFailed], None], name: str, *arguments: Any, is_large: bool = False
    ) -> None:
        self.asked.append((name, *arguments))
        then(CallDone(None))


@pytest.fixture
def asked() -> list[tuple[str, ...]]:
    return []


@pytest.fixture
def accepted() -> deque[JobHeader]:
    return deque()


@pytest.fixture
def kept_apart(tmp_path: Path, accepted: deque[JobHeader], asked: list[tuple[str, ...]]) -> Quarantine:
    layout = Layout.at(tmp_path / "root")
    layout.create([])
    return Quarantine(accepted.append, layout.jobs, NotingClerks(layout, asked), ProgressFolders(layout))


def header(name: str) -> JobHeader:
    return JobHeader(id=name, name=f"{name}.jsonl", requests=10, settings=JobSettings(model="llama3.2"))


def headers(*names: str) -> deque[JobHeader]:
    return deque(map(header, names))


def loaded(quarantine: Quarantine, name: str, done: int, running: dict[str, RunningJob]) -> None:
    """Have a job read, as the coordinator does."""
    replay = Replay(done=bytes(10), size=0, counts=Counts(responses=done))
    assert not quarantine.keeps(header(name), CallDone(LoadedJob(header(name), replay, b"")))
    running[name] = job(10, done, 1.0)


def begin(quarantine: Quarantine, name: str) -> None:
    quarantine.begin(header(name), lambda outcome: None)


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
    kept_apart.tick(running, monotonic())
    assert on_trial(kept_apart)

    running["a"] = job(10, 4, 1.0)
    kept_apart.tick(running, monotonic())
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
        assert not kept_apart.keeps(header("a"), CallFailed("damaged"))

    kept_apart.tick({}, monotonic())

    assert not on_trial(kept_apart)


def test_job_without_a_result_is_acquitted_after_a_quiet_while(
    kept_apart: Quarantine, asked: list[tuple[str, ...]]
) -> None:
    running: dict[str, RunningJob] = {}
    begin(kept_apart, "a")
    loaded(kept_apart, "a", 0, running)

    kept_apart.tick(running, monotonic() + QUIET_SECONDS - 1)
    assert asked == [("begin_job", "a")]
    kept_apart.tick(running, monotonic() + QUIET_SECONDS + 1)
    kept_apart.tick(running, monotonic() + 2 * QUIET_SECONDS)

    assert asked[1:] == [("acquit", "a")]


def test_released_job_is_begun_again_once(
    kept_apart: Quarantine, accepted: deque[JobHeader], asked: list[tuple[str, ...]]
) -> None:
    assert kept_apart.keeps(header("a"), CallDone(None))
    assert "a.jsonl is QUARANTINED" in kept_apart.troubles()[0]
    assert [item.state for item in kept_apart.views()] == ["QUARANTINED"]

    assert kept_apart.release("a")
    assert not kept_apart.release("a")
    assert not kept_apart.release("b")

    assert list(accepted) == [header("a")]
    assert asked == [("release", "a")]
    assert kept_apart.troubles() == []
    assert kept_apart.views() == []


def test_job_that_the_disk_does_not_let_us_read_is_tried_again_later_and_holds_nobody_up(
    kept_apart: Quarantine, accepted: deque[JobHeader]
) -> None:
    begin(kept_apart, "a")

    assert kept_apart.keeps(header("a"), CallFailed("No space left on device", is_disk=True))

    assert "a.jsonl cannot be read: No space left" in kept_apart.troubles()[0]
    assert kept_apart.later == (header("a"),)
    kept_apart.tick({}, monotonic() + DISK_SECONDS - 1)
    assert list(accepted) == []
    kept_apart.tick({}, monotonic() + DISK_SECONDS + 1)
    assert kept_apart.troubles() == []
    assert list(accepted) == [header("a")]


def test_job_that_cannot_be_read_at_all_is_kept_and_told_with_its_reason(kept_apart: Quarantine) -> None:
    assert not kept_apart.keeps(header("a"), CallFailed("obcd's clerk died 3 times over it", died=True))

    assert list(kept_apart.kept) == ["a"]
    assert kept_apart.troubles() == [
        "a.jsonl cannot be run: obcd's clerk died 3 times over it; it is kept in jobs/a: look at it"
    ]
    assert kept_apart.troubles(["a", "b"])[1:] == [
        "jobs/b is damaged and left as it is: drop its input.jsonl again, then remove it"
    ]
