"""How a host is, in one document: the plan, supervisor's word, and what the watch wrote; for `obcd host status`.

It works without the watch: then the servers and the cards are asked here and now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from obcd.clock import monotonic, wall
from obcd.host.cards.gpus import read_cards
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.supervisord.remote import ProcessState, Remote
from obcd.host.watch.probing import Prober, ServerProbe
from obcd.host.watch.watcher import FILE_NAME, PROGRAM, STALE_SECONDS
from obcd.spool.folders import disk

GONE = ProcessState(name="", state="UNKNOWN", pid=0, age_seconds=0.0, fault="supervisor does not know it")


def take_snapshot(plan: HostPlan, runtime: Path, remote: Remote) -> dict[str, Any]:
    """Return how the host is now.

    `{"runtime": "/run/obcd-host", "pid": 17, "status": "4/4 servers answer", "is_ready": true,
    "watch": {"state": "RUNNING", "pid": 19, "trouble": ""}, "servers": [{"gpu": "gpu0", …}]}`; a server as `_server`
    says.

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
        return f"the watch does not run ({state.state}): nothing restarts servers that hang"
    if document is None:
        return "the watch has only just started"
    age = wall() - float(document.get("updated", 0.0))
    if age > STALE_SECONDS:
        return f"the watch is stuck: it wrote nothing for {age:.0f} s"
    return ""


def _ask(plan: HostPlan) -> dict[str, Any]:
    """Return what the watch would have written about servers and cards, asked now."""
    probes = Prober({server.label: plan.url(server) for server in plan.servers}).ask_all()
    pins = [server.pin for server in plan.servers if server.pin]
    cards = read_cards(pins) if plan.vendor == "nvidia" and pins else {}
    return {
        "cards": {uuid: asdict(reading) for uuid, reading in cards.items()},
        "servers": {label: _asked(probe) for label, probe in probes.items()},
    }


def _asked(probe: ServerProbe) -> dict[str, Any]:
    facts = {"answer": probe.answer.value, "models": [asdict(model) for model in probe.models]}
    return {"version": probe.version, "facts": facts, "condition": {}, "alone_seconds": 0.0}


def _server(plan: HostPlan, server: Server, state: ProcessState, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return one server.

    `{"gpu": "gpu0", "label": "0", "uuid": "GPU-…", "card": "NVIDIA H100", "port": 11432, "url": "http://…",
    "state": "RUNNING", "pid": 21, "uptime_seconds": 12.0, "answer": "answers", "version": "0.33.0",
    "models": [{"name", "size_bytes", "vram_bytes", "context_length"}], "reading": {…} | null, "xids": [codes],
    "restarts": 1, "restart_log": [{"seconds_ago", "by", "reason"}], "alone_seconds": 0.0, "trouble": "", "remark": ""}`
    """
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


def _restart(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"seconds_ago": max(0.0, monotonic() - item["at"]), "by": item["by"], "reason": item["reason"]}
