"""Is this machine the GPU host that `[host]` describes: its cards, address, ports and servers? Changes nothing.

[host] + cards ─► Plan, as `obcd host` would make it ─► findings
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from obcd.config.loading import SYSTEM_CONFIGURATION
from obcd.config.settings import Host, Settings
from obcd.errors import InputError, ObcdError
from obcd.host.gpus import discover
from obcd.host.locks import HOST_LOCK
from obcd.host.plan import SYSTEM_RUNTIME, Plan, find_runtime, read_plan
from obcd.host.planning import make_plan
from obcd.ollama.control import probe_all
from obcd.reports.findings import Finding, fault, note, right, warning
from obcd.reports.locks import lock_holders

#: Where `systemctl enable` puts its links, systemd.unit(5).
UNITS = Path("/etc/systemd/system")
SUBJECT = "host"


def is_enabled(unit: str, units: Path = UNITS) -> bool:
    """Tell whether a unit is started with the machine."""
    return any(os.path.lexists(wants / unit) for wants in units.glob("*.wants"))


def is_gpu_host(settings: Settings, units: Path = UNITS) -> bool:
    """Tell whether servers run here, are to run here, or could: on a machine with obcd, Ollama and cards.

    An installed configuration holds every key of `[host]` with its default, so only one that differs says anything.
    """
    if settings.host != Host() or is_enabled("obcd-host.service", units) or SYSTEM_RUNTIME.is_dir():
        return True
    is_installed = settings.source == SYSTEM_CONFIGURATION
    return is_installed and shutil.which(settings.host.ollama) is not None and _has_cards()


def _has_cards() -> bool:
    try:
        return bool(discover())
    except ObcdError:
        return False


def examine_host(settings: Settings) -> list[Finding]:
    """Follow `[host]` as `obcd host` would, up to the point where it starts something."""
    try:
        plan = make_plan(settings)
    except ObcdError as error:
        return [fault(SUBJECT, str(error))]
    servers = ", ".join(f"{server.program} on port {server.port}" for server in plan.servers)
    return [right(SUBJECT, f"[host]: {servers} of {plan.bind}"), *_judge_address(plan)]


def _judge_address(plan: Plan) -> Iterator[Finding]:
    why = _bind_fault(plan.bind, 0)
    if why:
        remedy = "ip -brief address  # shows the addresses that this machine has"
        yield fault(SUBJECT, f'[host] bind = "{plan.bind}": {why}', remedy)
        return
    is_running, running = _running_plan()
    if is_running:
        yield from _judge_running(plan, running)
    else:
        yield from _judge_ports(plan)


def _bind_fault(address: str, port: int) -> str:
    """Return why nothing can listen there, "" when something can."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):  # an empty or endless label is no name for IDNA
        return "this machine knows no host of that name"
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: old connections do not count
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return "that is no address of this machine"
        return f"nothing can listen there: {error.strerror}"
    return ""


def _judge_ports(plan: Plan) -> Iterator[Finding]:
    """Look for ports that somebody else holds, while none of our servers runs."""
    for server in plan.servers:
        why = _bind_fault(plan.bind, server.port)
        if why:
            text = f"{server.program} is to listen on port {server.port} of {plan.bind}, and {why}"
            yield fault(SUBJECT, text, f"sudo ss -ltnp 'sport = :{server.port}'  # shows who holds it")
    if is_enabled("obcd-host.service"):
        yield warning(
            SUBJECT,
            "obcd-host.service is enabled and does not run",
            "sudo systemctl start obcd-host; journalctl -u obcd-host",
        )
    else:
        yield note(SUBJECT, "obcd host does not run yet", "sudo systemctl enable --now obcd-host  # or: obcd host")


def _running_plan() -> tuple[bool, Plan | None]:
    """Tell whether a host runs here, and what it decided; None for the plan when we may not read it."""
    try:
        runtime = find_runtime()
        if lock_holders(runtime / HOST_LOCK):
            return True, read_plan(runtime)
    except InputError:
        return SYSTEM_RUNTIME.is_dir(), None
    return runtime == SYSTEM_RUNTIME and runtime.is_dir() and not _may_enter(runtime), None


def _may_enter(folder: Path) -> bool:
    return os.access(folder, os.X_OK)


def _judge_running(plan: Plan, running: Plan | None) -> Iterator[Finding]:
    found = running or plan
    probes = probe_all([found.url(server) for server in found.servers])
    silent = [server.program for server, probe in zip(found.servers, probes, strict=True) if probe.failure]
    text = f"obcd host runs: {len(probes) - len(silent)}/{len(probes)} servers answer"
    if silent:
        yield warning(SUBJECT, f"{text}, not {', '.join(silent)}", "obcd host status")
    else:
        yield right(SUBJECT, text)
    if running is not None and _essence(running) != _essence(plan):
        yield note(SUBJECT, "obcd host runs with another [host] than this one", "sudo systemctl restart obcd-host")


def _essence(plan: Plan) -> dict[str, Any]:
    """Return what a restart would change; the home folder and where `ollama` was found go by who asks."""
    essence = asdict(plan)
    del essence["ollama"]
    for server in essence["servers"]:
        server["variables"].pop("HOME", None)
    return essence
