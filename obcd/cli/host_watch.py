"""`obcd host-watch`: the watch, as supervisord starts it; no command for people."""

from __future__ import annotations

import logging
import os
from logging.handlers import SysLogHandler
from pathlib import Path

import click

from obcd.host.gpus import XidWatch, read_cards
from obcd.host.plan import Plan, find_runtime, read_plan
from obcd.host.reading import CardReader
from obcd.host.remote import Remote
from obcd.host.watch import Watch, load_memory, run
from obcd.host.watching import Limits
from obcd.logs import set_up_logging
from obcd.notify import notify

#: Where syslog(3) writes; journald reads it, and tells the unit by the sender's cgroup.
SYSLOG = "/dev/log"


@click.command(hidden=True)
@click.option("--runtime", metavar="DIR", help="the host's runtime folder")
@click.option("--syslog", is_flag=True, help="log to the system's log too")
@click.option("--limit", "changes", metavar="NAME=NUMBER", multiple=True, help="a number of the watch, e.g. pause=60")
def host_watch(runtime: str | None, syslog: bool, changes: tuple[str, ...]) -> None:
    """watch the servers of a host (started by obcd host)."""
    set_up_logging()
    if syslog:
        _add_syslog()
    folder = find_runtime(runtime)
    plan = read_plan(folder)
    with Remote(folder) as remote:
        watch = Watch(
            plan, folder, remote, _reader(plan), notify=notify,
            limits=_limits(changes), memory=load_memory(folder),
        )  # fmt: skip
        run(watch, 0, lambda data: os.write(1, data))


def _limits(changes: tuple[str, ...]) -> Limits:
    pairs = [change.partition("=") for change in changes]
    return Limits(**{name: float(number) for name, _, number in pairs})  # type: ignore[arg-type]


def _reader(plan: Plan) -> CardReader:
    pins = [server.pin for server in plan.servers if server.pin]
    if plan.vendor != "nvidia" or not pins:
        return CardReader(dict, list)
    return CardReader(lambda: read_cards(pins), _XidsLater().poll)


class _XidsLater:
    """Opens the driver's events in the thread that reads the cards, not before: that can take its time."""

    def __init__(self) -> None:
        self._watch: XidWatch | None = None

    def poll(self) -> list[tuple[str, int]]:
        """Return what is new."""
        if self._watch is None:
            self._watch = XidWatch()
        return self._watch.poll()


def _add_syslog() -> None:
    """Log to the journal too, with levels; standard error goes to the watch's own log file."""
    if not Path(SYSLOG).exists():
        return
    handler = SysLogHandler(SYSLOG, SysLogHandler.LOG_DAEMON)
    handler.ident = "obcd-host-watch: "
    handler.append_nul = False
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("obcd").addHandler(handler)
