"""`obcd host pull`: pull a model for all servers of the host, through one of them, and show the progress."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict

import click

from obcd.cli.common import is_terminal, say
from obcd.cli.host.common import running_host, runtime_option
from obcd.errors import NoEndpointError
from obcd.host.control.pulling import check_name, choose_server, sees_model
from obcd.host.servers.locks import hold_pull
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.supervisord.remote import Remote
from obcd.ollama.pulling import Progress, stream_pull

EPILOG = """\b
Examples:
  obcd host pull llama3.2
  obcd host pull hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M

\b
After an interruption (Ctrl-C) the part that has arrived stays: run the same command to continue.
"""
#: With fewer characters per line, a bar shows only the size that has arrived.
NARROW_WIDTH = 70


@click.command(epilog=EPILOG)
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="print a JSON line for every step, for machines")
@runtime_option
def pull(model: str, as_json: bool, runtime: str | None) -> None:
    """pull a model, once for all servers of this host."""
    check_name(model)
    folder, plan = running_host(runtime)
    with Remote(folder) as remote:
        choose_server(
            plan, remote, say
        )  # before the lock: starting servers must not wait for a pull that waits for them
        with hold_pull(folder, model):
            server = choose_server(plan, remote, say)
            say(f"pulling {model} through {server.program}")
            try:
                _pull(plan.url(server), model, _Lines() if as_json else _Bars() if is_terminal() else _Steps())
            except KeyboardInterrupt:
                say("interrupted; the part that has arrived stays: run the same command to continue")
                raise
    _check(plan, server, model)


class _Shower(ABC):
    @abstractmethod
    def show(self, progress: Progress) -> None: ...

    def stop(self) -> None:  # noqa: B027 - most draw nothing
        """Remove the drawing from the screen."""


def _pull(url: str, model: str, shower: _Shower) -> None:
    try:
        for progress in stream_pull(url, model):
            shower.show(progress)
    finally:
        shower.stop()


def _check(plan: HostPlan, puller: Server, model: str) -> None:
    """Check that the other servers list the model: they do if all share one folder of models."""
    others = [server for server in plan.servers if server is not puller]
    witness = next(iter(others), puller)
    if sees_model(plan, witness, model):
        say(f"{model} is complete; {'every server of this host has it' if others else 'the server has it'}")
        return
    raise NoEndpointError(
        f"{puller.program} has pulled {model}, but {witness.program} does not list it: "
        "check with obcd serve-gpu N --dry-run that all servers have the same OLLAMA_MODELS"
    )


class _Lines(_Shower):
    """`{"status": …, "digest": …, "total_bytes": …, "completed_bytes": …}`."""

    def show(self, progress: Progress) -> None:
        click.echo(json.dumps(asdict(progress)))


class _Steps(_Shower):
    """A line for every new status, and for every tenth of a file."""

    def __init__(self) -> None:
        self._said: set[tuple[str, int]] = set()

    def show(self, progress: Progress) -> None:
        tenth = 10 * progress.completed_bytes // progress.total_bytes if progress.total_bytes else -1
        if (progress.status, tenth) in self._said or tenth == 0:
            return
        self._said.add((progress.status, tenth))
        of = f" {10 * tenth} % of {progress.total_bytes / 1e9:.2f} GB" if tenth >= 0 else ""
        say(progress.status + of)


class _Bars(_Shower):
    """A bar for every file, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only where a person watches
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415
        from rich.progress import Progress as Bars  # noqa: PLC0415

        console = Console(stderr=True)
        is_narrow = console.width < NARROW_WIDTH
        text = TextColumn("{task.description}", markup=False)
        columns = [text, BarColumn(12 if is_narrow else 40), DownloadColumn()]
        if not is_narrow:  # rich would wrap them
            columns += [TransferSpeedColumn(), TimeRemainingColumn()]
        self._bars = Bars(*columns, console=console)
        self._tasks: dict[str, object] = {}
        self._last = ""
        self._bars.start()

    def show(self, progress: Progress) -> None:
        if not progress.digest:
            if progress.status != self._last:
                self._bars.console.print(progress.status, markup=False, highlight=False)
            self._last = progress.status
            return
        task = self._tasks.get(progress.digest)
        if task is None:
            task = self._bars.add_task(progress.status, total=progress.total_bytes or None)
            self._tasks[progress.digest] = task
        self._bars.update(task, completed=progress.completed_bytes, total=progress.total_bytes or None)  # type: ignore[arg-type]

    def stop(self) -> None:
        self._bars.stop()
