"""`obcd status`: what the coordinator is doing."""

from __future__ import annotations

import json
import time

import click

from obcd.cli.common import START, config_option, find_layout_anyway, is_running, is_terminal, root_option
from obcd.coordinator.view import View
from obcd.errors import ExitCode, InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout

EPILOG = """\b
Examples:
  obcd status
  obcd status --watch
  obcd status --json | jq '.jobs[] | {name, done, total, eta_seconds}'

\b
States of an endpoint (each move is a line in the journal):
  STARTING  not reached yet: it gets no request
  UP        it gets a request for every slot
  SUSPECT   requests failed there: it gets one at a time until one is answered
  DOWN      it gets none; it is tried again after 1 s, later after up to 1 min
  DRAINING  it left the configuration: it finishes what it has

\b
States of a job:
  ACCEPTED     it waits for its turn
  RUNNING      its requests are asked
  PAUSED       it stands still until it is resumed; what is in flight finishes
  CANCELLED    it ends: its answers are published, the rest can be retried
  COMPLETE     every line has its result: it is being published
  QUARANTINED  the coordinator ended with it too often; obcd resume tries it again

In flight, "auto" behind the number means that slots are found by measurement.
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="the snapshot itself, for machines")
@click.option("--watch", is_flag=True, help="go on showing it until Ctrl-C")
@config_option
@root_option
def status(as_json: bool, watch: bool, config: str | None, root: str | None) -> int:
    """show jobs, endpoints, and what waits and why."""
    layout, fault = find_layout_anyway(config, root)
    if fault is not None and not is_running(layout):
        raise fault
    if as_json:
        while True:
            click.echo(json.dumps(_read(layout)))
            if not watch:
                return ExitCode.DONE
            time.sleep(1)
    return _show(layout, watch=watch)


def _read(layout: Layout) -> object:
    """Return the document of `status.json`: one of another version is shown to machines as it is."""
    if not is_running(layout):
        raise InputError(f"no coordinator runs on {layout.root}: start one ({START})")
    try:
        return disk.read_json(layout.status)
    except PermissionError:
        raise InputError(
            f"the status of {layout.root} is not yours to read: ask to be put into the daemon's group "
            "(usermod -aG obcd NAME), or use sudo"
        ) from None
    except OSError as error:
        raise InputError(f"the status of {layout.root} cannot be read: {error.strerror}") from None


def _view(layout: Layout) -> View:
    document = _read(layout)
    try:
        return View.from_json(document)
    except ValueError as error:
        raise InputError(f"the status of {layout.root} is of another obcd ({error}): obcd status --json") from None


def _show(layout: Layout, *, watch: bool) -> int:
    from rich.console import Console  # noqa: PLC0415

    from obcd.cli.live import LiveTables, draw  # noqa: PLC0415

    console = Console(width=None if is_terminal() else 200)  # a pipe has no width to fold to
    view = _view(layout)
    if not watch:
        console.print(f"[bold]{view.state}[/bold]  pid {view.pid}", highlight=False)
        outbox = view.outbox + ("/<user>" if view.per_user else "")
        console.print(f"inbox  {view.inbox}\noutbox {outbox}", markup=False, highlight=False)
        console.print(draw(view))
        return ExitCode.DONE
    with LiveTables(console) as tables:
        try:
            while True:
                tables.show(view)
                time.sleep(0.5)
                view = _view(layout)
        except KeyboardInterrupt:
            return ExitCode.DONE
