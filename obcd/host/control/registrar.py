"""Register the servers of a running host: a program below supervisord, which starts after the servers and stops first.

    plan.json, watch.json ─► ┌───────────┐ ─ NAME.json ─► hosts folder
    supervisord ── TERM ───► │ registrar │   serving … draining, requests in flight finish … gone
                             └───────────┘

An endpoint is in the record from the first time that its server answers: before that, another process may hold its
port. Ollama does not say how much is in flight; the coordinator closes its connections to an endpoint that drains when
the last response has come, so connections are what is counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from obcd.clock import monotonic, wall
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.servers.ports import connections
from obcd.host.watch.watch_file import FILE_NAME as WATCH_FILE
from obcd.host.watch.watcher import Notify
from obcd.hosts.record import WRITE_SECONDS, CardReading, HostState, RegisteredEndpoint
from obcd.hosts.registration import Registration
from obcd.spool.folders import disk

logger = logging.getLogger(__name__)

#: Its name under supervisor.
PROGRAM = "register"
#: Seconds of one turn; seconds between two looks at the connections, of which a probe of the watch has only one.
TURN_SECONDS, LOOK_SECONDS = 0.5, 1.0
#: Seconds to drain, unless the command line says otherwise: Slurm's TERM comes 120 s before the KILL, and the servers
#: take up to 20 s to end.
DRAIN_SECONDS = 100.0
#: Seconds to wait at the end for the last record to be written: the folder's file server may hang.
LAST_SECONDS = 5.0
#: Seconds by which systemd's timeout is extended while the host drains.
PATIENCE_SECONDS = 10

Content = tuple[HostState, tuple[RegisteredEndpoint, ...], tuple[CardReading, ...]]


class RecordWriter:
    """Writes records in a separate thread, always the latest one: a write may hang with the file server."""

    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        self._wanted: Content | None = None
        self._is_busy = False
        self._change = threading.Condition()
        self._said = ""
        threading.Thread(target=self._run, name="records", daemon=True).start()

    def offer(self, content: Content) -> None:
        """Have a record written soon."""
        with self._change:
            self._wanted = content
            self._change.notify_all()

    def finish(self, seconds: float) -> bool:
        """Wait until everything is written; return whether it is."""
        with self._change:
            return self._change.wait_for(lambda: self._wanted is None and not self._is_busy, seconds)

    def _run(self) -> None:
        while True:
            with self._change:
                self._is_busy = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._wanted is not None)
                content, self._wanted, self._is_busy = self._wanted, None, True
            if content is not None:
                self._write(content)

    def _write(self, content: Content) -> None:
        """Write one record; the same trouble is logged once."""
        try:
            trouble = self._registration.write(*content)
        except ValueError as error:
            trouble = f"the record of this host would not be accepted: {error}"
        if trouble and trouble != self._said:
            logger.warning("%s", trouble, extra={"action": "record_unwritten"})
        elif self._said and not trouble:
            logger.info("the record is written again", extra={"action": "record_written"})
        self._said = trouble


class Registrar:
    """Keeps the record of one host. One thread.

    Args:
        offer: Takes a record to be written.
        notify: Sends fields to systemd. It is an argument, because importing `obcd.notify` takes the address of systemd
            out of the environment, which `obcd host` passes on to the watch.
        look: Returns the present connections to some ports.
    """

    def __init__(
        self, plan: HostPlan, runtime: Path, offer: Callable[[Content], object], notify: Notify,
        look: Callable[[frozenset[int]], frozenset[str]] = connections,
    ) -> None:  # fmt: skip
        self._plan, self._runtime, self._offer, self._notify, self._look = plan, runtime, offer, notify, look
        self._ports = frozenset(server.port for server in plan.servers)
        self._answered: set[str] = set()
        self._state = HostState.SERVING
        self._offered: tuple[HostState, tuple[RegisteredEndpoint, ...]] | None = None
        self._due = 0.0
        self._deadline = float("inf")
        self._looked_at = 0.0
        self._connections: frozenset[str] | None = None

    def tick(self, now: float) -> bool:
        """Write the record when it is due or its endpoints change; return whether the host is drained."""
        document = self._read_watch()
        endpoints = tuple(self._endpoint(server, seen) for server, seen in self._serving(document))
        if now >= self._due or self._offered != (self._state, endpoints):
            self._due, self._offered = now + WRITE_SECONDS, (self._state, endpoints)
            self._offer((self._state, endpoints, tuple(self._cards(document))))
        return self._state is HostState.DRAINING and self._is_drained(now)

    def drain(self, now: float, seconds: float) -> None:
        """Accept nothing new; what is in flight has some seconds."""
        self._state, self._deadline = HostState.DRAINING, now + seconds
        self._looked_at = now

    def _is_drained(self, now: float) -> bool:
        """Return whether no connection lasts from one look to the next, or the time is over."""
        self._notify(EXTEND_TIMEOUT_USEC=PATIENCE_SECONDS * 1_000_000)
        if now < self._looked_at + LOOK_SECONDS:
            return now >= self._deadline
        before, self._looked_at = self._connections, now
        self._connections = self._look(self._ports)
        return now >= self._deadline or (before is not None and before.isdisjoint(self._connections))

    def _read_watch(self) -> Mapping[str, Any]:
        try:
            document = disk.read_json(self._runtime / WATCH_FILE)
        except (OSError, ValueError):  # the watch has just started
            return {}
        return document if isinstance(document, dict) else {}

    def _serving(self, document: Mapping[str, Any]) -> list[tuple[Server, Mapping[str, Any]]]:
        """Return the servers that have answered, and whose port no other process has taken since."""
        servers = document.get("servers", {})
        found = []
        for server in self._plan.servers:
            seen = servers.get(server.label, {})
            if seen.get("condition", {}).get("is_answering"):
                self._answered.add(server.label)
            if server.label in self._answered and not seen.get("facts", {}).get("holder"):
                found.append((server, seen))
        return found

    def _endpoint(self, server: Server, seen: Mapping[str, Any]) -> RegisteredEndpoint:
        return RegisteredEndpoint(
            url=self._plan.url(server),
            gpu=server.gpu,
            gpu_uuid=server.pin,
            slots=self._plan.parallel,
            version=str(seen.get("version", "")),
            yields=self._plan.yields,
        )

    def _cards(self, document: Mapping[str, Any]) -> list[CardReading]:
        names = {server.pin: server.card for server in self._plan.servers}
        readings, xids = document.get("cards", {}), document.get("xid_counts", {})
        since = wall() - document.get("updated", wall())
        return [
            CardReading.of(readings[uuid], name, xids.get(uuid), since=since)
            for uuid, name in names.items()
            if uuid in readings
        ]


def run(
    registrar: Registrar, writer: RecordWriter, is_stopped: threading.Event, drain_seconds: Callable[[], float]
) -> None:
    """Keep the record until a signal, then drain, and write that the host is gone.

    Args:
        is_stopped: Set by the signal.
        drain_seconds: Returns how long the host may drain; called at the signal.
    """
    while not is_stopped.wait(TURN_SECONDS):
        registrar.tick(monotonic())
    seconds = drain_seconds()
    logger.info("draining, up to %.0f s: requests in flight finish", seconds, extra={"action": "draining"})
    registrar.drain(monotonic(), seconds)
    pause = threading.Event()
    while not registrar.tick(monotonic()):
        pause.wait(TURN_SECONDS)
    writer.offer((HostState.GONE, (), ()))
    if not writer.finish(LAST_SECONDS):
        logger.warning("the last record is not written: the hosts folder hangs", extra={"action": "record_unwritten"})
