"""`obcd host restart` and `obcd host logs`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

from obcd.cli.common import say
from obcd.cli.host.common import choose_servers, running_host, runtime_option
from obcd.clock import monotonic
from obcd.errors import AlreadyRunningError, InputError, TimedOutError
from obcd.host.servers.locks import is_pulling, puller
from obcd.host.servers.log_files import find_log, follow, last_lines
from obcd.host.servers.plan import SYSTEM_RUNTIME, HostPlan, Server, read_plan
from obcd.host.servers.ports import is_foreign
from obcd.host.servers.runtime import folder_that_runs
from obcd.host.supervisord.remote import Remote
from obcd.host.watch.probing import Prober
from obcd.host.watch.watch_rules import ALIVE, ProbeAnswer
from obcd.text import duration

#: Seconds between two checks while waiting.
LOOK_SECONDS = 0.2
#: How many lines of a log are searched for a reason.
LOOKED_BACK = 5
WATCH_JOURNAL = "journalctl -u obcd-host (OBCD_SERVER=gpu0 for what is about one server)"


@click.command()
@click.argument("gpu")
@click.option(
    "--timeout", type=click.FloatRange(1), default=120.0, show_default=True, help="seconds to wait for each server"
)
@click.option("--force", is_flag=True, help="restart even while a model is being pulled, which may interrupt the pull")
@runtime_option
def restart(gpu: str, timeout: float, force: bool, runtime: str | None) -> None:
    """restart a GPU's server, or all.

    GPU is 2, gpu2, a UUID, or all, which restarts the servers one after another. The command waits until each server
    answers. The coordinator sends the requests that were in flight there again.
    """
    folder, plan = running_host(runtime)
    servers = choose_servers(plan, gpu)
    if not force and (who := puller(folder)):
        raise AlreadyRunningError(
            f"a pull is under way ({who}) and a restart could interrupt it: wait for its end, or give --force"
        )
    with Remote(folder) as remote:
        for server in servers:
            _restart(plan, server, remote, folder, timeout)


def _restart(plan: HostPlan, server: Server, remote: Remote, folder: Path, timeout: float) -> None:
    began = monotonic()
    if is_pulling(folder):
        say(f"{server.program}: a pull is under way; the new server will wait for its end")
    remote.stop(server.program)
    while remote.states()[server.program].pid:
        _wait(server, folder, "it does not end", began, timeout)
    remote.start(server.program)
    prober = Prober({server.label: plan.url(server)})
    while True:
        state = remote.states()[server.program]
        if (
            state.state in ALIVE
            and prober.ask_all()[server.label].answer is ProbeAnswer.ANSWERED
            and not is_foreign(state.pid, server.port)
        ):
            say(f"{server.program} answers again after {monotonic() - began:.1f} s (pid {state.pid})")
            return
        _wait(server, folder, f"it is {state.state} {state.fault}".rstrip(), began, timeout)


def _wait(server: Server, folder: Path, why: str, began: float, timeout: float) -> None:
    if monotonic() - began <= timeout:
        time.sleep(LOOK_SECONDS)
        return
    why = "it waits for a pull to end" if is_pulling(folder) else why
    try:
        lines = last_lines(find_log(folder, server.program), LOOKED_BACK)
    except InputError:
        lines = []
    said = [line for line in lines if " INFO " not in line]  # without obcd's own `starting gpu1`
    quoted = f'; its log says "{said[-1]}"' if said else ""
    raise TimedOutError(f"{server.program} does not answer after {duration(timeout)}: {why}{quoted}")


@click.command()
@click.argument("gpu")
@click.option("-f", "--follow", "is_following", is_flag=True, help="continue with new lines until Ctrl-C")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 100000),
    default=50,
    show_default=True,
    help="number of last lines to show first",
)
@runtime_option
def logs(gpu: str, is_following: bool, lines: int, runtime: str | None) -> None:
    """show the log of a GPU's server.

    GPU is 2, gpu2 or a UUID; or watch or supervisord, which have logs too.
    """
    folder = folder_that_runs(runtime)
    program = _program(folder, gpu, runtime)
    path = find_log(folder, program)
    size = path.stat().st_size
    if program == "watch" and folder == SYSTEM_RUNTIME:
        say(f"under systemd the watch writes to the journal: {WATCH_JOURNAL}")
    for line in last_lines(path, lines, size):
        click.echo(line)
    if not is_following:
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        for line in follow(path, size):
            click.echo(line)


def _program(folder: Path, gpu: str, runtime: str | None) -> str:
    """Return a program's name, also of a host that no longer runs: that is when people read logs."""
    if gpu in ("watch", "supervisord", "cpu"):
        return gpu
    try:
        return choose_servers(read_plan(folder), gpu)[0].program
    except InputError:  # no plan, or not readable for this user: the logs may be
        if gpu.removeprefix("gpu").replace(".", "").isdigit():
            return f"gpu{gpu.removeprefix('gpu')}"
    return choose_servers(running_host(runtime)[1], gpu)[0].program
