"""`obcd host-watch`: the watch, which supervisord starts; not a command for people."""

from __future__ import annotations

import os

import click

from obcd.host.cards.gpus import XidWatch, read_cards
from obcd.host.servers.plan import HostPlan, read_plan
from obcd.host.servers.runtime import folder_that_runs
from obcd.host.supervisord.remote import Remote
from obcd.host.watch.card_reader import CardReader
from obcd.host.watch.watch_rules import WatchLimits
from obcd.host.watch.watcher import Watch, load_memory, run
from obcd.logs.setup import set_up_logging
from obcd.notify import notify


@click.command(hidden=True)
@click.option("--runtime", metavar="DIR", help="the host's runtime folder")
@click.option("--journal", is_flag=True, help="log to systemd's journal: standard error is supervisor's pipe")
@click.option("--limit", "changes", metavar="NAME=NUMBER", multiple=True, help="a limit of the watch, e.g. pause=60")
def host_watch(runtime: str | None, journal: bool, changes: tuple[str, ...]) -> None:
    """watch the servers of a host (started by obcd host)."""
    set_up_logging(to_journal=journal)
    folder = folder_that_runs(runtime)
    plan, limits = read_plan(folder), _limits(changes)
    with Remote(folder) as remote:
        watch = Watch(
            plan, folder, remote, _reader(plan, limits.reading), notify=notify,
            limits=limits, memory=load_memory(folder),
        )  # fmt: skip
        run(watch, 0, lambda data: os.write(1, data))


def _limits(changes: tuple[str, ...]) -> WatchLimits:
    pairs = [change.partition("=") for change in changes]
    return WatchLimits(**{name: float(number) for name, _, number in pairs})  # type: ignore[arg-type]


def _reader(plan: HostPlan, period: float) -> CardReader:
    pins = [server.pin for server in plan.servers if server.pin]
    if plan.vendor != "nvidia" or not pins:
        return CardReader(dict, list)
    return CardReader(lambda: read_cards(pins), _XidsLater().poll, period)


class _XidsLater:
    """Opens the driver's events in the thread that reads the cards, because opening can take long."""

    def __init__(self) -> None:
        self._watch: XidWatch | None = None

    def poll(self) -> list[tuple[str, int]]:
        """Return the new events."""
        if self._watch is None:
            self._watch = XidWatch()
        return self._watch.poll()
