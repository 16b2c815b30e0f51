"""The watch: an event listener of supervisor that keeps the servers of a host serving, and notifies systemd.

    supervisord ─ events ─► ┌───────┐ ─ WATCHDOG, READY, STATUS ─► systemd
    servers ─ /api/ps ────► │ watch │ ─ TERM, KILL, start ───────► supervisord
    driver ─ readings ────► └───────┘ ─ watch.json ──────────────► obcd host status

It is one loop in one thread. Calls that can hang (to servers, to the driver) run in other threads, and a result that
is late counts as hung. The watch never generates and never loads: it knows neither model nor signature. `watch_rules`
decides; this module only observes and acts. It sends WATCHDOG=1 after a tick from supervisord and a turn of the loop,
so that systemd notices if either hangs.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from obcd.clock import monotonic, wall
from obcd.errors import ObcdError
from obcd.host.servers.locks import is_pulling
from obcd.host.servers.log_files import last_words
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.servers.ports import holder, is_foreign
from obcd.host.supervisord.remote import ProcessState, Remote
from obcd.host.watch.card_reader import CardReader
from obcd.host.watch.event_listener import Event, SupervisorEvents
from obcd.host.watch.probing import Prober, ServerProbe
from obcd.host.watch.watch_file import FILE_NAME
from obcd.host.watch.watch_rules import (
    STOPPED,
    Action,
    Condition,
    Facts,
    ProbeAnswer,
    Restart,
    WatchLimits,
    WatchVerb,
    has_had_its_chance,
    judge,
)
from obcd.spool.folders import disk

logger = logging.getLogger(__name__)

#: Its name under supervisor, and its events.
PROGRAM = "watch"
EVENTS = ("TICK_5", "PROCESS_STATE", "SUPERVISOR_STATE_CHANGE_STOPPING")
#: Seconds of one turn of the loop if no event comes.
TURN_SECONDS = 0.5
#: Seconds between two writes of watch.json; seconds after which READY goes to systemd regardless of the servers.
WRITE_SECONDS, READY_SECONDS = 1.0, 60.0


Kept = TypeVar("Kept", Condition, Restart)


class Notify(Protocol):
    """`obcd.notify.notify`."""

    def __call__(self, **fields: str | int) -> None:
        """Send fields to the service manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One server after the last turn."""

    facts: Facts
    condition: Condition
    version: str = ""


class Watch:
    """Watches the servers of one host.

    Args:
        memory: The conditions from an earlier watch of the same host, by `load_memory`.
        notify: Sends fields to systemd.
    """

    def __init__(
        self, plan: HostPlan, runtime: Path, remote: Remote, reader: CardReader,
        *, notify: Notify, limits: WatchLimits | None = None, memory: dict[str, Condition] | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._runtime, self._remote, self._reader = plan, runtime, remote, reader
        self._notify, self._limits = notify, limits or WatchLimits()
        self._prober = Prober({server.label: plan.url(server) for server in plan.servers}, self._limits.probe)
        remembered = memory or {}
        self._conditions = {server.label: remembered.get(server.label, Condition()) for server in plan.servers}
        self._seen: dict[str, Seen] = {}
        self._holders: dict[str, tuple[int, int, str]] = {}  # label: (pid, probe, other process that listens)
        self._words: dict[str, tuple[object, str]] = {}  # label: (failure, its last log line)
        self._tried: set[str] = set()  # labels of servers that have answered, or could not
        self._trouble = ""  # trouble of supervisord itself
        self._started = monotonic()
        self._written = 0.0
        self._status = ""
        self._is_ready = self._is_unwritten = False
        self._is_stopping = False

    def tick(self, now: float, events: Sequence[Event]) -> None:
        """Make one turn: observe, decide, act, report."""
        self._prober.tick(now)
        for xid in self._reader.tick(now):
            logger.warning("the driver reports Xid %d of card %s", xid.code, xid.uuid, extra={"action": "xid_seen"})
        self._is_stopping = self._is_stopping or any(event.name.endswith("_STOPPING") and "SUPERVISOR" in event.name
                                                     for event in events)  # fmt: skip
        if self._is_stopping:
            # no STOPPING=1: on SIGHUP supervisord restarts everything, and systemd would wait for its end in vain
            self._notify(STATUS="stopping: the servers are ending")
            return
        self._look(now)
        self._report(now)
        if any(event.name.startswith("TICK") for event in events):
            self._notify(WATCHDOG=1)

    def _look(self, now: float) -> None:
        try:
            states = self._remote.states()
        except ObcdError as error:
            self._say_trouble(str(error))
            return
        self._say_trouble("")
        held = is_pulling(self._runtime)
        for server in self._plan.servers:
            state = states.get(server.program)
            if state is not None:
                self._judge(server, state, now, is_held=held)

    def _judge(self, server: Server, state: ProcessState, now: float, *, is_held: bool) -> None:
        before = self._conditions[server.label]
        facts = self._facts(server, state, now, is_held=is_held)
        verdict = judge(facts, before, now, self._limits)
        condition = verdict.condition
        if condition.pid != before.pid:
            self._prober.forget(server.label)
        if condition.trouble != before.trouble and condition.trouble and not verdict.actions:
            logger.warning(
                "%s: %s",
                server.program,
                condition.trouble,
                extra={"action": "server_troubled", "server": server.program},
            )
        elif before.restarts[-1:] != condition.restarts[-1:] and condition.restarts[-1].by == "person":
            logger.info(
                "%s: restarted by a person", server.program,
                extra={"action": "server_restarted", "server": server.program},
            )  # fmt: skip
        elif _has_recovered(before, condition):
            logger.info(
                "%s answers again", server.program, extra={"action": "server_recovered", "server": server.program}
            )
        self._conditions[server.label] = condition
        self._seen[server.label] = Seen(
            facts=facts, condition=condition, version=self._prober.latest(server.label).version
        )
        for action in verdict.actions:
            self._act(server, action)

    def _facts(self, server: Server, state: ProcessState, now: float, *, is_held: bool) -> Facts:
        probe = self._prober.latest(server.label)
        report = self._reader.latest
        reading = report.readings.get(server.pin)
        # a reading from before this process does not count: serve-gpu has found the card after it (supervisor's ages
        # are whole seconds)
        is_fresh = not state.pid or report.at > now - state.age_seconds + 1.0
        is_down = not state.pid and state.state not in STOPPED
        return Facts(
            holder=self._holder(server, state, probe), last_words=self._last_words(server, state) if is_down else "",
            state=state.state, pid=state.pid, age_seconds=state.age_seconds, fault=state.fault,
            probe=probe.number, answer=probe.answer, models=probe.models,
            has_card=bool(server.pin), is_pulling=is_held,
            is_card_gone=reading is not None and reading.is_lost and is_fresh,
        )  # fmt: skip

    def _holder(self, server: Server, state: ProcessState, probe: ServerProbe) -> str:
        """Return the process that answers instead of a server; checked at each probe until the server listens."""
        if not state.pid or probe.answer not in (ProbeAnswer.ANSWERED, ProbeAnswer.STRANGE, ProbeAnswer.HUNG):
            return ""
        known = self._holders.get(server.label)
        if known is None or known[:2] != (state.pid, probe.number):
            is_own = known is not None and known[0] == state.pid and not known[2]
            who = holder(server.port) if not is_own and is_foreign(state.pid, server.port) else ""
            known = self._holders[server.label] = (state.pid, probe.number, who)
        return known[2]

    def _last_words(self, server: Server, state: ProcessState) -> str:
        """Return the last log line of a server that does not run; read once per failure."""
        key = (state.state, state.fault, self._conditions[server.label].pid)
        known = self._words.get(server.label)
        if known is None or known[0] != key:
            known = self._words[server.label] = (key, last_words(self._runtime, server.program))
        return known[1]

    def _act(self, server: Server, action: Action) -> None:
        logger.warning(
            "%s: %s: %s", server.program, action.verb.value, action.reason,
            extra={"action": f"server_{action.verb.name.lower()}", "server": server.program},
        )  # fmt: skip
        try:
            if action.verb is WatchVerb.START:
                self._remote.start(server.program)
            else:
                self._remote.signal(server.program, action.verb.value)
        except ObcdError as error:  # it has ended, or the host is stopping; the next turn sees the new state
            logger.warning(
                "%s: %s", server.program, error, extra={"action": "supervisor_refused", "server": server.program}
            )

    def _say_trouble(self, trouble: str) -> None:
        if trouble != self._trouble and trouble:
            logger.error("%s", trouble, extra={"action": "supervisor_silent"})
        self._trouble = trouble

    def _report(self, now: float) -> None:
        """Report the state to systemd and to `obcd host status`."""
        if not self._is_ready and self._may_be_ready(now):
            self._is_ready = True
            self._notify(READY=1)
        status = self.status()
        if status != self._status:
            self._status = status
            logger.info("%s", status, extra={"action": "host_status"})
            self._notify(STATUS=status)
            self._written = 0.0  # so that `obcd host status` shows the same
        if now - self._written >= WRITE_SECONDS:
            self._written = now
            self._write(now)

    def _write(self, now: float) -> None:
        """Write watch.json; a full disk prevents this, but must not stop the watch."""
        try:
            disk.show_json(self._runtime / FILE_NAME, self.document(now), 0o600)
        except OSError as error:
            if not self._is_unwritten:
                logger.warning(
                    "%s cannot be written: %s; the watch goes on without", self._runtime / FILE_NAME, error.strerror,
                    extra={"action": "watch_unwritten"},
                )  # fmt: skip
            self._is_unwritten = True
        else:
            self._is_unwritten = False

    def _may_be_ready(self, now: float) -> bool:
        self._tried |= {label for label, seen in self._seen.items() if has_had_its_chance(seen.facts, seen.condition)}
        return len(self._tried) == len(self._plan.servers) or now - self._started > READY_SECONDS

    def status(self) -> str:
        """Return one line, e.g. `3/4 servers answer; gpu2: its card is gone`."""
        troubles = [
            f"{server.program}: {seen.condition.trouble}"
            for server in self._plan.servers
            if (seen := self._seen.get(server.label)) is not None and seen.condition.trouble
        ]
        answering = sum(seen.condition.is_answering for seen in self._seen.values())
        heads = [f"{answering}/{len(self._plan.servers)} servers answer", *filter(None, [self._trouble])]
        return "; ".join([*heads, *troubles]).replace("\n", " ")

    def document(self, now: float) -> dict[str, object]:
        """Return the content of watch.json: the facts and the condition of every server.

        `{"updated": 1795370000.1, "pid": 7, "is_ready": true, "status": "4/4 servers answer",
        "xids": [{uuid, code, at}], "xid_counts": {uuid: {count, last}}, "cards": {uuid: {readings, age_seconds}},
        "servers": {"0": {"version": "0.33.0", "facts": {…}, "condition": {…}, "alone_seconds": 12.5}}}`
        """
        age = round(max(0.0, now - self._reader.latest.at), 1)
        return {
            "updated": wall(),
            "pid": os.getpid(),
            "is_ready": self._is_ready,
            "status": self._status,
            "xids": [asdict(xid) for xid in self._reader.latest.xids],
            "xid_counts": {uuid: asdict(item) for uuid, item in self._reader.latest.xid_counts.items()},
            "cards": {
                uuid: {**asdict(reading), "age_seconds": age} for uuid, reading in self._reader.latest.readings.items()
            },
            "servers": {label: _shown(seen, now) for label, seen in self._seen.items()},
        }


def _has_recovered(before: Condition, condition: Condition) -> bool:
    if condition.trouble or not condition.is_answering:
        return False
    return bool(before.trouble) or (condition.restart_count > 0 and not before.has_answered)


def _shown(seen: Seen, now: float) -> dict[str, object]:
    facts = {**asdict(seen.facts), "answer": seen.facts.answer.value}
    alone = max(0.0, seen.condition.next_restart_at - now)
    return {"version": seen.version, "facts": facts, "condition": asdict(seen.condition), "alone_seconds": alone}


def load_memory(runtime: Path) -> dict[str, Condition]:
    """Return the conditions from an earlier watch of this host: a new watch must not repeat restarts or forget pauses.

    Its times are monotonic, and valid as long as the machine is up; `obcd host` removes the file when it starts.
    """
    try:
        servers = disk.read_json(runtime / FILE_NAME)["servers"]
        return {label: _remembered(item["condition"]) for label, item in servers.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("the state of an earlier watch cannot be read: %s", error, extra={"action": "memory_lost"})
        return {}


def _checked(value: Kept) -> Kept:
    """Return a value from a file, if its fields have the types of their annotations.

    Raises:
        TypeError: If a field has another type.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "str": (str,),
        "float | None": (int, float, type(None)),
    }
    for field in fields(value):
        kind = kinds.get(str(field.type))
        found = getattr(value, field.name)
        if kind is not None and (not isinstance(found, kind) or (bool not in kind and isinstance(found, bool))):
            raise TypeError(f"{field.name} is {found!r:.80}")
    return value


def _remembered(item: dict[str, Any]) -> Condition:
    restarts = tuple(_checked(Restart(**entry)) for entry in item["restarts"])
    condition = _checked(Condition(**{**item, "restarts": restarts}))
    return replace(condition, probe=0, is_answering=False, hangs=0, refused_since=None, trouble="")


def run(watch: Watch, receive: int, send: Callable[[bytes], object]) -> None:
    """Watch until supervisord closes the pipe.

    Args:
        receive: The descriptor from which events come.
        send: Writes to supervisord.
    """
    events = SupervisorEvents(send)
    events.start()
    while True:
        arrived: list[Event] = []
        if select.select([receive], [], [], TURN_SECONDS)[0]:
            data = os.read(receive, 65536)
            if not data:
                return
            arrived = events.feed(data)
        watch.tick(monotonic(), arrived)
