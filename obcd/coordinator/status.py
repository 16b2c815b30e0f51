"""The snapshot that `obcd status` reads: counts and states, never a prompt or an answer."""

from __future__ import annotations

import os
from typing import Any

from obcd import __version__
from obcd.clock import timestamp, wall
from obcd.coordinator.coordinator import Coordinator
from obcd.coordinator.running import JobState
from obcd.core.health import EndpointState
from obcd.logs import printable

FORMAT = 1


def snapshot(coordinator: Coordinator, now: float) -> dict[str, Any]:
    """Return the document of `status.json`.

    Example: `{"format": 1, "pid": 812, "state": "READY", "jobs": [...], "endpoints": [...], "waiting": [...],
    "published": [...], "troubles": [], "updated": 1795373853.2, …}`; an entry of `jobs` is as in `progress.json`.
    """
    return {
        "format": FORMAT,
        "version": __version__,
        "pid": os.getpid(),
        "root": str(coordinator.layout.root),
        "inbox": str(coordinator.layout.inbox),
        "outbox": str(coordinator.layout.outbox),
        "state": _state(coordinator),
        "updated": round(wall(), 3),
        "updated_at": timestamp(wall()),
        "troubles": coordinator.troubles(),
        "jobs": [job.report(now) for job in coordinator.running.values()] + _accepted(coordinator),
        "endpoints": [_endpoint(coordinator, item.name, now) for item in coordinator.fleet.endpoints],
        "settling": [printable(key.name) for key in coordinator.settling],
        "waiting": [
            {"file": printable(f"{key.profile}/{key.name}" if key.profile else key.name), "why": why}
            for key, why in coordinator.waiting.items()
        ],
        "published": [
            {
                "job": item.header.id,
                "name": item.header.label,
                "folder": str(item.folder),
                "responses": item.responses,
                "failures": item.failures,
            }
            for item in coordinator.published
        ],
        "processes": coordinator.pids(),
    }


def status_line(coordinator: Coordinator, now: float) -> str:
    """Return one line for `systemctl status`, e.g. `2 jobs, 41 % of 1000 requests, 3/4 endpoints up`."""
    jobs = list(coordinator.running.values())
    total, done = sum(job.header.requests for job in jobs), sum(job.counts.done for job in jobs)
    states = [coordinator.scheduler.health(item.name).state for item in coordinator.fleet.endpoints]
    endpoints = f"{states.count(EndpointState.UP)}/{len(states)} endpoints up"
    if not jobs:
        return f"no jobs, {endpoints}"
    count = f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}"
    return f"{count}, {100 * done // max(1, total)} % of {total} requests, {endpoints}"


def _state(coordinator: Coordinator) -> str:
    if coordinator.is_draining:
        return "DRAINING"
    return "READY" if coordinator.is_recovered else "STARTING"


def _accepted(coordinator: Coordinator) -> list[dict[str, Any]]:
    return [
        {
            "job": header.id,
            "name": header.name,
            "profile": header.profile,
            "drop_id": header.drop_id,
            "uid": header.uid,
            "state": JobState.ACCEPTED,
            "total": header.requests,
            "done": 0,
            "failed": 0,
            "cut_short": 0,
            "tokens_per_second": 0.0,
            "requests_per_second": 0.0,
            "work_seconds": 0.0,
            "eta_seconds": None,
            "trouble": "",
        }
        for header in coordinator.accepted
    ]


def _endpoint(coordinator: Coordinator, name: str, now: float) -> dict[str, Any]:
    item = next(endpoint for endpoint in coordinator.fleet.endpoints if endpoint.name == name)
    health, figures = coordinator.scheduler.health(name), coordinator.fleet.figures[name]
    return {
        "name": name,
        "url": item.url,
        "gpu": item.gpu,
        "slots": item.slots,
        "in_flight": coordinator.scheduler.in_flight(name),
        "state": health.state,
        "reason": health.reason,
        "version": figures.version,
        "models": sorted(coordinator.scheduler.models(name) or ()),
        "answered": figures.answered,
        "faults": figures.faults,
        "tokens_per_second": round(figures.tokens.per_second(now), 1),
    }
