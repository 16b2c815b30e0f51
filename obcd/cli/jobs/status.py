"""`obcd status`: show jobs, endpoints and waiting files of a coordinator."""

from __future__ import annotations

import json
import time

import click

from obcd.cli.common import (
    START,
    config_option,
    find_layout_anyway,
    is_running,
    is_terminal,
    read_status,
    root_option,
)
from obcd.coordinator.view import View
from obcd.errors import ExitCode, InputError
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
  SUSPECT   requests failed there: it gets one at a time until one succeeds
  DOWN      it gets none; it is tried again after 1 s, later after up to 1 min
  DRAINING  removed, or its host is silent or ends: it finishes its requests in flight

\b
States of a job:
  ACCEPTED     it waits for its turn among the active jobs
  RUNNING      its requests are being sent
  PAUSED       no more of its requests are sent until it is resumed; those in flight finish
  CANCELLED    it ends: its results are published, the rest can be retried
  COMPLETE     every line has its result: it is being published
  QUARANTINED  it crashed the coordinator repeatedly; obcd resume tries it again

In the column "in flight", "auto" means that obcd finds the number of slots by measurement.
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="print the snapshot as JSON, for machines")
@click.option("--watch", is_flag=True, help="update the display until Ctrl-C, with the speed of the last hour")
@config_option
@root_option
def status(as_json: bool, watch: bool, config: str | None, root: str | None) -> int:
    """show jobs, endpoints, and waiting files with the reason."""
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
    """Return the document of `status.json`, unchecked: `--json` prints also that of another version."""
    if not is_running(layout):
        raise InputError(f"no coordinator runs on {layout.root}: start one ({START})")
    try:
        document: object = read_status(layout)
    except PermissionError:
        raise InputError(
            f"the status of {layout.root} cannot be read by this user: join the daemon's group "
            "(usermod -aG obcd NAME), or use sudo"
        ) from None
    except OSError as error:
        raise InputError(f"the status of {layout.root} cannot be read: {error.strerror}") from None
    return document


def _view(layout: Layout) -> View:
    document = _read(layout)
    try:
        return View.from_json(document)
    except ValueError as error:
        raise InputError(
            f"the status of {layout.root} is from another version of obcd ({error}): use obcd status --json"
        ) from None


def _show(layout: Layout, *, watch: bool) -> int:
    from rich.console import Console  # noqa: PLC0415

    from obcd.cli.live import LiveTables, draw  # noqa: PLC0415
    from obcd.cli.sparkline import LastHour  # noqa: PLC0415

    console = Console(width=None if is_terminal() else 200)  # a pipe has no width to wrap to
    view = _view(layout)
    if not watch:
        console.print(f"[bold]{view.state}[/bold]  pid {view.pid}", highlight=False)
        outbox = view.outbox + ("/<user>" if view.per_user else "")
        console.print(f"inbox  {view.inbox}\noutbox {outbox}", markup=False, highlight=False)
        console.print(draw(view))
        return ExitCode.DONE
    last_hour = LastHour(layout.root)
    with LiveTables(console) as tables:
        try:
            while True:
                tables.show(view, last_hour.text())
                time.sleep(0.5)
                view = _view(layout)
        except KeyboardInterrupt:
            return ExitCode.DONE
