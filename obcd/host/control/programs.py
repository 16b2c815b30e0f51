"""The programs under the supervisord of a host: `obcd serve-gpu` for every server, the watch, and the registrar."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from obcd.host.control.registrar import LAST_SECONDS
from obcd.host.control.registrar import PROGRAM as REGISTRAR
from obcd.host.servers.plan import HostPlan
from obcd.host.supervisord.configuration import EventListener, Program
from obcd.host.watch.watcher import EVENTS, PROGRAM

#: A program that dies at once often looks alive for a second: a lower value makes it flap between RUNNING and dead.
START_SECONDS = 5
#: After these, supervisor gives up and the watch continues: supervisor's pauses would grow by a second without limit.
START_RETRIES = 10
#: ollama ends at once on TERM (it has no drain); a runner that frees a card's memory may take seconds.
STOP_SECONDS = 20
#: More arguments for the watch's command line; for tests.
WATCH_OPTIONS: tuple[str, ...] = ()


def server_programs(plan: HostPlan, plan_file: Path) -> list[Program]:
    """Return one program per server; all have the same priority, so that they start at once.

    The caller becomes supervisord, so its process id is that of their parent: if a server looked up its parent itself,
    the parent might already have ended.
    """
    launcher = (sys.executable, "-m", "obcd", "serve-gpu")
    return [
        Program(
            name=server.program,
            command=(*launcher, server.label, "--plan", str(plan_file), "--parent", str(os.getpid())),
            stop_seconds=STOP_SECONDS,
            start_seconds=START_SECONDS,
            start_retries=START_RETRIES,
            stops_as_group=True,
        )
        for server in plan.servers
    ]


def register_program(runtime: Path, folder: Path, name: str, drain_seconds: float) -> Program:
    """Return the registrar; it starts last and stops first, and the servers stop when it has ended."""
    options = ("--runtime", str(runtime), "--folder", str(folder), "--name", name, "--drain", f"{drain_seconds:g}")
    return Program(
        name=REGISTRAR,
        command=(sys.executable, "-m", "obcd", "host-register", *options),
        priority=200,
        stop_seconds=math.ceil(drain_seconds + LAST_SECONDS) + 5,
        start_seconds=START_SECONDS,
    )


def watch_listener(runtime: Path, *, is_journal: bool) -> EventListener:
    """Return the watch as an event listener."""
    chosen = ("--journal",) if is_journal else ()
    command = (sys.executable, "-m", "obcd", "host-watch", "--runtime", str(runtime), *chosen, *WATCH_OPTIONS)
    return EventListener(name=PROGRAM, command=command, events=EVENTS)
