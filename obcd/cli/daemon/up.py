"""`obcd up`: servers and coordinator under one supervisord, in the foreground."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from obcd.cli.common import config_option, describe_slots, find_layout, read_settings, root_option, say
from obcd.cli.host.common import GPUS_HELP, check_places, parse_gpus, runtime_words
from obcd.config.loading import find_configuration, find_root, load_settings
from obcd.config.settings import Settings
from obcd.config.writing import with_endpoints
from obcd.core_dumps import forbid_core_dumps
from obcd.errors import InputError
from obcd.host.control.programs import server_programs, watch_listener
from obcd.host.servers.leftovers import end_leftovers
from obcd.host.servers.locks import hold_host, keep_across_exec
from obcd.host.servers.plan import plan_table, write_plan
from obcd.host.servers.planning import make_plan
from obcd.host.supervisord.configuration import EventListener, Program, become, write_configuration
from obcd.host.supervisord.up_programs import (
    StandIns,
    coordinator_program,
    endpoint_table,
    free_ports,
    page_port,
    page_program,
    stand_in_programs,
)
from obcd.logs.journal import is_journal
from obcd.parent_death import tie_to_parent
from obcd.serving.server import WEB, need_web
from obcd.serving.sockets import url_of
from obcd.spool.folders.layout import Layout, SpoolLock

EPILOG = """\b
Examples:
  obcd up                                       the coordinator over the configured endpoints
  obcd up --gpus all                            one pinned Ollama per GPU of this machine, and the coordinator
  obcd up --simulate --servers 4 --parallel 16  rehearse a configuration without a GPU
  obcd up --gpus all --page                     and a status page for a browser
  obcd up --embedded model.gguf --servers 2     real inference on the CPU

\b
Ctrl-C stops everything, the coordinator first. No request that has a result is sent again.
"""


@click.command(epilog=EPILOG)
@click.option("--gpus", metavar="WHICH", help=GPUS_HELP)
@click.option(
    "--embedded",
    metavar="FILE.gguf",
    type=click.Path(path_type=Path),
    help="start embedded servers with this model file",
)
@click.option("--simulate", is_flag=True, help="start simulated servers")
@click.option("--servers", type=click.IntRange(1, 256), default=1, show_default=True, help="number of servers")
@click.option("--parallel", type=click.IntRange(1, 1024), default=4, show_default=True, help="slots of each server")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="threads of each embedded server")
@click.option("--model-name", help="the name of their model  [default: the configuration's model]")
@click.option("--page", is_flag=True, help="serve the status page too, at [page] tcp_port or a free port of 127.0.0.1")
@config_option
@root_option
def up(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    gpus: str | None, embedded: Path | None, simulate: bool, servers: int, parallel: int, threads: int,
    model_name: str | None, page: bool, config: str | None, root: str | None,
) -> None:  # fmt: skip
    """run servers and coordinator under one supervisord."""
    if sum((gpus is not None, embedded is not None, simulate)) > 1:
        raise click.UsageError("--gpus, --embedded and --simulate exclude each other")
    if embedded is not None and not embedded.is_file():
        raise InputError(f"there is no model file at {embedded}")
    need_web(*(WEB if page else ()))
    forbid_core_dumps()
    path = find_configuration(config)
    settings = read_settings(config)
    layout = find_layout(root, settings)
    layout.create(list(settings.profiles))
    SpoolLock(layout).check_free()
    programs: list[Program] = []
    lock: int | None = None
    listeners: list[EventListener] = []
    if gpus is not None:
        lock = hold_host(layout.runtime)
        plan = make_plan(settings, parse_gpus(gpus))
        end_leftovers(layout.runtime, None)
        for sentence in check_places(plan, layout.runtime):
            say(sentence)
        programs = server_programs(plan, write_plan(plan, layout.runtime))
        listeners = [watch_listener(layout.runtime, is_journal=is_journal())]
        path, settings = _with_endpoints(path, layout, plan_table(plan), model_name)
    elif embedded is not None or simulate:
        named = [item.num_ctx for item in settings.profiles.values()]
        wanted = StandIns(
            model=embedded.absolute() if embedded is not None else None,
            name=model_name or settings.model,
            count=servers,
            parallel=parallel,
            threads=threads,
            context=max([settings.requests.usual_context, *(length for length in named if isinstance(length, int))]),
        )
        ports = free_ports(wanted.count)
        programs = stand_in_programs(wanted, ports)
        path, settings = _with_endpoints(path, layout, endpoint_table(wanted, ports), model_name)
    programs.append(coordinator_program(path.absolute() if path else None, layout.root))
    port = (settings.page.tcp_port or page_port()) if page else 0
    programs += [page_program(path.absolute() if path else None, layout.root, port)] if page else []
    logs = layout.root / "logs"
    configuration = write_configuration(
        programs, layout.runtime, logs, listeners, is_silent=False, level="warn"
    )  # at this level the terminal shows a program that ends again and again
    _say_where(settings, layout, logs, port)
    if lock is not None:
        say(f"servers obcd host status{runtime_words(layout.runtime)}")
    tie_to_parent(os.environ)
    if lock is not None:
        keep_across_exec(lock)
    become(configuration)


def _with_endpoints(
    path: Path | None, layout: Layout, table: dict[str, dict[str, int]], model_name: str | None
) -> tuple[Path, Settings]:
    """Write the configuration with the endpoints of the servers started here; return its path and its settings."""
    written = layout.runtime / "obcd.toml"
    written.write_text(with_endpoints(path, table, model_name), "utf-8")
    return written, load_settings(written)


def _say_where(settings: Settings, layout: Layout, logs: Path, tcp_port: int) -> None:
    for endpoint in settings.endpoints():
        say(f"endpoint {endpoint.url}  {describe_slots(endpoint.slots)}")
    say(f"inbox   {layout.inbox}/   drop prompt files here")
    say(f"outbox  {layout.outbox}/")
    say(f"logs    {logs}/")
    if tcp_port:
        say(f"page    {url_of(settings.page.tcp_bind, tcp_port)}")
    default = find_root(None, settings)
    root = "" if layout.root == default else f" --root {shlex.quote(str(layout.root))}"
    say(f"watch   obcd status --watch{root}")
    say("stop    Ctrl-C")
