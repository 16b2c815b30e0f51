"""The line that systemd shows: jobs, percent, time to go, endpoints; troubles first."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.disk_watch import PAUSED
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.jobs.window_keeper import WAITS
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.showing.status_line import MAX_TEXT, status_line
from obcd.coordinator.view import ReloadView
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from tests.golden.wording import wording
from tests.unit.coordinator.jobs.test_running_job import job
from tests.unit.spool.spools import SETTINGS


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """Yield a coordinator of four endpoints, three of them up, that was not started."""
    settings = Settings.model_validate({"ollama_instances": {"a": 0, "b": 0, "c": 0, "d": 0}})
    made = Coordinator(settings, Layout.at(tmp_path / "root"))
    for name in "abc":
        made.scheduler.on_probe(name, {}, None, 0.0)
    made.is_recovered = True
    yield made
    made._recorder.stop(5)


def line(coordinator: Coordinator) -> str:
    return status_line(coordinator.view(0.0))


def fail_reload(coordinator: Coordinator, trouble: str) -> None:
    reload = ReloadView(number=1, began=0.0, is_ok=False, text=trouble, exit_code=4)
    coordinator.record_reload(reload, trouble)


def test_before_it_is_ready_it_recovers(coordinator: Coordinator) -> None:
    coordinator.is_recovered = False

    assert line(coordinator) == "recovering"


def test_without_an_endpoint_it_waits_for_a_host(tmp_path: Path) -> None:
    settings = Settings.model_validate({"cluster": {"hosts": "/hosts"}})
    made = Coordinator(settings, Layout.at(tmp_path / "root"))
    made.is_recovered = True

    view = made.view(0.0)

    assert status_line(view) == f"no jobs, {wording('waiting-for-a-host')}"
    assert (view.troubles, len(view.notes)) == ((), 1)
    made._recorder.stop(5)


def test_without_jobs_the_endpoints_are_told(coordinator: Coordinator) -> None:
    assert line(coordinator) == "no jobs, 3/4 endpoints up"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.1, "7 s"), (8.0, "9 min"), (50.0, "57 min"), (111.0, "2 h 05 min")], ids=str
)
def test_jobs_percent_and_time_to_go(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, seconds: float, told: str
) -> None:
    coordinator.jobs.running["j"] = job(500, 410, seconds)
    header = coordinator.jobs.running["j"].header
    coordinator.jobs.take(JobHeader(id="k", name="k.jsonl", requests=500, settings=header.settings))
    monkeypatch.setattr(Endpoints, "calls_in_flight", 590 / 68)

    assert line(coordinator) == wording("2-jobs-41-of-1000-requests", told)
    eta = coordinator.view(0.0).eta_seconds
    assert eta == pytest.approx(68 * seconds, abs=0.1)


def test_time_to_go_is_left_out_while_nothing_is_in_flight(coordinator: Coordinator) -> None:
    coordinator.jobs.running["j"] = job(500, 410, 1.0)

    assert line(coordinator) == "1 job, 82 % of 500 requests, 3/4 endpoints up"


def test_endpoint_that_is_leaving_is_told_apart(coordinator: Coordinator) -> None:
    coordinator.scheduler.endpoint("a").drain(1.0)
    coordinator.endpoints.leaving.add("a")

    assert line(coordinator) == "no jobs, 2/3 endpoints up, 1 leaving"


def test_troubles_come_first_in_one_line_that_is_not_too_long(coordinator: Coordinator) -> None:
    fail_reload(coordinator, "reload failed: it\nhas two lines")
    assert line(coordinator) == "reload failed: it; has two lines; no jobs, 3/4 endpoints up"

    fail_reload(coordinator, "x" * 9000)
    assert len(line(coordinator)) < MAX_TEXT + 100


def test_stop_tells_what_may_finish(coordinator: Coordinator) -> None:
    coordinator.drain()

    assert line(coordinator) == wording("stopping-0-requests-in-flight-may")


def test_outage_is_told_with_each_job_and_first_of_all(coordinator: Coordinator) -> None:
    coordinator.jobs.running["j"] = job(500, 410, 1.0)
    for name in "abcd":
        coordinator.scheduler.on_probe(name, None, "connection refused", 0.0)
    trouble = "no endpoint is up: a: connection refused; and 3 more"

    coordinator.layout.create([])
    coordinator._progress_folders.show(coordinator.jobs.running.values(), dict, 0.0, coordinator.presenter.obstacles)
    coordinator._progress_folders.finish(10.0)
    view = coordinator.view(0.0)

    assert [item.trouble for item in view.jobs] == [trouble]
    assert view.troubles == (trouble,)
    assert line(coordinator).startswith(f"{trouble}; 1 job, ")
    (shown,) = coordinator.layout.outbox.rglob("progress.json")
    assert json.loads(shown.read_bytes())["trouble"] == trouble


def test_job_that_waits_for_a_model_says_so(coordinator: Coordinator) -> None:
    coordinator.jobs.running["j"] = stuck = job(500, 410, 1.0)
    coordinator.scheduler.add_job(stuck.backlog, 0.0)
    for name in "abcd":
        coordinator.scheduler.on_probe(name, {}, None, 0.0)
    coordinator.scheduler.take_unservable(0, 0.0)

    (view,) = coordinator.view(0.0).jobs

    assert view.trouble == coordinator.view(0.0).troubles[0]
    assert view.trouble.startswith("no endpoint has the model")


def test_want_of_room_is_told_with_each_job_and_first_of_all(coordinator: Coordinator) -> None:
    coordinator.jobs.running["j"] = job(500, 410, 1.0)
    coordinator._disk_watch.refuse(OSError(errno.EDQUOT, "Disk quota exceeded"))
    coordinator._disk_watch.tick(0.0)
    trouble = f"results cannot be recorded: Disk quota exceeded; {PAUSED}"

    view = coordinator.view(0.0)

    assert [item.trouble for item in view.jobs] == list(view.troubles) == [trouble]
    assert line(coordinator).startswith(f"{trouble}; 1 job, ")


def test_job_that_waits_for_its_window_says_until_when(coordinator: Coordinator) -> None:
    at = time.time()
    hours = [time.strftime("%H:00", time.localtime(at + hours * 3600)) for hours in (2, 3)]
    settings = replace(SETTINGS, window=["-".join(hours)])
    coordinator.jobs.take(JobHeader(id="a", name="a.jsonl", requests=9, settings=settings))

    coordinator._window_keeper.tick(0.0, at)

    assert f"0 % of 9 requests, a.jsonl {WAITS}, {hours[0]}, " in line(coordinator)


def test_job_that_is_late_comes_first(coordinator: Coordinator) -> None:
    coordinator.jobs.take(JobHeader(id="a", name="a.jsonl", requests=9, by=time.time() - 60.0, settings=SETTINGS))

    coordinator._forecaster.tick(0.0, time.time(), 32)

    by = time.strftime("%H:%M", time.localtime(time.time() - 60.0))
    assert line(coordinator).startswith(wording("a-jsonl-has-missed", by))
