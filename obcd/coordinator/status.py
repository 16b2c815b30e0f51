"""The snapshot that `obcd status` reads: counts and states, never a prompt or an answer."""

from __future__ import annotations

import os
from typing import Any

from obcd import __version__
from obcd.clock import timestamp, wall
from obcd.coordinator.jobs.running_job import JobState, time_to_go
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.reloading import MAX_TEXT
from obcd.core.endpoint.health import EndpointState
from obcd.text import duration, join_lines, printable

FORMAT = 1


#: Files on their way that are named.
MOST_SETTLING = 100


def snapshot(coordinator: Coordinator, now: float, *, takes_reloads: bool = False) -> dict[str, Any]:
    """Return the document of `status.json`.

    Args:
        takes_reloads: Whether SIGHUP has it read its configuration again; it ends what does not.

    Example: `{"format": 1, "pid": 812, "state": "READY", "jobs": [...], "endpoints": [...], "waiting": [...],
    "rejected": [{"file": …, "folder": …, "why": …}], "published": [...], "troubles": [], "reloads": [...],
    "updated": 1795373853.2, …}`; an entry of `jobs` is as in `progress.json` (`further_jobs` only names those behind
    them in line), one of `reloads` is `{"number": 3, "began": 8123.25, "at": "2026-…Z", "is_ok": true,
    "text": "1 endpoint came", "exit_code": 0}`, the newest last.
    """
    eta, odd, unfit = _time_to_go(coordinator), coordinator.scheduler.odd(), coordinator.scheduler.unfit()
    return {
        "format": FORMAT,
        "version": __version__,
        "pid": os.getpid(),
        "root": str(coordinator.layout.root),
        "inbox": str(coordinator.layout.inbox),
        "outbox": str(coordinator.layout.outbox),
        "per_user": coordinator.layout.per_user,
        "state": _state(coordinator),
        "updated": round(wall(), 3),
        "updated_at": timestamp(wall()),
        "troubles": coordinator.troubles(),
        "notes": coordinator.notes,
        "takes_reloads": takes_reloads,
        "reloads": list(coordinator.reloads),
        "eta_seconds": None if eta is None else round(eta, 1),
        "jobs": [job.report(now, coordinator.obstacle) for job in coordinator.jobs.running.values()]
        + coordinator.jobs.reports(),
        "further_jobs": coordinator.jobs.further(),
        "endpoints": [
            {
                **_endpoint(coordinator, item.name, now),
                "left_out": sorted({*odd.get(item.name, ()), *unfit.get(item.name, ())}),
            }
            for item in coordinator.endpoints.members
        ],
        "pulls": coordinator.endpoints.fetcher.reports(),
        "settling": [printable(key.name) for key in coordinator.settling[:MOST_SETTLING]],
        "waiting": [
            {"file": printable(f"{key.profile}/{key.name}" if key.profile else key.name), "why": why}
            for key, why in coordinator.waiting.items()
        ],
        "rejected": coordinator.rejected,
        "published": [
            {
                "job": item.header.id,
                "name": item.header.label,
                "folder": str(item.folder),
                "responses": item.responses,
                "failures": item.failures,
            }
            for item in coordinator.jobs.published
        ],
        "processes": coordinator.pids(),
    }


def status_line(coordinator: Coordinator) -> str:
    """Return one line for `systemctl status`, troubles first.

    Example: `2 jobs, 41 % of 1000 requests, 12 min to go, 3/4 endpoints up`.
    """
    troubles = coordinator.troubles()
    parts = [join_lines("; ".join(troubles), MAX_TEXT)] if troubles else []
    return "; ".join([*parts, ", ".join(_progress(coordinator))])


def _progress(coordinator: Coordinator) -> list[str]:
    if not coordinator.is_recovered:
        return ["recovering"]
    if coordinator.is_draining:
        return [f"stopping: {coordinator.endpoints.in_flight} requests in flight may finish"]
    headers = coordinator.unfinished()
    if not headers:
        return ["no jobs", *_endpoints_up(coordinator)]
    total = sum(header.requests for header in headers)
    done = sum(job.counts.done for job in coordinator.jobs.running.values())
    count = f"{len(headers)} job{'s' if len(headers) > 1 else ''}"
    eta = _time_to_go(coordinator)
    to_go = [f"{_about(eta)} to go"] if eta is not None else []
    return [count, f"{100 * done // max(1, total)} % of {total} requests", *to_go, *_endpoints_up(coordinator)]


def _endpoints_up(coordinator: Coordinator) -> list[str]:
    endpoints = coordinator.endpoints
    staying = [item.name for item in endpoints.members if item.name not in endpoints.leaving]
    states = [coordinator.scheduler.health(name).state for name in staying]
    leaving = [f"{len(endpoints.leaving)} leaving"] if endpoints.leaving else []
    return [f"{states.count(EndpointState.UP)}/{len(states)} endpoints up", *leaving]


def _time_to_go(coordinator: Coordinator) -> float | None:
    """Return how long all takes that is going on; what is paused takes no time until it goes on."""
    jobs = coordinator.jobs
    waiting = sum(header.requests for header in jobs.accepted.values() if not jobs.is_paused(header.id))
    going = [job for job in jobs.running.values() if job.state is not JobState.PAUSED]
    return time_to_go(going, waiting, coordinator.endpoints.in_flight)


def _about(seconds: float) -> str:
    """Return a span as one looks at it from afar: `42 s`, `12 min`, `2 h 05 min`."""
    return duration(seconds) if seconds < 60 or seconds >= 3600 else f"{round(seconds / 60)} min"


def _state(coordinator: Coordinator) -> str:
    if coordinator.is_draining:
        return "DRAINING"
    return "READY" if coordinator.is_recovered else "STARTING"


def _endpoint(coordinator: Coordinator, name: str, now: float) -> dict[str, Any]:
    item = next(endpoint for endpoint in coordinator.endpoints.members if endpoint.name == name)
    health, figures = coordinator.scheduler.health(name), coordinator.endpoints.figures[name]
    return {
        "name": name,
        "url": item.url,
        "gpu": item.gpu,
        "slots": coordinator.scheduler.slots(name),
        "finds_slots": item.slots is None,
        "in_flight": coordinator.scheduler.in_flight(name),
        "state": health.state,
        "reason": health.reason,
        "version": figures.version,
        "models": sorted(coordinator.scheduler.models(name) or ()),
        "answered": figures.answered,
        "faults": figures.faults,
        "tokens_per_second": round(figures.tokens.per_second(now), 1),
    }
