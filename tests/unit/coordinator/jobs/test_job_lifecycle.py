"""Jobs between acceptance and publication; clerks are asked and do nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.clerk.calls import CallFailed, ClerkCall, Hold, LoadJob, Publish, Release
from obcd.coordinator.disk_watch import DiskWatch
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.jobs.job_lifecycle import MOST_REPORTED, FolderShown, Jobs, _is_gone
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.recorder import Entry, Recorder
from obcd.coordinator.jobs.refusal_count import LEAST
from obcd.coordinator.jobs.running_job import no_obstacle
from obcd.coordinator.loop_waits import Waker
from obcd.coordinator.metering.counters import CounterSet
from obcd.coordinator.metering.counters_file import CountersFile
from obcd.coordinator.view import FurtherJobView, JobState
from obcd.core.answer.counts import Counts
from obcd.core.pending.fair_share import FOREMOST, MOST_PRIORITY, Rank
from obcd.core.scheduling.scheduler import Scheduler
from obcd.spool.inbox.control import JobControls
from obcd.spool.intake.recovery import LoadedJob, Recovery
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader
from obcd.users import user_name
from tests.golden.wording import wording
from tests.unit.spool.spools import SETTINGS, answer, make_layout


class Errands:
    """Stands for both clerks: keeps what they are to do."""

    def __init__(self) -> None:
        self.submitted: list[tuple[ClerkCall[Any], Callable[[Any], None]]] = []

    def submit(self, call: ClerkCall[Any], then: Callable[[Any], None]) -> None:
        self.submitted.append((call, then))

    @property
    def calls(self) -> list[ClerkCall[Any]]:
        return [call for call, _ in self.submitted]


class Bench:
    """Jobs with real scheduler and recorder."""

    def __init__(self, root: Path) -> None:
        self.layout = make_layout(root)
        self.clerk = Errands()
        self.headers: dict[str, JobHeader] = {}
        self.recorder = Recorder(self.layout.jobs, Waker(), DiskWatch(root))
        self.endpoints = Endpoints(Settings(), self.layout.jobs, Scheduler(), 0.0)
        clerks: Any = (self.clerk, self.clerk)
        counters = CountersFile(None, CounterSet(0.0))
        folders = ProgressFolders(self.layout)
        self.jobs = Jobs(self.layout, self.endpoints, self.recorder, clerks, folders, counters)

    def take(self, job: str, uid: int = 0, controls: JobControls | None = None) -> None:
        self.headers[job] = JobHeader(id=job, name=f"{job}.jsonl", uid=uid, requests=9, settings=SETTINGS)
        self.jobs.take(self.headers[job])
        if controls is not None:
            self.jobs.bind(job, controls)

    def load(self, job: str) -> LoadJob:
        """Return the call that loads a job."""
        return LoadJob(self.headers[job], is_counted=True, records=0)

    def publish(self, job: str) -> Publish:
        """Return the call that publishes a job."""
        return Publish(self.headers[job], self.endpoints.facts())

    def load_all(self) -> None:
        """Load what is to be loaded: it has no results so far."""
        for item in [item for item in self.clerk.submitted if isinstance(item[0], LoadJob)]:
            call, then = item
            assert isinstance(call, LoadJob)
            (self.layout.jobs / call.header.id).mkdir(exist_ok=True)
            self.clerk.submitted.remove(item)
            then(LoadedJob(call.header, ledger.Replay(done=bytes(9), size=0), b""))
        self.jobs.tick(0.0)

    def run(self, job: str) -> None:
        """Take a job, and have it begin."""
        self.take(job)
        self.jobs.activate(1, 0.0)
        self.load_all()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "root")
    yield made
    made.recorder.stop(5)


def test_cancelled_job_is_published_once_its_last_results_are_on_disk(bench: Bench) -> None:
    bench.run("j1")
    bench.recorder.stop(5)  # nothing gets on disk from here on
    bench.recorder.add(Entry("j1", answer(0), Counts(responses=1)))

    bench.jobs.bind("j1", JobControls(canceller=7))
    bench.jobs.tick(0.0)
    assert bench.clerk.calls == []
    assert bench.jobs.state("j1") is JobState.CANCELLED

    bench.recorder.forget("j1")
    bench.jobs.tick(0.0)
    bench.jobs.tick(0.0)
    assert bench.clerk.calls == [bench.publish("j1")]


def test_result_that_is_on_disk_and_not_counted_is_counted_before_the_job_ends(bench: Bench) -> None:
    bench.recorder._recorded.append(Entry("j1", answer(0), Counts(responses=1)))

    assert bench.recorder.holds("j1")
    assert not bench.recorder.holds("j2")


def test_results_that_cannot_be_published_say_what_happens_next(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bench.run("j1")
    bench.jobs.bind("j1", JobControls(canceller=os.getuid()))
    bench.jobs.tick(0.0)
    then = bench.clerk.submitted.pop()[1]

    then(CallFailed("Invalid cross-device link", is_disk=True))

    cancelled, failed = caplog.messages[-2:]
    assert cancelled.endswith(wording("was-cancelled-by", user_name(os.getuid())))
    assert "Invalid cross-device link; " in failed
    assert failed.endswith(wording("obcd-tries-it-again-by"))


def test_cancelled_job_waits_for_no_room(bench: Bench) -> None:
    for job in ("j1", "j2", "j3"):
        bench.take(job)
    bench.jobs.activate(1, 0.0)
    bench.load_all()
    assert list(bench.jobs.running) == ["j1"]

    bench.jobs.bind("j3", JobControls(canceller=7))
    bench.jobs.activate(1, 0.0)
    bench.load_all()
    bench.jobs.tick(0.0)

    assert (sorted(bench.jobs.running), list(bench.jobs.accepted)) == (["j1", "j3"], ["j2"])
    assert bench.clerk.calls == [bench.publish("j3")]


def test_paused_job_takes_no_room_and_starts_when_it_may(bench: Bench) -> None:
    bench.take("j1")
    bench.take("j2")
    bench.take("j3")
    bench.jobs.pause(frozenset({"j1"}))
    bench.jobs.activate(1, 0.0)
    bench.load_all()
    assert list(bench.jobs.running) == ["j2"]

    bench.jobs.pause(frozenset({"j2"}))
    bench.jobs.activate(1, 0.0)
    bench.load_all()

    assert list(bench.jobs.running) == ["j2", "j1"]
    assert [bench.jobs.state(job) for job in ("j1", "j2", "j3")] == [
        JobState.RUNNING, JobState.PAUSED, JobState.ACCEPTED,
    ]  # fmt: skip


def test_job_that_was_paused_while_it_was_loaded_is_paused(bench: Bench) -> None:
    bench.take("j1")
    bench.jobs.activate(1, 0.0)
    bench.jobs.pause(frozenset({"j1"}))

    bench.load_all()

    assert bench.jobs.state("j1") is JobState.PAUSED
    assert bench.jobs.running["j1"].backlog.is_paused


def test_pausing_a_cancelled_job_changes_nothing(bench: Bench) -> None:
    bench.run("j1")
    bench.jobs.bind("j1", JobControls(canceller=7))

    bench.jobs.pause(frozenset({"j1"}))

    assert bench.jobs.state("j1") is JobState.CANCELLED


def test_newcomer_becomes_active_beside_a_crowd(bench: Bench) -> None:
    for number in range(50):
        bench.take(f"ann{number:02}", uid=1)
    bench.take("bob", uid=2)

    bench.jobs.activate(3, 0.0)

    assert bench.clerk.calls == [bench.load(job) for job in ("ann00", "bob", "ann01")]


def test_priority_reaches_a_running_job(bench: Bench) -> None:
    bench.run("j1")

    bench.jobs.bind("j1", JobControls(Rank(0, 5)))

    assert bench.jobs.running["j1"].backlog.rank == Rank(0, 5)


def test_waiting_job_of_higher_priority_starts_first(bench: Bench) -> None:
    bench.take("j1")
    bench.take("j2", controls=JobControls(Rank(0, 5)))

    bench.jobs.activate(1, 0.0)

    assert bench.clerk.calls[0] == bench.load("j2")


def test_trial_comes_before_the_other_jobs_of_its_submitter_though_all_places_are_taken(bench: Bench) -> None:
    bench.run("j1")
    trial = JobHeader(id="j2", name="n.try.jsonl", uid=0, requests=9, settings=SETTINGS, trial="remove")
    bench.headers["j2"] = trial

    bench.jobs.take(trial)
    bench.jobs.activate(1, 0.0)
    bench.load_all()

    assert bench.jobs.running["j2"].backlog.rank == Rank(0, FOREMOST)
    assert {view.job: view.priority for view in bench.jobs.views(0.0, no_obstacle)}["j2"] == MOST_PRIORITY


def test_control_of_a_job_that_is_gone_is_passed_over(bench: Bench) -> None:
    bench.jobs.bind("gone", JobControls(canceller=7))

    assert bench.jobs.controls("gone") == JobControls()


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_job_in_quarantine_comes_out_to_be_resumed_or_cancelled(bench: Bench, is_cancelled: bool) -> None:
    bench.take("j1")
    bench.jobs.activate(1, 0.0)
    bench.clerk.submitted.pop()[1](None)
    bench.jobs.tick(0.0)
    assert bench.jobs.state("j1") is JobState.QUARANTINED
    assert [header.id for header in bench.jobs.addressable()] == ["j1"]
    assert bench.jobs.is_idle

    if is_cancelled:
        bench.jobs.bind("j1", JobControls(canceller=7))
    else:
        bench.jobs.resume("j1")
    call, then = bench.clerk.submitted.pop()
    assert call == Release("j1")
    then(None)
    bench.jobs.tick(0.0)
    bench.jobs.activate(1, 0.0)
    bench.load_all()
    bench.jobs.tick(0.0)

    assert bench.clerk.calls == ([bench.publish("j1")] if is_cancelled else [])
    assert bench.jobs.running["j1"].state is (JobState.COMPLETE if is_cancelled else JobState.RUNNING)


def test_published_job_is_reported_once(bench: Bench) -> None:
    bench.run("j1")
    bench.jobs.bind("j1", JobControls(canceller=7))
    bench.jobs.tick(0.0)
    _, then = bench.clerk.submitted.pop()
    revision = bench.jobs.revision

    then(Path("outbox/j1"))

    assert bench.jobs.tick(0.0) == [FolderShown("j1", Path("outbox/j1"))]
    assert bench.jobs.tick(0.0) == []
    assert bench.jobs.is_idle
    assert bench.jobs.revision > revision


def test_long_line_of_jobs_is_told_in_short_from_some_on(bench: Bench) -> None:
    for number in range(MOST_REPORTED + 3):
        bench.take(f"j{number}")

    shown = [item.job for item in bench.jobs.views(0.0, no_obstacle)]
    assert shown == [f"j{number}" for number in range(MOST_REPORTED)]
    assert [item.job for item in bench.jobs.further_views()] == [f"j{MOST_REPORTED + number}" for number in range(3)]
    name = f"j{MOST_REPORTED}"
    assert bench.jobs.further_views()[0] == FurtherJobView(
        job=name, profile="", name=f"{name}.jsonl", state=JobState.ACCEPTED
    )


def test_waiting_job_that_was_shown_is_shown_again_as_it_is_now(bench: Bench) -> None:
    for number in range(MOST_REPORTED + 2):
        bench.take(f"j{number}")
    last = f"j{MOST_REPORTED + 1}"
    first, further = bench.jobs.views(0.0, no_obstacle), bench.jobs.further_views()

    bench.jobs.pause(frozenset({"j0", last}))
    bench.jobs.bind("j1", JobControls(rank=Rank(0, 7)))

    shown, named = bench.jobs.views(1.0, no_obstacle), bench.jobs.further_views()
    assert [(item.state, item.priority) for item in shown[:2]] == [("PAUSED", 0), ("ACCEPTED", 7)]
    assert [item.state for item in named] == ["ACCEPTED", "PAUSED"]
    assert all(old is new for old, new in zip((*first[2:], *further[:1]), (*shown[2:], *named[:1]), strict=True))


@pytest.mark.parametrize(
    ("error", "is_gone"),
    [(FileNotFoundError(), True), (NotADirectoryError(), True), (PermissionError(), False), (OSError(5, "I/O"), False)],
)
def test_folder_that_cannot_be_looked_at_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, is_gone: bool
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "lstat", fail)

    assert _is_gone(tmp_path) is is_gone


# --- jobs that obcd pauses -------------------------------------------------------------------------------------------


def refuse(bench: Bench, job: str, times: int) -> None:
    for _ in range(times):
        bench.jobs.on_refused(job, 0, "gpu0")


def test_r24b_job_of_which_too_much_is_refused_is_held_until_it_is_resumed(bench: Bench) -> None:
    bench.run("j1")
    bench.take("j2")
    bench.jobs.activate(2, 0.0)
    bench.load_all()

    refuse(bench, "j1", LEAST - 1)
    assert bench.jobs.state("j1") is JobState.RUNNING
    refuse(bench, "j1", 3)  # two were in flight still

    assert [bench.jobs.state(job) for job in ("j1", "j2")] == [JobState.PAUSED, JobState.RUNNING]
    (why,) = bench.jobs.held()
    assert wording("20-of-its-9-requests-failed") in why
    assert next(view.trouble for view in bench.jobs.views(0.0, no_obstacle) if view.job == "j1") == why
    assert bench.clerk.calls == [Hold(bench.headers["j1"], why)]

    bench.jobs.resume("j1")

    assert (bench.jobs.state("j1"), bench.jobs.held()) == (JobState.RUNNING, [])
    refuse(bench, "j1", 2 * LEAST - 1)
    assert bench.jobs.state("j1") is JobState.RUNNING
    refuse(bench, "j1", 1)
    assert bench.jobs.state("j1") is JobState.PAUSED


def test_other_order_does_not_end_a_hold_and_a_cancellation_does(bench: Bench) -> None:
    bench.run("j1")
    refuse(bench, "j1", LEAST)

    bench.jobs.bind("j1", JobControls(Rank(0, 5)))
    bench.jobs.pause(frozenset({"j1"}))
    bench.jobs.pause(frozenset())
    assert bench.jobs.state("j1") is JobState.PAUSED

    bench.jobs.bind("j1", JobControls(canceller=7))
    assert (bench.jobs.state("j1"), bench.jobs.held()) == (JobState.CANCELLED, [])


def test_job_that_its_user_paused_too_stays_paused_after_a_resume_of_the_hold_alone(bench: Bench) -> None:
    bench.run("j1")
    bench.jobs.pause(frozenset({"j1"}))
    refuse(bench, "j1", LEAST)  # what was in flight

    bench.jobs.resume("j1")
    assert bench.jobs.state("j1") is JobState.PAUSED

    bench.jobs.pause(frozenset())
    assert bench.jobs.state("j1") is JobState.RUNNING


def test_held_job_is_still_held_after_a_restart_and_lets_others_start(bench: Bench) -> None:
    held = JobControls(held="too much is refused")
    bench.headers["j1"] = JobHeader(id="j1", name="j1.jsonl", requests=9, settings=SETTINGS)
    bench.jobs.take_over(Recovery((), (), (), (), controls={"j1": held}), [bench.headers["j1"]])
    bench.take("j2")

    bench.jobs.activate(1, 0.0)
    bench.load_all()

    assert list(bench.jobs.running) == ["j2"]
    (view,) = [view for view in bench.jobs.views(0.0, no_obstacle) if view.job == "j1"]
    assert (view.state, view.trouble) == ("PAUSED", "too much is refused")

    bench.jobs.resume("j1")
    bench.jobs.activate(2, 0.0)
    bench.load_all()
    assert list(bench.jobs.running) == ["j2", "j1"]


def test_job_whose_last_request_is_refused_is_not_held(bench: Bench) -> None:
    bench.run("j1")
    bench.jobs.running["j1"].backlog.unfinished = 0

    refuse(bench, "j1", LEAST)

    assert bench.jobs.held() == []
