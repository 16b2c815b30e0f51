"""`obcd slurm`: an sbatch script of hosts, and the commands that show and end its tasks."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import click
from click.core import ParameterSource

from obcd.cli.common import config_option, read_settings, say
from obcd.cli.tables import print_rows
from obcd.config.settings import Settings
from obcd.diagnostics.hosts_folder import LIMIT_SECONDS
from obcd.errors import ConfigurationError, InputError, UsageError
from obcd.host.servers.binding import parse_ports
from obcd.hosts.record import HostState
from obcd.hosts.scan import scan_within
from obcd.hosts.trust import find_trusted
from obcd.slurm import tasks as slurm_tasks
from obcd.slurm.script import HostArray, render_script
from obcd.text import printable

NAME = "obcd"
#: A job, or a task of an array.
JOB = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?")

EPILOG = """\b
Examples:
  obcd slurm --tasks 4 --gres gpu:2 --sbatch time=04:00:00 > hosts.sbatch
  obcd slurm --tasks 28 --sbatch partition=gpu --sbatch account=lab --submit
  obcd slurm --tasks 4 --with-coordinator --submit    answers the inbox, then ends

\b
Then:
  obcd slurm status                its tasks, and what they registered
  obcd slurm cancel                end them; requests in flight finish

\b
The hosts folder, and obcd itself, must be on a file system that all nodes share.
"""


@click.group(invoke_without_command=True, epilog=EPILOG)
@click.option("--tasks", type=click.IntRange(1, 10000), default=1, show_default=True, help="hosts: tasks of the array")
@click.option("--gres", default="gpu:1", show_default=True, help="what each host requests, e.g. gpu:2, gpu:a100:4")
@click.option("--sbatch", "limits", multiple=True, metavar="OPTION=VALUE",
              help="an option of sbatch, e.g. time=04:00:00, partition=gpu, mem=64G; may be repeated")  # fmt: skip
@click.option("--setup", multiple=True, metavar="LINE",
              help="a line for the shell that comes first, e.g. 'module load ollama'; may be repeated")  # fmt: skip
@click.option("--models", metavar="DIR", help="folder of Ollama's models that all nodes share  [default: Ollama's own]")
@click.option("--hosts", metavar="DIR", help="the hosts folder  [default: [cluster] hosts]")
@click.option("--logs", metavar="DIR", help="folder of the tasks' logs  [default: the working folder]")
@click.option("--port", "ports", default="0", show_default=True, metavar="PORTS",
              help="0 for any free port, or the range that the site opens, e.g. 20000-20999")  # fmt: skip
@click.option("--name", default=NAME, show_default=True, help="the job's name")
@click.option("--with-coordinator", is_flag=True, help="the first task also runs the coordinator, and ends the job")
@click.option("--until-idle", type=click.FloatRange(0), default=300.0, show_default=True, metavar="SECONDS",
              help="with it: end when no file and no job has been left for this long")  # fmt: skip
@click.option("--submit", is_flag=True, help="submit the script in place of printing it")
@config_option
@click.pass_context
def slurm(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    ctx: click.Context, tasks: int, gres: str, limits: tuple[str, ...], setup: tuple[str, ...], models: str | None,
    hosts: str | None, logs: str | None, ports: str, name: str, with_coordinator: bool, until_idle: float,
    submit: bool, config: str | None,
) -> None:  # fmt: skip
    """print an sbatch script that runs GPU hosts in Slurm."""
    if ctx.invoked_subcommand is not None:
        if any(ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE for option in ctx.params):
            raise click.UsageError(f"options belong after {ctx.invoked_subcommand}")
        return
    parse_ports(ports)
    settings = read_settings(config)
    wanted = HostArray(
        obcd=_program(),
        name=name,
        tasks=tasks,
        gres=gres,
        hosts=_hosts_folder(settings, hosts, is_needed=with_coordinator),
        logs=_folder(logs or ".", "logs"),
        ports=ports,
        limits=tuple(_option(limit) for limit in limits),
        models=None if models is None else _folder(models, "models"),
        configuration=settings.source,
        setup=setup,
        idle_seconds=until_idle if with_coordinator else None,
    )
    script = render_script(wanted)
    if not submit:
        click.echo(script, nl=False)
        return
    click.echo(slurm_tasks.submit(script))
    say(f"look    obcd slurm status{_name_words(name)}\nstop    obcd slurm cancel{_name_words(name)}")


@slurm.command()
@click.option("--name", default=NAME, show_default=True, help="the job's name")
@click.option("--hosts", metavar="DIR", help="the hosts folder  [default: [cluster] hosts]")
@click.option("--json", "is_json", is_flag=True, help="JSON")
@config_option
def status(name: str, hosts: str | None, is_json: bool, config: str | None) -> None:
    """show the tasks of the job, and what they registered."""
    found = slurm_tasks.list_tasks(name)
    records = _records(read_settings(config), hosts)
    rows = [{**asdict(task), **records.get(f"slurm {task.id}", {"host": "", "endpoints": 0})} for task in found]
    if is_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        say(f"no task of a job named {name} waits or runs")
    print_rows(
        ("TASK", "STATE", "NODE", ">LEFT", "HOST", ">ENDPOINTS", "WAITS FOR"),
        [
            [
                *(str(row[key]) for key in ("id", "state", "node", "left", "host", "endpoints")),
                "" if row["reason"] == "None" else str(row["reason"]),
            ]
            for row in rows
        ],
    )


@slurm.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--name", default=NAME, show_default=True, help="the job's name")
@click.option("--now", is_flag=True, help="do not let requests in flight finish; they are sent again elsewhere")
def cancel(jobs: tuple[str, ...], name: str, now: bool) -> None:
    """end the job, or some of its jobs and tasks; requests in flight finish."""
    for job in jobs:
        if not JOB.fullmatch(job):
            raise UsageError(f"{job!r:.60} is no job of Slurm: write e.g. 4711, or 4711_2 for one task")
    slurm_tasks.cancel(name, jobs, is_now=now)


def _records(settings: Settings, hosts: str | None) -> dict[str, dict[str, str | int]]:
    """Return `{what started a host: its state and the number of its endpoints}`; {} without a hosts folder."""
    folder = Path(hosts).absolute() if hosts else settings.cluster.folder
    if folder is None:
        return {}
    try:
        found = scan_within(LIMIT_SECONDS, folder, find_trusted(settings.cluster.users, os.getuid())[0]).found
    except OSError as error:
        raise InputError(f"the hosts folder {printable(str(folder))} cannot be read: {error.strerror}") from None
    return {
        item.record.by: {"host": item.record.state, "endpoints": len(item.record.endpoints)}
        for item in found.values()
        if item.record.state != HostState.GONE
    }


def _hosts_folder(settings: Settings, given: str | None, *, is_needed: bool) -> Path:
    """Return the hosts folder.

    Raises:
        UsageError: If the configuration and the command line name no folder.
        ConfigurationError: If the coordinator of the script would look into another one.
    """
    configured = settings.cluster.folder
    folder = Path(given).absolute() if given is not None else configured
    if folder is None:
        raise UsageError("no hosts folder is named: set [cluster] hosts in the configuration, or give --hosts DIR")
    if is_needed and configured != folder:
        where = settings.source or "a configuration"
        raise ConfigurationError(f'--with-coordinator needs [cluster] hosts = "{folder}" in {where}')
    return _folder(str(folder), "hosts")


def _folder(path: str, what: str) -> Path:
    """Return a folder as an absolute path; Slurm's tasks would fail without a sentence if it were not there."""
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} for the {what}: make it on a file system that all nodes share")
    return folder


def _program() -> str:
    """Return obcd's own path."""
    beside = Path(sys.executable).with_name("obcd")
    return str(beside) if beside.exists() else shutil.which("obcd") or "obcd"


def _option(text: str) -> str:
    name = text.removeprefix("--")
    if name.partition("=")[0] in ("array", "job-name", "gres", "output", "signal", "requeue", "open-mode"):
        raise UsageError(f"--sbatch {text[:60]} is set by obcd slurm itself: see its options, or change the script")
    return name


def _name_words(name: str) -> str:
    return "" if name == NAME else f" --name {shlex.quote(name)}"
