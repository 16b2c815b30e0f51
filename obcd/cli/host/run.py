"""`obcd host`: one Ollama per GPU under supervisord in the foreground, and the commands that control it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from obcd.cli.common import config_option, read_settings, say
from obcd.cli.host.common import (
    address_to_register,
    check_places,
    parse_gpus,
    place_options,
    plan_options,
    runtime_option,
    runtime_words,
)
from obcd.cli.host.control import logs, restart
from obcd.cli.host.endpoints import endpoints
from obcd.cli.host.pull import pull
from obcd.cli.host.status import status
from obcd.config.endpoints import is_loopback
from obcd.errors import InputError
from obcd.host.cards.given import find_engine
from obcd.host.control.programs import register_program, server_programs, watch_listener
from obcd.host.control.registrar import DRAIN_SECONDS
from obcd.host.servers.allocation import allocation_name
from obcd.host.servers.binding import parse_ports
from obcd.host.servers.leftovers import end_leftovers
from obcd.host.servers.locks import hold_host, keep_across_exec
from obcd.host.servers.plan import HostPlan, write_plan
from obcd.host.servers.planning import make_plan
from obcd.host.servers.runtime import find_logs, folder_to_start, make_folder
from obcd.host.supervisord.configuration import SOCKET_NAME, become, write_configuration
from obcd.host.watch.watch_file import FILE_NAME as WATCH_FILE
from obcd.hosts.record import SUFFIX
from obcd.hosts.registration import Registration
from obcd.logs.journal import is_journal
from obcd.parent_death import tie_to_parent

EPILOG = """\b
Examples:
  obcd host                        every GPU of this machine, or those of [host] gpus
  obcd host --gpus 4               the first four cards, ports 11432 to 11435; no configuration needed
  obcd host --gpus 0,2             cards 0 and 2 (nvidia-smi's numbers)
  obcd host --gpus gpu2            only card 2
  obcd host --gpus 0               one server on the CPU
  obcd host --register /shared/obcd/hosts --gpus given --port 0
                                   inside a Slurm job: its cards, free ports, found by the coordinator

\b
Then:
  obcd host status                 state of servers and cards
  obcd host pull llama3.2          once, for all servers of this host
  obcd host endpoints              the table for the coordinator's configuration
  obcd host restart gpu2           a new server on card 2
  obcd host logs gpu2 -f           its log

\b
Ctrl-C, or SIGTERM, stops all servers; a registered host first finishes its requests in flight.
It runs in the foreground: start it from systemd, tmux or a job script.
"""

#: A unix socket's path has at most 107 bytes (unix(7)); supervisord first makes it with `.<pid>` appended.
MAX_SOCKET_BYTES = 107 - 9


@click.group(invoke_without_command=True, epilog=EPILOG)
@plan_options
@place_options
@click.option(
    "--register", "hosts", metavar="DIR", help="write a record into this hosts folder, where the coordinator finds it"
)
@click.option("--name", help="name of the record  [default: this machine's host name; in Slurm slurm-JOB_TASK]")
@click.option(
    "--drain",
    "drain_seconds",
    type=click.FloatRange(0, 86400),
    default=DRAIN_SECONDS,
    show_default=True,
    help="seconds that requests in flight may take at the end, with --register",
)
@runtime_option
@config_option
@click.pass_context
def host(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    ctx: click.Context, gpus: str | None, base_port: int | None, ports: str | None, bind: str | None,
    hosts: str | None, name: str | None, drain_seconds: float, runtime: str | None, config: str | None,
) -> None:  # fmt: skip
    """run one Ollama per GPU under supervisord."""
    if ctx.invoked_subcommand is not None:
        if any((gpus, base_port, ports, bind, hosts, name, runtime, config)):
            raise click.UsageError(f"options belong after {ctx.invoked_subcommand}")
        return
    if base_port is not None and ports is not None:
        raise click.UsageError("--port and --base-port exclude each other")
    folder = folder_to_start(runtime)
    settings = read_settings(config)
    register = None if hosts is None else _Register.checked(Path(hosts), name, drain_seconds)
    _check_socket(folder)
    make_folder(folder)
    lock = hold_host(folder)
    plan = make_plan(
        settings, None if gpus is None else parse_gpus(gpus), base_port,
        ports=None if ports is None else parse_ports(ports),
        bind=bind if register is None else address_to_register(settings.host, bind),
    )  # fmt: skip
    end_leftovers(folder, None)
    for sentence in (*check_places(plan, folder), *_remarks(plan, gpus, register)):
        say(sentence)
    configuration = _write(plan, folder, runtime_words(runtime), register)
    tie_to_parent(os.environ)
    keep_across_exec(lock)
    become(configuration)


for _command in (status, restart, logs, pull, endpoints):
    host.add_command(_command)


@dataclass(frozen=True, slots=True)
class _Register:
    """The record to write: the hosts folder, the record's name, and how long requests in flight may take at the end."""

    folder: Path
    name: str
    drain_seconds: float

    @classmethod
    def checked(cls, folder: Path, name: str | None, drain_seconds: float) -> _Register:
        """Return it, if the folder exists and the name can be one.

        Raises:
            InputError: If not.
        """
        if not folder.is_dir():  # it is not made here: it may lie on a file system that is not mounted
            raise InputError(f"there is no hosts folder {folder}: make it, or mount the file system that has it")
        wanted = name or allocation_name(os.environ) or socket.gethostname()
        try:
            Registration(folder, wanted)
        except ValueError as error:
            raise InputError(f"{error}: choose one with --name") from None
        return cls(folder.absolute(), wanted, drain_seconds)


def _remarks(plan: HostPlan, gpus: str | None, register: _Register | None) -> Iterator[str]:
    """Yield what the person should know about cards and address."""
    engine = find_engine(os.environ)
    if gpus == "all" and engine is not None:
        yield f"--gpus all takes every card of this machine, also those that {engine.title()} gave to others"
    if register is not None and not is_loopback(plan.bind):
        yield f"Ollama has no authentication: everybody who reaches {plan.bind} can use these servers and delete models"


def _write(plan: HostPlan, folder: Path, words: str, register: _Register | None) -> Path:
    """Write the plan and supervisord's configuration, and print what will start."""
    (folder / WATCH_FILE).unlink(missing_ok=True)  # the state of an earlier host's watch
    programs = server_programs(plan, write_plan(plan, folder))
    if register is not None:
        programs.append(register_program(folder, register.folder, register.name, register.drain_seconds))
        say(f"record  {register.folder / register.name}{SUFFIX}")
    kept = find_logs(folder)
    listener = watch_listener(folder, is_journal=is_journal())
    for server in plan.servers:
        say(f"{server.program:7} {plan.url(server)}  {server.card or 'the CPU'}".rstrip())
    say(f"logs    {kept}/   obcd host logs {plan.servers[0].program}{words}")
    task = allocation_name(os.environ).removeprefix("slurm-")
    say("look    " + ("obcd slurm status" if task else f"obcd host status{words}"))
    last = "" if register is None else f"; requests in flight finish first, up to {register.drain_seconds:.0f} s"
    stop = "systemctl stop obcd-host" if is_journal() else f"obcd slurm cancel {task}" if task else "Ctrl-C"
    say(f"stop    {stop}{last}")
    return write_configuration(programs, folder, kept, [listener], is_silent=not is_journal())


def _check_socket(folder: Path) -> None:
    path = folder / SOCKET_NAME
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise InputError(f"{folder} is too long for a unix socket's path: choose a shorter --runtime")
    if "%" in str(folder):  # supervisor expands it in paths of logs, twice (#1441)
        raise InputError(f"{folder} has a percent sign, which supervisor does not take: choose another --runtime")
