"""`obcd host-register`: the registrar, which supervisord starts; not a command for people."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

from obcd.clock import wall
from obcd.host.control.programs import STOP_SECONDS
from obcd.host.control.registrar import RecordWriter, Registrar, run
from obcd.host.servers.allocation import read_allocation
from obcd.host.servers.plan import read_plan
from obcd.hosts.registration import Registration
from obcd.logs.setup import set_up_logging
from obcd.notify import notify


@click.command(hidden=True)
@click.option("--runtime", metavar="DIR", required=True, help="the host's runtime folder")
@click.option("--folder", metavar="DIR", required=True, help="the hosts folder")
@click.option("--name", required=True, help="the record's name")
@click.option("--drain", "drain_seconds", type=float, required=True, help="seconds that requests in flight may take")
def host_register(runtime: str, folder: str, name: str, drain_seconds: float) -> None:
    """register the servers of a host (started by obcd host)."""
    is_stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: is_stopped.set())
    set_up_logging()
    allocation = read_allocation(os.environ)
    until = None if allocation is None else allocation.until
    writer = RecordWriter(Registration(Path(folder), name, by="" if allocation is None else allocation.by, until=until))

    def limit() -> float:
        """Return how long the host may drain: its servers have to end before the allocation does."""
        return drain_seconds if until is None else max(0.0, min(drain_seconds, until - wall() - STOP_SECONDS))

    run(Registrar(read_plan(Path(runtime)), Path(runtime), writer.offer, notify), writer, is_stopped, limit)
