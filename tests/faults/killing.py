"""A daemon over simulated servers whose processes are killed at random: who, when, and how it comes back.

Two ways to run it: coordinator and servers as processes of their own (`Bare`), or all under one supervisord by
`obcd up` (`Supervised`), which then starts again what was killed. Only processes that the rig itself started, and their
children, are ever killed, by their ids.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import psutil

from obcd.host.supervisord.up_programs import free_ports
from obcd.spool.job import crash_count
from tests.faults.asked import Kill
from tests.faults.dropping import PROFILE
from tests.support import Running, family, is_gone, make_environment, obcd_command, wait_until, write_config

T = TypeVar("T")

#: Seconds in which all children of a killed coordinator have to be gone; the machine may be busy.
ORPHAN_SECONDS = 5.0
#: Longest wait for a moment that was chosen, in seconds: else the kill comes when the time is over.
MOMENT_SECONDS = 0.5
SLOTS = 4


class Victim(StrEnum):
    """Who is killed."""

    COORDINATOR = "coordinator"
    GROUP = "coordinator's process group"
    CLERK = "clerk"
    WORKER = "worker"
    FORK_SERVER = "fork server"
    NOTIFIER = "notifier"
    SERVER = "server"
    SUPERVISORD = "supervisord"


#: Those that the coordinator replaces while it goes on.
CHILDREN = frozenset((Victim.CLERK, Victim.NOTIFIER, Victim.WORKER, Victim.FORK_SERVER))


class Moment(StrEnum):
    """When."""

    ANY = "any time"
    START = "start and recovery"
    ACCEPTING = "acceptance"
    PUBLISHING = "publishing"


class Rig:
    """What both ways share: one root, one file with the servers' account, the kills.

    Args:
        runtime: A short folder for sockets and status.
    """

    servers = 0

    def __init__(self, folder: Path, runtime: Path, dice: random.Random) -> None:
        self.folder, self.root, self.account = folder, folder / "root", folder / "account"
        self.dice = dice
        self.kills: list[Kill] = []
        #: Whether nothing has been waited for since the coordinator was started.
        self.is_fresh = False
        self.counts: Counter[Victim] = Counter()
        self.moments: Counter[Moment] = Counter()
        self._runtime = runtime
        #: Children of what was killed, and until when they may live.
        self._orphans: list[tuple[psutil.Process, float]] = []
        tie = {"OBCD_DIE_WITH_PARENT": str(os.getpid()), "OBCD_SIMULATE_ACCOUNT": str(self.account)}
        self.environment = make_environment(runtime, **tie)

    # --- who is there --------------------------------------------------------------------------------------------

    def coordinator(self) -> int | None:
        """Return the coordinator's process id, None while it does not run."""
        raise NotImplementedError

    def server_pids(self) -> dict[str, int]:
        """Return `{host:port: process id}` of the servers that run."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """Return the present coordinator's snapshot; empty while there is none."""
        for path in self._runtime.glob("obcd-*/status.json"):
            with contextlib.suppress(OSError, ValueError):
                document: dict[str, Any] = json.loads(path.read_bytes())
                return document if document["pid"] == self.coordinator() else {}
        return {}

    def is_ready(self) -> bool:
        return self.status().get("state") == "READY"

    def children(self, prefix: str = "") -> dict[str, int]:
        """Return `{clerk or endpoint: process id}` of the coordinator's children, as far as they are alive."""
        pid = self.coordinator()
        alive = set(family(pid)) if pid is not None else set()
        listed = self.status().get("processes", {})
        return {name: child for name, child in listed.items() if child in alive and name.startswith(prefix)}

    # --- killing -------------------------------------------------------------------------------------------------

    def kill(self, victim: Victim, moment: Moment) -> bool:
        """Kill one; False when there is none of that kind at present."""
        self._await(moment)
        found = self._find(victim)
        if found is None:
            return False
        pid, servers = found
        orphans = family(pid)
        at = time.monotonic()
        try:
            if victim is Victim.GROUP:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.kills.append(Kill(at, servers))
        self.counts[victim] += 1
        self.moments[moment] += 1
        for orphan in orphans if victim in (Victim.COORDINATOR, Victim.GROUP, Victim.SUPERVISORD) else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._orphans.append((psutil.Process(orphan), at + ORPHAN_SECONDS))
        self.mend(victim)
        self.is_fresh = bool(orphans) and victim not in (
            Victim.CLERK,
            Victim.NOTIFIER,
            Victim.WORKER,
            Victim.FORK_SERVER,
        )
        return True

    def mend(self, victim: Victim) -> None:
        """Start again what nobody else does."""
        raise NotImplementedError

    def _find(self, victim: Victim) -> tuple[int, frozenset[int]] | None:
        """Return a process to kill, and the servers whose requests that touches."""
        servers = self.server_pids()
        if victim in (Victim.COORDINATOR, Victim.GROUP):
            pid = self.coordinator()
            return (pid, frozenset(servers.values())) if pid is not None else None
        if victim is Victim.SERVER:
            chosen = self._choose(list(servers.values()))
            return (chosen, frozenset({chosen})) if chosen is not None else None
        if victim in (Victim.CLERK, Victim.NOTIFIER):
            chosen = self._choose(list(self.children(victim).values()))
            return (chosen, frozenset()) if chosen is not None else None
        if victim is Victim.FORK_SERVER:
            chosen = self._choose(self._fork_servers())
            return (chosen, frozenset(servers.values())) if chosen is not None else None
        workers = {name: pid for name, pid in self.children().items() if name in servers}
        name = self._choose(list(workers))
        return (workers[name], frozenset({servers[name]})) if name is not None else None

    def _fork_servers(self) -> list[int]:
        pid = self.coordinator()
        if pid is None:
            return []
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any("forkserver" in word for word in child.cmdline()):
                        found.append(child.pid)
        return found

    def _choose(self, found: list[T]) -> T | None:
        return self.dice.choice(found) if found else None

    def _await(self, moment: Moment) -> None:
        """Wait for a moment, at most `MOMENT_SECONDS`, and a little longer: each step of it is to be hit."""
        looks: dict[Moment, Callable[[], bool]] = {
            Moment.ACCEPTING: self._is_accepting,
            Moment.PUBLISHING: self._is_publishing,
        }
        if moment in looks:
            until = time.monotonic() + MOMENT_SECONDS
            while not looks[moment]() and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(self.dice.uniform(0, 0.02))
        else:
            time.sleep(self.dice.uniform(0, 1.0 if moment is Moment.START else 0.6))

    def _is_accepting(self) -> bool:
        claims = self.root / "inbox" / ".obcd" / "claim"
        return any(name.endswith(".tmp") for name in _names(self.root / "jobs")) or bool(_names(claims))

    def _is_publishing(self) -> bool:
        jobs = self.root / "jobs"
        return any("responses.jsonl" in file for name in _names(jobs) for file in _names(jobs / name))

    # --- what must hold on the way -------------------------------------------------------------------------------

    def worst_begun(self) -> int:
        """Return how often a job was begun without a result since: at five it would be taken for a killer."""
        jobs = self.root / "jobs"
        return max((crash_count.deaths(jobs / name) for name in _names(jobs)), default=0)

    def check_orphans(self, *, wait: bool = False) -> None:
        """Assert that no child of what was killed lives longer than it may."""
        if wait:
            wait_until(lambda: not any(map(_is_running, self._processes())), ORPHAN_SECONDS, "children end")
        now = time.monotonic()
        late = [item for item, until in self._orphans if now > until and _is_running(item)]
        assert not late, f"they outlived their coordinator by {ORPHAN_SECONDS} s: {late}"
        self._orphans = [(item, until) for item, until in self._orphans if _is_running(item)]

    def _processes(self) -> list[psutil.Process]:
        return [item for item, _ in self._orphans]

    def logs(self) -> str:
        """Return what all processes said."""
        files = [*self.folder.glob("*.log"), *(self.root / "logs").glob("*.log*")]
        return "\n".join(path.read_text("utf-8", "replace") for path in files)

    def stop(self) -> None:
        """End everything, in order; nothing may be left."""
        raise NotImplementedError

    def end(self) -> None:
        """End what runs, whatever it does."""
        raise NotImplementedError


class Bare(Rig):
    """A coordinator, and servers beside it, each a process of its own on a port of its own.

    Args:
        tables: Further tables of its configuration.
    """

    servers = 3

    def __init__(self, folder: Path, runtime: Path, dice: random.Random, **tables: Any) -> None:
        super().__init__(folder, runtime, dice)
        self._ports = free_ports(self.servers)
        self._names = [f"127.0.0.1:{port}" for port in self._ports]
        limits = {"attempts": 20, "drain_seconds": 5.0}
        self._config = write_config(
            folder / "obcd.toml",
            dict.fromkeys(self._names, SLOTS),
            requests=limits,
            profiles={PROFILE: {"num_predict": 20}},
            **tables,
        )
        self._running: dict[str, Running] = {}
        self._daemon: Running | None = None
        for name in self._names:
            self._start_server(name)
        self._start_coordinator()
        wait_until(self.is_ready, what=self.logs)

    def coordinator(self) -> int | None:
        return self._daemon.pid if self._daemon is not None and self._daemon.process.poll() is None else None

    def server_pids(self) -> dict[str, int]:
        return {name: server.pid for name, server in self._running.items() if server.process.poll() is None}

    def mend(self, victim: Victim) -> None:
        if victim in (Victim.COORDINATOR, Victim.GROUP):
            assert self._daemon is not None
            self._daemon.wait()
            self._start_coordinator()
        for name in [name for name, server in self._running.items() if is_gone(server.pid)]:
            self._running[name].wait()
            self._start_server(name)

    def _start_server(self, name: str) -> None:
        port = int(name.rpartition(":")[2])
        options = ("--parallel", SLOTS, "--seconds", 0.05, "--seconds-spread", 0.6, "--load-seconds", 0.01)
        command = obcd_command("simulate", "--port", port, *options)
        self._running[name] = Running(command, self.environment, self.folder / "servers.log")

    def _start_coordinator(self) -> None:
        command = obcd_command("coordinator", "--config", self._config, "--root", self.root)
        self._daemon = Running(["setsid", *command], self.environment, self.folder / "coordinator.log")

    def stop(self) -> None:
        assert self._daemon is not None
        children = family(self._daemon.pid)
        self._daemon.send(signal.SIGTERM)
        assert self._daemon.wait() == 0, self.logs()
        wait_until(lambda: all(map(is_gone, children)), ORPHAN_SECONDS, "all processes end")
        self.end()

    def end(self) -> None:
        """End what runs, whatever it does."""
        for process in [self._daemon, *self._running.values()]:
            if process is not None:
                process.end()


class Supervised(Rig):
    """`obcd up --simulate`: supervisord keeps servers and coordinator; whoever started it starts it again."""

    servers = 2

    def __init__(self, folder: Path, runtime: Path, dice: random.Random) -> None:
        super().__init__(folder, runtime, dice)
        limits = {"attempts": 20, "num_predict": 6}
        self._config = write_config(
            folder / "obcd.toml", ["127.0.0.1:9"], requests=limits, profiles={PROFILE: {"num_predict": 4}}
        )
        self._up: Running | None = None
        #: Starts that were refused since the killed one's coordinator still ended.
        self.refused = 0
        self._start()
        wait_until(self.is_ready, what=self.logs)

    def _start(self) -> None:
        options = ("--simulate", "--servers", self.servers, "--parallel", SLOTS)
        command = obcd_command("up", *options, "--config", self._config, "--root", self.root)
        self._up = Running(command, self.environment, self.folder / "up.log")

    def _programs(self, word: str) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._up.pid).children() if self._up is not None else []:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if word in child.cmdline():
                        found.append(child)
        return found

    def coordinator(self) -> int | None:
        found = self._programs("coordinator")
        return found[0].pid if found else None

    def server_pids(self) -> dict[str, int]:
        found = {}
        for child in self._programs("simulate"):
            with contextlib.suppress(psutil.NoSuchProcess, ValueError):
                words = child.cmdline()
                found[f"127.0.0.1:{words[words.index('--port') + 1]}"] = child.pid
        return found

    def _find(self, victim: Victim) -> tuple[int, frozenset[int]] | None:
        if victim is not Victim.SUPERVISORD:
            return super()._find(victim)
        assert self._up is not None
        return self._up.pid, frozenset(self.server_pids().values())

    def mend(self, victim: Victim) -> None:
        if victim is Victim.SUPERVISORD:
            assert self._up is not None
            self._up.wait()
            self._start()

    def is_ready(self) -> bool:
        """Tell whether it runs; one that was refused since the old coordinator still ended is started again."""
        assert self._up is not None
        code = self._up.process.poll()
        if code is not None:
            assert code == 7, self.logs()
            self.refused += 1
            self._start()
        return super().is_ready()

    def stop(self) -> None:
        assert self._up is not None
        children = family(self._up.pid)
        self._up.send(signal.SIGTERM)
        assert self._up.wait() == 0, self.logs()
        wait_until(lambda: all(map(is_gone, children)), ORPHAN_SECONDS, "all processes end")

    def end(self) -> None:
        """End what runs, whatever it does."""
        if self._up is not None:
            self._up.end()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
