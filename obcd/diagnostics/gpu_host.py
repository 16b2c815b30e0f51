"""Check this machine against `[host]`: cards, address, ports and servers. It changes nothing.

[host] + cards ─► Plan, as `obcd host` would make it ─► findings
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from obcd.config.settings import Settings
from obcd.config.tables import Host
from obcd.diagnostics.findings import Finding, fault, note, right, warning
from obcd.errors import ConfigurationError, InputError, ObcdError
from obcd.host.cards.gpus import discover
from obcd.host.servers.binding import check_address
from obcd.host.servers.launcher import held_ports
from obcd.host.servers.locks import is_host_alive
from obcd.host.servers.plan import SYSTEM_RUNTIME, HostPlan, read_plan
from obcd.host.servers.planning import make_plan
from obcd.host.servers.ports import host_of
from obcd.host.servers.runtime import folder_that_runs
from obcd.ollama.control import probe_all
from obcd.spool.folders.permissions import shown
from obcd.system_paths import SYSTEM_CONFIGURATION

#: Where `systemctl enable` puts its links, systemd.unit(5).
UNITS = Path("/etc/systemd/system")
SUBJECT = "host"


def is_enabled(unit: str, units: Path = UNITS) -> bool:
    """Return whether a unit is started with the machine."""
    return any(os.path.lexists(wants / unit) for wants in units.glob("*.wants"))


def is_gpu_host(settings: Settings, units: Path = UNITS) -> bool:
    """Return whether this machine is a GPU host: servers run, are configured, or could run (obcd, Ollama and cards).

    An installed configuration holds every key of `[host]` with its default, so only a different value counts.
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


def _judge_address(plan: HostPlan) -> Iterator[Finding]:
    try:
        check_address(plan.bind)
    except ConfigurationError as error:
        yield fault(SUBJECT, str(error))
        return
    runtime = _find_folder()
    is_alive = is_host_alive(runtime)
    if is_alive is False:
        yield from _judge_ports(plan, runtime)
    else:
        yield from _judge_running(plan, _read_plan(runtime) if is_alive else None, runtime)


def _find_folder() -> Path:
    try:
        return folder_that_runs()
    except InputError:  # another user made this user's folder: this user's host does not use it
        return SYSTEM_RUNTIME


def _read_plan(runtime: Path) -> HostPlan | None:
    """Return the plan of the running host; None if it cannot be read, or the host is just starting or stopping."""
    try:
        return read_plan(runtime)
    except InputError:
        return None


def _judge_ports(plan: HostPlan, runtime: Path) -> Iterator[Finding]:
    """Find ports that other processes hold while no host runs in this folder; a host of another folder may."""
    others = {
        server.program: host
        for server in plan.servers
        if (host := host_of(server.port)) is not None and is_host_alive(host)
    }
    for host in sorted(set(others.values())):
        ports = ", ".join(str(server.port) for server in plan.servers if others.get(server.program) == host)
        yield right(SUBJECT, f"the obcd host at {shown(host)} runs: it holds port {ports}")
    try:
        held = held_ports(plan, runtime)
    except ConfigurationError as error:
        yield fault(SUBJECT, str(error))
        return
    for program, sentence in held.items():
        if program not in others:
            yield fault(SUBJECT, f"{program} cannot start: {sentence}")
    if others:
        return
    if is_enabled("obcd-host.service"):
        start = "sudo systemctl start obcd-host; journalctl -u obcd-host"
        yield warning(SUBJECT, "obcd-host.service is enabled and does not run", start)
    else:
        yield note(SUBJECT, "obcd host does not run yet", "sudo systemctl enable --now obcd-host  # or: obcd host")


def _judge_running(plan: HostPlan, running: HostPlan | None, runtime: Path) -> Iterator[Finding]:
    found = running or plan
    probes = probe_all([found.url(server) for server in found.servers])
    silent = [server.program for server, probe in zip(found.servers, probes, strict=True) if probe.failure]
    text = f"obcd host runs: {len(probes) - len(silent)}/{len(probes)} servers answer"
    if silent:
        yield warning(SUBJECT, f"{text}, not {', '.join(silent)}", "obcd host status")
    else:
        yield right(SUBJECT, text)
    if running is not None and _essence(running) != _essence(plan):
        is_system = runtime == SYSTEM_RUNTIME
        restart = "sudo systemctl restart obcd-host" if is_system else "obcd host  # after Ctrl-C where it runs"
        yield note(SUBJECT, "obcd host runs with another [host] than this one", restart)


def _essence(plan: HostPlan) -> dict[str, object]:
    """Return what a restart would change, without the home folder and ollama's path, which depend on the caller."""
    essence = asdict(plan)
    del essence["ollama"]
    for server in essence["servers"]:
        server["variables"].pop("HOME", None)
    return essence
