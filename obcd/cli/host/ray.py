"""`obcd ray`: servers on the GPUs of a Ray cluster, registered in the hosts folder."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import click

from obcd.cli.common import config_option, find_layout, read_settings, root_option, say
from obcd.config.settings import Settings
from obcd.errors import ExitCode, InputError, UsageError
from obcd.host.servers.binding import parse_ports
from obcd.logs.setup import set_up_logging
from obcd.parent_death import tie_to_parent
from obcd.ray.link import RaySession, Said
from obcd.ray.messages import LEASE_SECONDS, ServerWish
from obcd.ray.place import KeeperPlace
from obcd.ray.session import Order
from obcd.ray.supervision import supervise
from obcd.text import plural

UP_EPILOG = """\b
Examples:
  obcd ray up --min 1 --max 28             by what waits, on the cluster of this machine
  obcd ray up --address 10.0.0.1:6379 --max 8
  obcd ray status
  obcd ray down

\b
Ctrl-C, or SIGTERM, ends the keeper alone: its servers stay for two minutes, and the next obcd ray up adopts them.
Exit codes: 6 no head of Ray answers, it refuses this user's token, or Ray is not installed; 7 a keeper runs already.
"""
#: Seconds that the keeper of this machine may take to end.
KEEPER_END_SECONDS = 15.0
#: Names of namespaces: parts of names of files and actors.
NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
GIB = 2**30


def _namespace(_: click.Context, __: click.Parameter, value: str) -> str:
    if not NAMESPACE.fullmatch(value):
        raise click.BadParameter("use letters, digits, '.', '_' and '-', 60 at most")
    return value


def _address(_: click.Context, __: click.Parameter, value: str) -> str:
    if "://" in value:
        raise click.BadParameter("name the head itself, as HOST:PORT: an address with :// is that of a proxy")
    return value


_address_option = click.option(
    "--address", default="auto", show_default=True, callback=_address,
    help="HOST:PORT of the head; auto: $RAY_ADDRESS, or the cluster that this machine belongs to",
)  # fmt: skip
_namespace_option = click.option(
    "--namespace", default="obcd", show_default=True, callback=_namespace,
    help="Ray's namespace of the servers; another one for each coordinator",
)  # fmt: skip
_register_option = click.option("--register", metavar="DIR", help="the hosts folder  [default: [cluster] hosts]")


@click.group("ray")
def ray_group() -> None:
    """run servers on the GPUs of a Ray cluster."""


@ray_group.command("up", epilog=UP_EPILOG)
@_address_option
@click.option("--min", "least", type=click.IntRange(0, 4096), default=1, show_default=True, help="servers at least")
@click.option("--max", "most", type=click.IntRange(1, 4096), help="servers at most  [default: the cluster's GPUs]")
@click.option(
    "--idle", "idle_seconds", type=click.FloatRange(0, 86400), default=300.0, show_default=True,
    help="seconds for which fewer servers must be enough before one drains",
)  # fmt: skip
@click.option(
    "--cpus", type=click.FloatRange(0, 1024), default=1.0, show_default=True, help="CPUs that Ray counts for a server"
)
@click.option(
    "--memory-gib", type=click.FloatRange(0, 4096), default=1.0, show_default=True,
    help="memory that Ray counts for a server; its memory monitor first kills what has more than that",
)  # fmt: skip
@click.option(
    "--port",
    "ports",
    metavar="PORTS",
    help="ports of the servers, e.g. 20000-20999; 0: any free ones  [default: 256 from [host] base_port on]",
)
@_namespace_option
@_register_option
@config_option
@root_option
def up(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    address: str, least: int, most: int | None, idle_seconds: float, cpus: float, memory_gib: float, ports: str | None,
    namespace: str, register: str | None, config: str | None, root: str | None,
) -> int:  # fmt: skip
    """keep servers on the GPUs of a Ray cluster, as many as the waiting requests need.

    Each server is one Ollama, pinned to the one GPU that Ray gave its actor, with the settings of [host], and is
    registered in the hosts folder while it answers. obcd and Ollama must be installed on every node with GPUs.
    """
    if most is not None and most < least:
        raise UsageError(f"--max {most} is less than --min {least}")
    set_up_logging()
    settings = read_settings(config)
    if ports is not None:
        parse_ports(ports)
    order = Order(
        do="keep", address=address, namespace=namespace,
        hosts=str(_hosts_folder(register, settings)), status=str(find_layout(root, settings).status),
        wish=ServerWish.of(settings, ports).to_json(), least=least, most=most, idle_seconds=idle_seconds,
        drain_seconds=settings.requests.request_timeout_seconds, cpus=cpus, memory_bytes=int(memory_gib * GIB),
    )  # fmt: skip
    tie_to_parent(os.environ)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = KeeperPlace(namespace)
    with place.hold():
        say("Ollama has no authentication: everybody who reaches the nodes can use these servers and delete models")
        try:
            supervise(order, place)
        except KeyboardInterrupt:
            say(
                f"the keeper ends; its servers stay for {LEASE_SECONDS:.0f} s, for another obcd ray up; "
                "obcd ray down ends them now"
            )
    return ExitCode.DONE


@ray_group.command("status")
@_address_option
@_namespace_option
@click.option("--json", "as_json", is_flag=True, help="print what every actor reports as JSON")
def status(address: str, namespace: str, as_json: bool) -> None:
    """show the servers on a Ray cluster: node, card, state and trouble."""
    found = _ask(Order(do="look", address=address, namespace=namespace))
    place = KeeperPlace(namespace)
    keeper = place.keeper()
    shown = {"keeper": keeper, "keeper_state": place.read() if keeper else {}, **found}
    if as_json:
        click.echo(json.dumps(shown))
        return
    servers = found["servers"]
    assert isinstance(servers, dict)
    for number, report in servers.items():
        click.echo(f"{number:>4}  " + _shown(report))
    click.echo(
        f"{plural(len(servers), 'server')} on {found['gpus']} GPUs, {found['free']} free; {_keeper(keeper, place)}"
    )


def _shown(report: dict[str, object] | None) -> str:
    if report is None:
        return "waiting    for a GPU, or Ray is starting it again"
    place = f"{report['node']}:{report['gpu']}"
    words = [f"{report['state']:<10} {place:<20} {report['url']:<28}".rstrip(), report["cause"], report["trouble"]]
    return "  ".join(str(word) for word in words if word)


def _keeper(pid: int | None, place: KeeperPlace) -> str:
    if pid is None:
        return "no obcd ray up of this user runs here"
    state = place.read()
    trouble = f"; {state['trouble']}" if state.get("trouble") else ""
    return f"keeper pid {pid}, {state.get('target', '?')} wanted{trouble}"


@ray_group.command("down")
@_address_option
@_namespace_option
@click.option("--now", is_flag=True, help="do not let the servers finish what is in flight")
@_register_option
@config_option
def down(address: str, namespace: str, now: bool, register: str | None, config: str | None) -> None:
    """end the servers on a Ray cluster, and the keeper, when what is in flight has finished."""
    settings = read_settings(config)
    place = KeeperPlace(namespace)
    known = register or settings.cluster.hosts or place.read().get("hosts")  # the keeper may have had another one
    hosts = _hosts_folder(known, settings) if known else ""
    _stop_keeper(place)
    drain = 0.0 if now else settings.requests.request_timeout_seconds
    found = _ask(Order(do="end", address=address, namespace=namespace, hosts=str(hosts), drain_seconds=drain))
    cut_off = f", {found['cut_off']} of them cut off" if found["cut_off"] else ""
    say(f"{plural(int(str(found['ended'])), 'server')} ended{cut_off}")


def _stop_keeper(place: KeeperPlace) -> None:
    """End the keeper of this machine: it would start the servers again."""
    deadline = time.monotonic() + KEEPER_END_SECONDS
    pid = place.keeper()
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    while place.keeper() is not None:
        if time.monotonic() > deadline:
            raise InputError(f"the keeper (pid {pid}) does not end: kill {pid}")
        time.sleep(0.1)


def _ask(order: Order) -> dict[str, object]:
    """Run a session to its end, and return its result."""
    with RaySession(order.to_json()) as session:
        for line in session.lines():
            if line.kind is Said.RESULT:
                return dict(line.document)
    raise AssertionError("a session ends with a result or an error")


def _hosts_folder(register: str | None, settings: Settings) -> Path:
    folder = Path(register).expanduser().absolute() if register else settings.cluster.folder
    if folder is None:
        raise UsageError("no hosts folder is known: set [cluster] hosts in the configuration, or give --register DIR")
    if not folder.is_dir():
        raise InputError(f"the hosts folder {folder} does not exist: make it, or name another with --register DIR")
    return folder
