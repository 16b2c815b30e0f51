"""`obcd host`: one Ollama per GPU under supervisord in the foreground, and the commands that control it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from obcd.cli.common import config_option, read_settings, say
from obcd.cli.host.common import check_places, parse_gpus, plan_options, runtime_option, runtime_words
from obcd.cli.host.control import logs, restart
from obcd.cli.host.endpoints import endpoints
from obcd.cli.host.pull import pull
from obcd.cli.host.status import status
from obcd.errors import InputError
from obcd.host.control.programs import server_programs, watch_listener
from obcd.host.servers.leftovers import end_leftovers
from obcd.host.servers.locks import hold_host, keep_across_exec
from obcd.host.servers.plan import HostPlan, write_plan
from obcd.host.servers.planning import make_plan
from obcd.host.servers.runtime import find_logs, folder_to_start, make_folder
from obcd.host.supervisord.configuration import SOCKET_NAME, become, write_configuration
from obcd.host.watch.watcher import FILE_NAME as WATCH_FILE
from obcd.logs.journal import is_journal
from obcd.parent_death import tie_to_parent

EPILOG = """\b
Examples:
  obcd host                        every GPU of this machine, or those of [host] gpus
  obcd host --gpus 4               the first four cards, ports 11432 to 11435; no configuration needed
  obcd host --gpus 0,2             cards 0 and 2 (nvidia-smi's numbers)
  obcd host --gpus gpu2            only card 2
  obcd host --gpus 0               one server on the CPU

\b
Then:
  obcd host status                 state of servers and cards
  obcd host pull llama3.2          once, for all servers of this host
  obcd host endpoints              the table for the coordinator's configuration
  obcd host restart gpu2           a new server on card 2
  obcd host logs gpu2 -f           its log

\b
Ctrl-C, or SIGTERM, stops all servers. It runs in the foreground: start it from systemd, tmux or a job script.
"""

#: A unix socket's path has at most 107 bytes (unix(7)); supervisord first makes it with `.<pid>` appended.
MAX_SOCKET_BYTES = 107 - 9


@click.group(invoke_without_command=True, epilog=EPILOG)
@plan_options
@runtime_option
@config_option
@click.pass_context
def host(ctx: click.Context, gpus: str | None, base_port: int | None, runtime: str | None, config: str | None) -> None:
    """run one Ollama per GPU under supervisord."""
    if ctx.invoked_subcommand is not None:
        if any((gpus, base_port, runtime, config)):
            raise click.UsageError(f"options belong after {ctx.invoked_subcommand}")
        return
    folder = folder_to_start(runtime)
    settings = read_settings(config)
    _check_socket(folder)
    make_folder(folder)
    lock = hold_host(folder)
    plan = make_plan(settings, None if gpus is None else parse_gpus(gpus), base_port)
    end_leftovers(folder, None)
    for sentence in check_places(plan, folder):
        say(sentence)
    configuration = _write(plan, folder, runtime_words(runtime))
    tie_to_parent(os.environ)
    keep_across_exec(lock)
    become(configuration)


for _command in (status, restart, logs, pull, endpoints):
    host.add_command(_command)


def _write(plan: HostPlan, folder: Path, words: str) -> Path:
    """Write the plan and supervisord's configuration, and print what will start."""
    (folder / WATCH_FILE).unlink(missing_ok=True)  # the state of an earlier host's watch
    programs = server_programs(plan, write_plan(plan, folder))
    kept = find_logs(folder)
    listener = watch_listener(folder, is_journal=is_journal())
    for server in plan.servers:
        say(f"{server.program:7} {plan.url(server)}  {server.card or 'the CPU'}".rstrip())
    say(f"logs    {kept}/   obcd host logs {plan.servers[0].program}{words}")
    say(f"look    obcd host status{words}")
    say("stop    systemctl stop obcd-host" if is_journal() else "stop    Ctrl-C")
    return write_configuration(programs, folder, kept, [listener], is_silent=not is_journal())


def _check_socket(folder: Path) -> None:
    path = folder / SOCKET_NAME
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise InputError(f"{folder} is too long for a unix socket's path: choose a shorter --runtime")
    if "%" in str(folder):  # supervisor expands it in paths of logs, twice (#1441)
        raise InputError(f"{folder} has a percent sign, which supervisor does not take: choose another --runtime")
