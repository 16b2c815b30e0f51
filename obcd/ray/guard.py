"""The process between a Ray actor and its server: it starts the server, watches it, and ends it with the actor.

    actor ── {"lease": 120}, {"drain": 600, "cause": "scaling"} ──► stdin     its end means: end the server now
          ◄── ServerReport, when it changes and every 10 s ──────── stdout

Why a process: Ray ends an actor by SIGKILL, and its process group with it, but where the raylet itself was killed, the
group goes on. This process then sees the end of its pipe. The lock of a card keeps two guards from one card, whatever
Ray believes about the card.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
from dataclasses import asdict, replace

from obcd.clock import monotonic
from obcd.errors import ObcdError
from obcd.host.cards.gpus import read_cards
from obcd.host.servers.card_locks import MAX_PIN
from obcd.host.servers.log_files import last_words
from obcd.host.servers.ports import connections
from obcd.host.watch.card_reader import CardReader
from obcd.host.watch.probing import Prober
from obcd.host.watch.watch_rules import Condition, Facts, WatchLimits, WatchVerb, judge
from obcd.hosts.machine import machine_id
from obcd.hosts.record import CardReading
from obcd.ray.messages import REPORT_SECONDS, DrainCause, GuardState, ServerReport, ServerWish
from obcd.ray.server_process import ServerProcess

#: Seconds of one turn; between two looks at the size of the log.
TURN_SECONDS, TRIM_SECONDS = 0.5, 60.0
#: Seconds that a server has to run before its end counts as an accident, after which it is started again at once.
YOUNG_SECONDS = 5.0
#: Seconds between two looks whether another guard still has the card.
CARD_SECONDS = 2.0
#: An order from the actor is a short line.
MAX_ORDER_BYTES = 65536
#: Seconds between two looks at the connections of a draining server; one that lasts belongs to a client.
LOOK_SECONDS = 1.0


class Guard:
    """Keeps one server.

    Args:
        wish: How it is to be started.
        bind: The address that it listens on.
    """

    def __init__(self, wish: ServerWish, bind: str) -> None:
        self._wish, self._bind = wish, bind
        self._process: ServerProcess | None = None
        self._limits = WatchLimits()
        self._prober: Prober | None = None
        self._reader: CardReader | None = None
        self._condition = Condition()
        self._held: socket.socket | None = None
        self._lease_end = monotonic() + wish.lease_seconds
        self._drain_since = self._drain_end = self._next_look = 0.0
        self._connections: frozenset[str] | None = None
        self._next_try = self._next_trim = 0.0
        self._pause = self._limits.start_pause
        self.report = ServerReport(mark=wish.mark, machine=machine_id(), node=socket.gethostname())

    def obey(self, order: dict[str, object], now: float) -> None:
        """Follow one order of the actor."""
        if "lease" in order:
            self._lease_end = now + self._wish.lease_seconds
        if "drain" in order:
            self._drain(str(order.get("cause")), float(str(order["drain"])), now)

    def tick(self, now: float) -> bool:
        """Make one turn; return whether there will be another one."""
        if now >= self._lease_end:
            self.end(DrainCause.LEASE)
        elif self.report.state == GuardState.DRAINING:
            self._go_on_draining(now)
        elif self._process is None:
            self._prepare(now)
        else:
            self._watch(self._process, now)
        return self.report.state != GuardState.ENDED

    def end(self, cause: str) -> None:
        """End the server for good."""
        trouble = ""
        if self._process is not None:
            try:
                self._process.end()
            except (ObcdError, OSError) as error:
                trouble = str(error)
        self.report = replace(self.report, state=GuardState.ENDED, cause=cause, url="", trouble=trouble)

    def _drain(self, cause: str, seconds: float, now: float) -> None:
        self._drain_since, self._drain_end = now, now + seconds
        self.report = replace(self.report, state=GuardState.DRAINING, cause=cause)

    def _go_on_draining(self, now: float) -> None:
        """End a draining server when no client is connected any more, or its time is over."""
        if self._process is None or not self._process.pid or now >= self._drain_end:
            self.end(self.report.cause)
        elif now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            before, self._connections = self._connections, connections({self._process.server.port})
            lasting = self._connections if before is None else before & self._connections
            self.report = replace(self.report, connections=len(lasting))
            if before is not None and not lasting and now - self._drain_since >= self._wish.settle_seconds:
                self.end(self.report.cause)

    def _prepare(self, now: float) -> None:
        """Start the server for the first time, as soon as that is possible; the trouble says what is missing."""
        if now < self._next_try:
            return
        try:
            self._begin()
        except (ObcdError, OSError) as error:
            self._next_try, self._pause = now + self._pause, min(2 * self._pause, self._limits.longest_start_pause)
            self.report = replace(self.report, trouble=str(error))

    def _begin(self) -> None:
        process = ServerProcess(self._wish, self._bind)
        self._held = self._held or guard_card(process.server.pin)
        if self._held is None:
            self._next_try = monotonic() + CARD_SECONDS
            self.report = replace(
                self.report, trouble=f"the card {process.server.pin} still has a server of an earlier actor: it waits"
            )
            return
        process.start()
        self._process, pin = process, process.server.pin
        self._follow(process)
        if self._reader is None and pin and process.plan.vendor == "nvidia":
            self._reader = CardReader(lambda: read_cards([pin]), list, REPORT_SECONDS)

    def _follow(self, process: ServerProcess) -> None:
        """Report where the server is after a start; its port may be another one."""
        self._prober = Prober({process.server.label: process.url}, self._limits.probe)
        self.report = replace(
            self.report, state=GuardState.STARTING, url=process.url, gpu=process.server.gpu,
            gpu_uuid=process.server.pin, slots=process.plan.parallel, trouble="",
        )  # fmt: skip

    def _watch(self, process: ServerProcess, now: float) -> None:
        """Observe the server, judge it by the rules of `obcd host`, and act."""
        if not process.pid and now >= self._next_try and (self._condition.reason or self._was_serving(process)):
            self._start_again(process, now)
        facts = self._facts(process, now)
        verdict = judge(facts, self._condition, now, self._limits)
        self._condition = verdict.condition
        for action in verdict.actions:
            if action.verb is WatchVerb.START:
                self._start_again(process, now)
            else:
                process.send(signal.SIGTERM if action.verb is WatchVerb.TERM else signal.SIGKILL)
        if now >= self._next_trim:
            self._next_trim = now + TRIM_SECONDS
            process.trim_log()
        self._describe(process)

    def _was_serving(self, process: ServerProcess) -> bool:
        return self._condition.has_answered and process.age_seconds >= YOUNG_SECONDS

    def _start_again(self, process: ServerProcess, now: float) -> None:
        try:
            process.start()
        except (ObcdError, OSError) as error:
            self._next_try = now + self._limits.start_pause
            self.report = replace(self.report, trouble=str(error))
            return
        self._follow(process)
        self.report = replace(self.report, restarts=self.report.restarts + 1)

    def _facts(self, process: ServerProcess, now: float) -> Facts:
        label = process.server.label
        assert self._prober is not None
        self._prober.tick(now)
        probe, pid, age = self._prober.latest(label), process.pid, process.age_seconds
        is_gone = False
        if self._reader is not None:
            self._reader.tick(now)
            reading = self._reader.latest.readings.get(process.server.pin)
            is_gone = reading is not None and reading.is_lost and self._reader.latest.at > now - age
        alive = "RUNNING" if age >= YOUNG_SECONDS else "STARTING"
        return Facts(
            state=alive if pid else "EXITED", pid=pid, age_seconds=age,
            probe=probe.number, answer=probe.answer, models=probe.models,
            has_card=bool(process.server.pin), is_card_gone=is_gone,
            last_words="" if pid else last_words(process.folder, process.server.program),
        )  # fmt: skip

    def _describe(self, process: ServerProcess) -> None:
        condition = self._condition
        assert self._prober is not None
        is_up = condition.has_answered and bool(process.pid) and condition.pid == process.pid
        readings = self._reader.latest.readings.get(process.server.pin) if self._reader is not None else None
        card = () if readings is None else (CardReading.of(asdict(readings), process.server.card),)
        self.report = replace(
            self.report,
            state=GuardState.SERVING if is_up else GuardState.STARTING,
            version=self._prober.latest(process.server.label).version or self.report.version,
            trouble=condition.trouble or ("" if process.pid else self.report.trouble),
            cards=card,
        )


def guard_card(pin: str) -> socket.socket | None:
    """Be the only guard of a card as long as this process lives; None if another guard has it.

    As in `obcd.host.servers.card_locks`, it is a name of the kernel (unix(7)), which needs no folder: on a node inside
    a Slurm job each job may have its own /tmp.

    Raises:
        OSError: If no socket can be made.
    """
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0obcd-guard-{os.geteuid()}-{pin[:MAX_PIN]}")
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return held


class Orders:
    """The lines that come through the pipe of the actor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest = descriptor, b""
        self.has_ended = False

    def wait(self, seconds: float) -> list[dict[str, object]]:
        """Return the orders that arrive within some seconds."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return []
        data = os.read(self._descriptor, MAX_ORDER_BYTES)
        self.has_ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [order for line in lines if isinstance(order := json.loads(line), dict)]


def run(orders: Orders, send: int) -> None:
    """Keep a server until the pipe of the actor ends, or the server has drained.

    Args:
        orders: The first one is `{"wish": {…}, "bind": "10.0.0.11"}`.
        send: The descriptor of the reports.
    """
    first: list[dict[str, object]] = []
    while not first and not orders.has_ended:
        first = orders.wait(60.0)
    if not first:
        return
    begin, *more = first
    guard = Guard(ServerWish.from_json(begin["wish"]), str(begin["bind"]))
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal of `ray start`
    said, said_at = ServerReport(), 0.0
    try:
        while not orders.has_ended and not stop:
            now = monotonic()
            for order in more:
                guard.obey(order, now)
            goes_on = guard.tick(now)
            if now - said_at >= REPORT_SECONDS or not is_same(guard.report, said):
                said, said_at = guard.report, now
                os.write(send, json.dumps(said.to_json()).encode() + b"\n")
            if not goes_on:
                return
            more = orders.wait(TURN_SECONDS)
    except BrokenPipeError:  # the actor has ended
        pass
    finally:
        if guard.report.state != GuardState.ENDED:
            guard.end("")


def is_same(one: ServerReport, other: ServerReport) -> bool:
    """Return whether two reports differ at most in the readings of their cards."""
    return replace(one, cards=()) == replace(other, cards=())


if __name__ == "__main__":
    run(Orders(0), 1)
