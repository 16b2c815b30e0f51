"""Endpoints and jobs are opened and closed by the clock on the wall; no process is started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.endpoints.changes import compare
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.jobs import window_keeper
from obcd.coordinator.jobs.running_job import no_obstacle
from obcd.coordinator.jobs.window_keeper import WindowKeeper
from obcd.coordinator.view import JobState
from obcd.core.endpoint.faults import attempt_cancelled
from obcd.core.request.records import Signature
from obcd.core.scheduling.holder import CLOSED
from obcd.core.scheduling.scheduler import Scheduler
from obcd.spool.job.job_folder import JobHeader
from obcd.workers.messages import Cancel
from tests.golden.wording import wording
from tests.unit.coordinator.jobs.test_job_lifecycle import Bench
from tests.unit.spool.spools import SETTINGS

BERLIN = ZoneInfo("Europe/Berlin")
MODEL = Signature("m:latest", ())
NIGHTS = ["mon-fri 20:00-07:00"]
DAY = datetime(2026, 12, 1, 12, 0, tzinfo=BERLIN).timestamp()
NIGHT = DAY + 9 * 3600
#: The monotonic clock of a machine that started at some time.
BOOT = DAY - 5000.0


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    window_keeper.windows_of.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    window_keeper.windows_of.cache_clear()


class Nights(Bench):
    """A job with windows, on endpoints that have its model."""

    def __init__(self, root: Path, window: list[str], instances: dict[str, Any] | None = None) -> None:
        super().__init__(root)
        self.settings = Settings.model_validate({"ollama_instances": instances or {"gpu0": {"slots": 2}}})
        self.endpoints = Endpoints(self.settings, self.layout.jobs, Scheduler(), 0.0)
        self.jobs._endpoints, self.jobs._scheduler = self.endpoints, self.endpoints.scheduler
        for name in self.settings.ollama_instances:
            self.endpoints.scheduler.on_probe(name, {MODEL.model: "d"}, None, 0.0)
        self.keeper = WindowKeeper(self.jobs, self.endpoints)
        self.sent: list[tuple[str, object]] = []
        self.endpoints.pool.send = lambda name, message: self.sent.append((name, message))  # type: ignore[assignment]
        self.headers["night"] = JobHeader(
            id="night", name="night.jsonl", requests=9, settings=replace(SETTINGS, window=window), signatures=(MODEL,)
        )
        self.jobs.take(self.headers["night"])

    def tick(self, at: float, *, boot: float = BOOT) -> float:
        """Do what the main loop does in a tick; return when the next window opens or closes, in Unix seconds."""
        until = self.keeper.tick(at - boot, at)
        self.jobs.activate(4, at - boot)
        self.load_all()
        self.keeper.tick(at - boot, at)
        self.endpoints.dispatch(at - boot)
        return until + boot

    @property
    def asks(self) -> int:
        return sum(not isinstance(message, Cancel) for _, message in self.sent)


def test_job_waits_for_its_window_without_being_active(tmp_path: Path) -> None:
    made = Nights(tmp_path, NIGHTS)

    until = made.tick(DAY)

    (view,) = made.jobs.views(0.0, no_obstacle)
    assert (view.state, view.trouble) == (JobState.ACCEPTED, wording("waits-for-its-window-20-00"))
    assert made.keeper.notes() == [f"night.jsonl {wording('waits-for-its-window-20-00')}"]
    assert (made.asks, until) == (0, DAY + 8 * 3600)
    made.tick(until)
    assert made.asks == 2
    assert made.jobs.views(0.0, no_obstacle)[0].trouble == ""


def test_requests_in_flight_at_the_end_are_aborted_and_sent_again(tmp_path: Path) -> None:
    made = Nights(tmp_path, NIGHTS)
    made.tick(NIGHT)
    end = NIGHT + 10 * 3600  # 07:00
    backlog = made.jobs.running["night"].backlog

    made.tick(end - 1)
    assert not any(isinstance(message, Cancel) for _, message in made.sent)
    made.tick(end)
    assert made.sent[-2:] == [("gpu0", Cancel(1)), ("gpu0", Cancel(2))]
    for ticket in (1, 2):
        made.endpoints.scheduler.faulted(ticket, "gpu0", attempt_cancelled(), end + 1 - BOOT)
    made.tick(end + 2)

    assert (backlog.unfinished, backlog.attempts, backlog.closes_at, made.asks) == (9, {}, CLOSED, 2)
    made.tick(NIGHT + 86400)
    assert made.asks == 4


def test_answer_that_comes_just_in_time_counts(tmp_path: Path) -> None:
    made = Nights(tmp_path, NIGHTS)
    made.tick(NIGHT)
    made.tick(NIGHT + 10 * 3600)

    lease = made.endpoints.scheduler.answered(1, "gpu0", NIGHT + 10 * 3600 - BOOT)

    assert lease is not None
    assert made.jobs.running["night"].backlog.unfinished == 8


def test_endpoint_waits_for_its_window_and_others_do_the_work(tmp_path: Path) -> None:
    made = Nights(tmp_path, [], {"gpu0": {"slots": 1}, "workstation": {"slots": 4, "window": NIGHTS[0]}})

    made.tick(DAY)

    assert {name for name, _ in made.sent} == {"gpu0"}
    assert [view.left_out for view in made.endpoints.views(0.0)] == [(), (wording("waits-for-its-window-20-00"),)]
    assert made.endpoints.window_wait == ""
    made.tick(NIGHT)
    assert {name for name, _ in made.sent} == {"gpu0", "workstation"}


def test_cluster_whose_endpoints_all_wait_says_so_at_each_job(tmp_path: Path) -> None:
    made = Nights(tmp_path, [], {"gpu0": {"slots": 1, "window": NIGHTS}, "gpu1": {"window": "20:00-21:00"}})

    made.tick(DAY)

    assert (made.asks, made.endpoints.window_wait) == (0, wording("waits-for-its-window-20-00"))


def test_reload_changes_the_window_of_an_endpoint_at_once(tmp_path: Path) -> None:
    made = Nights(tmp_path, [], {"gpu0": {"slots": 1}})
    made.tick(DAY)
    new = Settings.model_validate({"ollama_instances": {"gpu0": {"slots": 1, "window": NIGHTS}}})

    made.endpoints.apply(compare(made.settings, new), new, DAY + 1 - BOOT)
    made.tick(DAY + 1)

    assert made.sent[-1] == ("gpu0", Cancel(1))


@pytest.mark.parametrize("jump", [8 * 3600.0, -16 * 3600.0])
def test_clock_that_is_set_opens_and_closes_windows(tmp_path: Path, jump: float) -> None:
    made = Nights(tmp_path, NIGHTS)
    made.tick(DAY)

    until = made.tick(DAY + 1 + jump, boot=BOOT + jump)

    assert made.asks == 2
    assert made.jobs.running["night"].backlog.closes_at == until - (BOOT + jump)
    made.tick(DAY + 2)  # and back
    assert made.sent[-1] == ("gpu0", Cancel(2))


def test_jobs_that_wait_keep_no_other_job_from_being_active(tmp_path: Path) -> None:
    made = Nights(tmp_path, NIGHTS)
    made.tick(NIGHT)
    made.tick(NIGHT + 11 * 3600)
    made.take("day")

    made.jobs.activate(1, 0.0)

    assert made.clerk.calls == [made.load("day")]


def test_nothing_is_looked_at_between_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Nights(tmp_path, NIGHTS)
    made.tick(DAY)

    def look(at: float) -> None:
        raise AssertionError(at)

    monkeypatch.setattr(made.keeper, "_look", look)
    for second in range(1, 60):
        assert made.keeper.tick(DAY + second - BOOT, DAY + second + 0.001) == DAY + 8 * 3600 - BOOT
