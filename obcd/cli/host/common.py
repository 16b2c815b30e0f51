"""Helpers that the commands of `obcd host` share: options, the cards that a person names, the running host."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import click

from obcd.cli.common import Command
from obcd.config.tables import Host
from obcd.errors import AlreadyRunningError, ConfigurationError, InputError, NoEndpointError, UsageError
from obcd.host.servers.binding import check_address, check_registered, own_address
from obcd.host.servers.launcher import held_ports
from obcd.host.servers.leftovers import neighbours
from obcd.host.servers.locks import is_host_alive
from obcd.host.servers.plan import FILE_NAME, SYSTEM_RUNTIME, HostPlan, Server, read_plan
from obcd.host.servers.runtime import UNIT, folder_that_runs
from obcd.hosts.record import endpoint_of
from obcd.logs.journal import is_journal

#: The type of `[host] gpus`.
Gpus = Literal["all", "given", 0] | list[int | str]

#: Seconds to wait for the state of a unit from systemd.
SYSTEMCTL_SECONDS = 5.0

GPUS_HELP = (
    "all; given for those of CUDA_VISIBLE_DEVICES or of the Slurm job; a number N for the first N cards (0: one server "
    "on the CPU); a list such as 0,2 or GPU-UUIDs; a single card as gpu2  [default: [host] gpus, or all; inside Slurm "
    "and Ray: given]"
)


def runtime_option(command: Command) -> Command:
    """Add `--runtime`."""
    text = "the host's runtime folder  [default: /run/obcd-host, or your own runtime directory]"
    return click.option("--runtime", metavar="DIR", help=text)(command)


def plan_options(command: Command) -> Command:
    """Add `--gpus` and `--base-port`."""
    text = "port of the first card  [default: [host] base_port, or 11432]"
    port = click.option("--base-port", metavar="PORT", type=click.IntRange(1, 65535), help=text)
    return click.option("--gpus", metavar="WHICH", help=GPUS_HELP)(port(command))


def place_options(command: Command) -> Command:
    """Add `--port` and `--bind`."""
    text = "free ports instead of fixed ones: 0 for any, or a range such as 20000-20999"
    port = click.option("--port", "ports", metavar="PORTS", help=text)
    address = "address on which the servers listen  [default: [host] bind; with --register this machine's own]"
    return port(click.option("--bind", metavar="ADDRESS", help=address)(command))


def address_to_register(host: Host, given: str | None) -> str:
    """Return the address on which the servers of a registered host listen.

    Raises:
        ConfigurationError: If no address follows from the machine's name, or the coordinator would not accept it.
    """
    bind = given or (host.bind if host.bind != Host().bind else own_address())
    check_registered(bind)
    try:
        address = str(ipaddress.ip_address(bind))
        endpoint_of(f"http://[{address}]:1" if ":" in address else f"http://{address}:1")
    except ValueError:
        raise ConfigurationError(
            f"{bind} is not an address of a private network, and no coordinator accepts another: choose one with --bind"
        ) from None
    return address


def parse_gpus(text: str) -> Gpus:
    """Read `--gpus`: `all`, `given`, `cpu`, `4` (cards 0 to 3), `0,2`, `GPU-uuid,…`, `gpu2`.

    Raises:
        UsageError: If it has no such form.
    """
    if text == "all":
        return "all"
    if text == "given":
        return "given"
    if text in ("cpu", "0"):
        return 0
    if text.isascii() and text.isdigit():
        return list(range(_number(text, 256)))
    words = [word.strip() for word in text.split(",") if word.strip()]
    cards = [_card(word) for word in words]
    if not cards or len(set(cards)) != len(cards):
        raise UsageError(f"--gpus {text!r} names {'a card twice' if cards else 'no card'}: {GPUS_HELP}")
    return cards


def _card(word: str) -> int | str:
    index = word.removeprefix("gpu")
    if index.isascii() and index.isdigit():
        return _number(index, 1024)
    if word.upper().startswith(("GPU-", "MIG-")):
        return word
    raise UsageError(f"--gpus: {word!r} is no card: {GPUS_HELP}")


def _number(text: str, limit: int) -> int:
    number = int(text[:5])
    if number > limit:
        raise UsageError(f"--gpus {text[:20]} cannot be meant: no machine has so many")
    return number


def running_host(runtime: str | None) -> tuple[Path, HostPlan]:
    """Return the runtime folder and the plan of the running host.

    Raises:
        NoEndpointError: If no host runs.
        InputError: If it belongs to another user.
    """
    folder = folder_that_runs(runtime)
    try:
        has_plan = (folder / FILE_NAME).exists()
    except PermissionError:
        raise InputError(f"{folder} cannot be read: run this as the user who runs obcd host, or with sudo") from None
    if not has_plan or (runtime is None and is_host_alive(folder) is False):
        advice = (None if runtime else unit_advice()) or "start one with obcd host"
        raise NoEndpointError(f"no obcd host runs here (nothing in {folder}): {advice}")
    return folder, read_plan(folder)


def unit_advice() -> str | None:
    """Return what to do about the system's unit, which does not run; None if there is no unit or no systemd."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    words = [systemctl, "show", UNIT, "--property", "LoadState,ActiveState,SubState,NRestarts"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SYSTEMCTL_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _unit_words(dict(line.split("=", 1) for line in said.splitlines() if "=" in line))


def _unit_words(state: dict[str, str]) -> str | None:
    """Return advice from a unit's properties, e.g. `{"LoadState": "loaded", "ActiveState": …}` (systemd.unit(5))."""
    if state.get("LoadState") != "loaded":
        return None
    active, why = state.get("ActiveState"), f"see journalctl -u {UNIT.removesuffix('.service')}"
    if active == "failed":
        return f"{UNIT} has failed: {why}"
    if state.get("SubState", "").startswith("auto-restart") or (active == "activating" and state["NRestarts"] != "0"):
        return f"{UNIT} keeps failing: {why}"
    if active in ("activating", "deactivating"):
        return f"{UNIT} is just {'starting' if active == 'activating' else 'stopping'}"
    return f"sudo systemctl start {UNIT.removesuffix('.service')}, or start your own with obcd host"


def runtime_words(runtime: str | os.PathLike[str] | None) -> str:
    """Return ` --runtime DIR` for a hint, "" for the default folder."""
    return f" --runtime {shlex.quote(os.fspath(runtime))}" if runtime else ""


def check_places(plan: HostPlan, folder: Path) -> list[str]:
    """Check address and ports before anything starts; return a warning for every port that another process holds.

    One port of several must not keep the other cards idle: its server is tried again, and the watch reports why.

    Raises:
        ConfigurationError: If the address is not one of this machine.
        NoEndpointError: The same under systemd, where the address may come later in a boot: systemd tries again.
        AlreadyRunningError: If no port is free.
    """
    try:
        check_address(plan.bind)
    except ConfigurationError as error:
        if is_journal():
            raise NoEndpointError(f"{error}; systemd tries again until it is") from None
        raise
    held = held_ports(plan, folder)
    if len(held) == len(plan.servers):
        more = f"; so are the ports of the other {len(held) - 1}" if len(held) > 1 else ""
        raise AlreadyRunningError(next(iter(held.values())) + more)
    return [f"{program} cannot start yet: {sentence}" for program, sentence in held.items()] + _shared(plan, folder)


def _shared(plan: HostPlan, folder: Path) -> list[str]:
    """Return a warning for every card that another host uses, as far as this user can see."""
    others = neighbours(folder)
    found = [
        f"{server.program}: its card has a server of the obcd host at {others[server.pin]} too; stop that one first"
        for server in plan.servers
        if server.pin and server.pin in others
    ]
    if (
        not found
        and folder != SYSTEM_RUNTIME
        and SYSTEM_RUNTIME.is_dir()
        and is_host_alive(SYSTEM_RUNTIME) is not False
    ):
        found = [f"{UNIT} runs here too: on a card that both use they share its memory"]
    return found


def choose_servers(plan: HostPlan, target: str) -> list[Server]:
    """Return the servers that a person names: `2`, `gpu2`, a UUID, or `all`.

    Raises:
        UsageError: If there is no such server.
    """
    if target == "all":
        return list(plan.servers)
    server = plan.find(target)
    if server is None:
        raise UsageError(f"this host has no server {target!r}; it has {', '.join(s.program for s in plan.servers)}")
    return [server]
