"""The state of a host in one document, for `obcd host status`: the plan, supervisor's states, and the watch's file.

It also works without the watch: then it probes the servers and reads the cards itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from obcd.clock import monotonic, wall
from obcd.host.cards.gpus import read_cards
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.supervisord.remote import ProcessState, Remote
from obcd.host.watch.probing import Prober, ServerProbe
from obcd.host.watch.watch_file import FILE_NAME, STALE_SECONDS
from obcd.host.watch.watcher import PROGRAM
from obcd.spool.folders import disk

GONE = ProcessState(state="UNKNOWN", pid=0, age_seconds=0.0, fault="supervisor does not know it")


class ModelShown(TypedDict):
    """A model that a server has loaded."""

    name: str
    size_bytes: int
    vram_bytes: int
    context_length: int


class ReadingShown(TypedDict, total=False):
    """The known state of a card: the fields of `Readings`."""

    uuid: str
    index: int
    is_lost: bool
    utilisation_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    power_watts: float | None
    energy_joules: float | None
    ecc_uncorrected: int | None
    throttle: Sequence[str]


class RestartShown(TypedDict):
    """A restart; `by` is `watch`, `supervisor` or `person`."""

    seconds_ago: float
    by: str
    reason: str


class XidShown(TypedDict):
    """A fault that the driver reported, e.g. code 79 at `2026-11-22T18:00:00Z`."""

    uuid: str
    code: int
    at: str


class ServerShown(TypedDict):
    """One server, e.g. `gpu0` with label `0`; `uuid` and `card` are "" if it has no card."""

    gpu: str
    label: str
    uuid: str
    card: str
    port: int
    url: str
    state: str
    pid: int
    uptime_seconds: float
    answer: str
    version: str
    models: list[ModelShown]
    reading: ReadingShown | None
    xids: list[int]
    restarts: int
    restart_log: list[RestartShown]
    alone_seconds: float
    trouble: str
    remark: str


class WatchShown(TypedDict):
    """The watch, e.g. `{"state": "RUNNING", "pid": 19, "trouble": ""}`."""

    state: str
    pid: int
    trouble: str


class Snapshot(TypedDict):
    """A host, e.g. with the status `4/4 servers answer`."""

    runtime: str
    pid: int
    status: str
    is_ready: bool
    watch: WatchShown
    servers: list[ServerShown]
    xids: list[XidShown]


def take_snapshot(plan: HostPlan, runtime: Path, remote: Remote) -> Snapshot:
    """Return the present state of the host.

    Raises:
        NoEndpointError: If no host runs there.
        TimedOutError: If supervisord hangs.
    """
    states, pid = remote.states(), remote.supervisor_pid()
    watch = states.get(PROGRAM, GONE)
    written = _read_watch(runtime)
    trouble = _watch_trouble(watch, written)
    if trouble:
        written = {**(written or {}), **_ask(plan)}
    document = written or {}
    return {
        "runtime": str(runtime),
        "pid": pid,
        "status": "" if trouble else document.get("status", ""),
        "is_ready": bool(document.get("is_ready")),
        "watch": {"state": watch.state, "pid": watch.pid, "trouble": trouble},
        "servers": [_server(plan, item, states.get(item.program, GONE), document) for item in plan.servers],
        "xids": document.get("xids", []),
    }


def _read_watch(runtime: Path) -> dict[str, Any] | None:
    try:
        document = disk.read_json(runtime / FILE_NAME)
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _watch_trouble(state: ProcessState, document: Mapping[str, Any] | None) -> str:
    if state.pid == 0:
        return f"the watch does not run ({state.state}): servers that hang are not restarted"
    if document is None:
        return "the watch has just started"
    age = wall() - float(document.get("updated", 0.0))
    if age > STALE_SECONDS:
        return f"the watch is stuck: it has written nothing for {age:.0f} s"
    return ""


def _ask(plan: HostPlan) -> dict[str, object]:
    """Return what the watch would have written about servers and cards, found now."""
    probes = Prober({server.label: plan.url(server) for server in plan.servers}).ask_all()
    pins = [server.pin for server in plan.servers if server.pin]
    cards = read_cards(pins) if plan.vendor == "nvidia" and pins else {}
    return {
        "cards": {uuid: asdict(reading) for uuid, reading in cards.items()},
        "servers": {label: _asked(probe) for label, probe in probes.items()},
    }


def _asked(probe: ServerProbe) -> dict[str, object]:
    facts = {"answer": probe.answer.value, "models": [asdict(model) for model in probe.models]}
    return {"version": probe.version, "facts": facts, "condition": {}, "alone_seconds": 0.0}


def _server(plan: HostPlan, server: Server, state: ProcessState, document: Mapping[str, Any]) -> ServerShown:
    """Return one server, with its entry in `watch.json`."""
    seen = document.get("servers", {}).get(server.label, {})
    facts, condition = seen.get("facts", {}), seen.get("condition", {})
    is_alive = state.pid != 0
    return {
        "gpu": server.program, "label": server.label, "uuid": server.pin, "card": server.card,
        "port": server.port, "url": plan.url(server),
        "state": state.state, "pid": state.pid, "uptime_seconds": state.age_seconds if is_alive else 0.0,
        "answer": facts.get("answer", "") if is_alive else "",
        "version": seen.get("version", "") if is_alive else "",
        "models": facts.get("models", []) if is_alive else [],
        "reading": document.get("cards", {}).get(server.pin),
        "xids": [item["code"] for item in document.get("xids", []) if item["uuid"] == server.pin],
        "restarts": condition.get("restart_count", 0),
        "restart_log": [_restart(item) for item in condition.get("restarts", [])],
        "alone_seconds": seen.get("alone_seconds", 0.0),
        "trouble": condition.get("trouble", "") or state.fault,
        "remark": condition.get("remark", ""),
    }  # fmt: skip


def _restart(item: Mapping[str, Any]) -> RestartShown:
    return {"seconds_ago": max(0.0, monotonic() - item["at"]), "by": item["by"], "reason": item["reason"]}
