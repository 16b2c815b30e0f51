"""Forecasts, ranks and reports of jobs with deadlines; no process is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.jobs.forecaster import FORECAST_SECONDS, MOST_WAITING, Forecaster
from obcd.coordinator.view import JobState
from obcd.core.events import EventKind
from obcd.core.pending.fair_share import Rank
from obcd.core.request.records import Signature
from obcd.core.scheduling.scheduler import Scheduler
from obcd.spool.inbox.control import JobControls
from obcd.spool.job.job_folder import JobHeader
from tests.unit.coordinator.jobs.test_job_lifecycle import Bench
from tests.unit.spool.spools import SETTINGS

MODEL = Signature("m:latest", ())
AT = 1_800_000_000.0


class Cluster(Bench):
    """Jobs of nine requests on one endpoint with two slots."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        settings = Settings.model_validate({"ollama_instances": {"gpu0": {"slots": 2}}})
        self.endpoints = Endpoints(settings, self.layout.jobs, Scheduler(), 0.0)
        self.jobs._endpoints, self.jobs._scheduler = self.endpoints, self.endpoints.scheduler
        self.endpoints.scheduler.on_probe("gpu0", {MODEL.model: "d"}, None, 0.0)
        self.forecaster = Forecaster(self.jobs, self.endpoints)
        self.now = 0.0

    def start(self, job: str, by: float = 0.0, uid: int = 1, window: list[str] | None = None) -> None:
        self.headers[job] = JobHeader(
            id=job,
            name=f"{job}.jsonl",
            uid=uid,
            by=by,
            requests=9,
            settings=replace(SETTINGS, window=window or []),
            signatures=(MODEL,),
        )
        self.jobs.take(self.headers[job])
        self.jobs.activate(9, 0.0)
        self.load_all()

    def measure(self, job: str, seconds: float, count: int = 5) -> None:
        for ordinal in range(count):
            self.jobs.running[job].note_work(ordinal, seconds)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.forecaster.tick(self.now, AT + self.now, 32)
            self.now += FORECAST_SECONDS

    def ends_in(self, job: str) -> float:
        """Return in how many seconds a job is expected to end, without the spread of its last requests."""
        ends_at = self.jobs.running[job].ends_at
        assert ends_at is not None
        return round(ends_at - AT)


def test_end_follows_from_the_jobs_own_speed_and_those_beside_it(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    made.start("a")
    made.look()
    assert (made.jobs.running["a"].ends_at, made.forecaster.all_end_at) == (None, None)

    made.measure("a", 100.0)
    made.look()
    assert made.ends_in("a") == pytest.approx(4 * 100 / 2, abs=5)
    made.start("b", uid=2)  # of the same profile: as long as those of a
    made.look(1)
    assert made.ends_in("a") == pytest.approx(4 * 100, abs=12)
    assert made.ends_in("b") == pytest.approx((9 + 4) * 100 / 2 + 50 * 1.18, abs=12)
    assert made.forecaster.paces == {"": 100.0}


def test_late_job_is_reported_once_as_an_event_and_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Cluster(tmp_path)
    made.start("a", by=AT + 3600)
    made.measure("a", 3600.0)

    made.look(10)

    (event,) = made.forecaster.take_events()
    assert (event.kind, event.job, event.uid, event.id) == (EventKind.DEADLINE, "a", 1, "evt_deadline_a")
    assert event.facts == {"name": "a.jsonl", "by": AT + 3600, "late_seconds": 3600 + 20}
    assert made.forecaster.troubles == [made.forecaster._watches["a"].describe("a.jsonl", AT + 45)]
    assert [record.levelname for record in caplog.records if record.__dict__.get("action") == "deadline_late"] == [
        "WARNING"
    ]
    view = made.jobs.running["a"].view(0.0)
    assert (view.by, view.ends_at is not None, view.late_seconds) == ("2027-01-15T09:00:00.000Z", True, 3645.0)
    made.look(3)
    assert made.forecaster.take_events() == []


def test_job_in_danger_goes_before_the_others_of_its_submitter_and_takes_nothing_from_anyone_else(
    tmp_path: Path,
) -> None:
    made = Cluster(tmp_path)
    made.start("other", uid=1)
    made.start("due", by=AT + 1200, uid=1)
    made.start("stranger", uid=2)
    for job in ("other", "due", "stranger"):
        made.measure(job, 150.0)

    made.look(3)

    ranks = {job: running.backlog.rank for job, running in made.jobs.running.items()}
    assert ranks["due"] > Rank(0, 100)
    assert ranks["other"] == ranks["stranger"] == Rank()
    assert made.jobs.running["due"].view(0.0).priority == 0
    assert made.ends_in("due") < made.ends_in("other")
    assert made.forecaster.take_events() == []


def test_priority_of_the_user_stays_what_it_was_when_the_danger_is_over(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    made.start("due", by=AT + 400)
    made.jobs.bind("due", JobControls(Rank(0, 7)))
    made.measure("due", 100.0)
    made.look()
    assert made.jobs.running["due"].backlog.rank.among_own > 100

    made.jobs.running["due"].note_work(5, 100.0)
    made.forecaster._watches["due"].by = AT + 40_000
    made.look()

    assert made.jobs.running["due"].backlog.rank == Rank(0, 7)
    assert made.jobs.running["due"].view(0.0).priority == 7


def test_deadline_without_any_known_speed_is_missed_when_it_passes(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    made.start("a", by=AT + 7)

    made.look(2)
    assert made.forecaster.take_events() == []
    made.look(1)

    assert len(made.forecaster.take_events()) == 1


def test_long_line_of_jobs_counts_as_a_whole_and_those_with_deadlines_one_by_one(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    made.start("a")
    made.measure("a", 100.0)
    for number in range(MOST_WAITING + 50):
        made.take(f"job{number}", uid=number % 2)
    due = JobHeader(id="due", name="due.jsonl", uid=1, by=AT + 1e6, requests=9, settings=SETTINGS, signatures=(MODEL,))
    made.jobs.take(due)

    made.look(2)

    assert made.forecaster.all_end_at == pytest.approx(AT + (4 + 9 * (MOST_WAITING + 51)) * 100 / 2, rel=0.02)
    assert made.jobs.foreseen["due"].ends_at is not None
    loads = list(made.forecaster._loads(0.0))
    assert len(loads) == 1 + MOST_WAITING + 1 + 2
    assert sum(load.requests for load in loads) == 4 + 9 * (MOST_WAITING + 51)


def test_job_that_is_complete_or_cancelled_misses_no_deadline(tmp_path: Path) -> None:
    made = Cluster(tmp_path)
    made.start("done", by=AT + 7)
    made.start("ended", by=AT + 7)
    made.jobs.running["done"].move(JobState.COMPLETE)
    made.jobs.bind("ended", JobControls(canceller=1))

    made.look(4)

    assert made.forecaster.take_events() == []
    assert made.forecaster.troubles == []
