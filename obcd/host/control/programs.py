"""The programs under the supervisord of a host: `obcd serve-gpu` for every server of the plan, and the watch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def watch_listener(runtime: Path, *, is_journal: bool) -> EventListener:
    """Return the watch as an event listener."""
    chosen = ("--journal",) if is_journal else ()
    command = (sys.executable, "-m", "obcd", "host-watch", "--runtime", str(runtime), *chosen, *WATCH_OPTIONS)
    return EventListener(name=PROGRAM, command=command, events=EVENTS)
