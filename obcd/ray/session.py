"""The process that is connected to Ray: it keeps the servers, looks at them, or ends them, as its order says.

`python -m obcd.ray.session ORDER` is started by `obcd.ray.link`, which reads the JSON lines of its standard output.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from obcd.clock import monotonic
from obcd.coordinator.view import View
from obcd.core.documents import Document
from obcd.errors import ObcdError
from obcd.hosts.machine import machine_id
from obcd.parent_death import tie_to_parent
from obcd.ray.cluster import ActorNeeds, Look, ServerCluster, all_looks, connect
from obcd.ray.keeper import Keeper, KeeperPlan, Records, content_of
from obcd.ray.link import Said
from obcd.ray.messages import DrainCause, GuardState, ServerWish
from obcd.ray.scaling import Limits, waiting_requests
from obcd.ray.server_records import GONE, ServerRecords
from obcd.spool.folders import disk

#: Seconds of a turn of the keeper; between two signs of life; after which a status of the coordinator is too old.
TURN_SECONDS, BEAT_SECONDS, STALE_SECONDS = 1.0, 5.0, 10.0
#: Seconds to find out whether anything listens at the address of the head.
REACH_SECONDS = 5.0
#: Seconds beyond the drain limit after which a server is ended with its actor.
GRACE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Document):
    """What a session is to do.

    Attributes:
        do: `keep`, `look` or `end`.
        address: `auto`, or HOST:PORT of the head.
        wish: A `ServerWish`, for `keep`.
        hosts: The hosts folder; "" if it is not known, which only `keep` needs.
        status: The coordinator's status.json.
        least, most, idle_seconds: See `Limits`.
        drain_seconds: How long a draining server may go on.
        cpus, memory_bytes: See `ActorNeeds`.
    """

    do: str
    address: str
    namespace: str
    hosts: str = ""
    status: str = ""
    wish: Mapping[str, object] = field(default_factory=dict)
    least: int = 0
    most: int | None = None
    idle_seconds: float = 0.0
    drain_seconds: float = 0.0
    cpus: float = 1.0
    memory_bytes: int = 0

    @property
    def prefix(self) -> str:
        """The beginning of the names of the records."""
        return f"ray-{self.namespace}-"


def say(kind: Said, **document: object) -> None:
    """Write one line to the caller."""
    os.write(1, json.dumps({"kind": kind, **document}).encode() + b"\n")


class _SaidHandler(logging.Handler):
    """Sends obcd's own log to the caller, which knows where it belongs."""

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: getattr(record, name) for name in ("action", "server") if hasattr(record, name)}
        say(Said.LOG, level=record.levelno, text=record.getMessage(), extra=extra)


def keep(order: Order, cluster: ServerCluster) -> None:
    """Keep the servers until SIGTERM, or until `obcd ray down` has ended them."""
    stop: list[int] = []
    signal.signal(
        signal.SIGTERM, lambda number, _: stop.append(number)
    )  # after `connect`, in which Ray sets another one
    limits = Limits(least=order.least, most=order.most, idle_seconds=order.idle_seconds)
    name = f"{machine_id()}/{os.getpid()}"
    wish = ServerWish.from_json(order.wish)
    plan = KeeperPlan(name=name, wish=wish, limits=limits, drain_seconds=order.drain_seconds)
    records = ServerRecords(Path(order.hosts), order.prefix, f"ray {order.namespace} {socket.gethostname()}")
    keeper = Keeper(plan, cluster, records, lambda: read_waiting(Path(order.status)), monotonic())
    said_at = 0.0
    try:
        while not stop:
            now = monotonic()
            if now - said_at >= BEAT_SECONDS:
                said_at = now
                say(Said.BEAT, hosts=order.hosts, **keeper.describe())
            if not keeper.tick(now, TURN_SECONDS):
                break
            time.sleep(max(0.0, min(0.05, TURN_SECONDS - (monotonic() - now))))  # many changes at once: in groups
    finally:
        records.finish()
    say(Said.RESULT, ended=not stop)


def read_waiting(path: Path, clock: Callable[[], float] = time.time) -> int | None:
    """Return how many requests wait, from the coordinator's status; None if no coordinator of this machine says so."""
    try:
        view = View.from_json(disk.read_json(path))
    except (OSError, ValueError):
        return None
    return waiting_requests(view) if clock() - view.updated <= STALE_SECONDS else None


def look(order: Order, cluster: ServerCluster) -> None:
    """Report what every actor says."""
    looks = all_looks(cluster, cluster.numbers(), monotonic)
    gpus, free = cluster.gpus()
    servers = {number: None if item is None else item.report.to_json() for number, item in looks.items()}
    say(Said.RESULT, gpus=gpus, free=free, servers=servers)


def end(order: Order, cluster: ServerCluster) -> None:
    """Let every server finish what is in flight, end all actors, and write that into the records."""
    numbers = cluster.numbers()
    by = f"ray {order.namespace}"
    ending = Ending(order, cluster, ServerRecords(Path(order.hosts), order.prefix, by) if order.hosts else None)
    ending.begin(numbers)
    deadline = monotonic() + order.drain_seconds + GRACE_SECONDS
    while ending.left and monotonic() < deadline:
        say(Said.BEAT, servers=len(ending.left))
        ending.tick(TURN_SECONDS)
    cut_off = ending.finish()
    say(Said.RESULT, ended=len(numbers), cut_off=cut_off)


class Ending:
    """The end of all servers of a namespace.

    Args:
        records: None if the hosts folder is not known: then the records only stop changing.

    Attributes:
        left: Numbers of the servers that have not ended.
    """

    def __init__(self, order: Order, cluster: ServerCluster, records: Records | None) -> None:
        self._order, self._cluster, self._records = order, cluster, records
        self._name = f"{machine_id()}/{os.getpid()}"
        self.left: set[int] = set()

    def begin(self, numbers: set[int]) -> None:
        """Let those drain that answer; end those that wait for a GPU, or are being started again."""
        self.left = set(numbers)
        looks = all_looks(self._cluster, numbers, monotonic)
        for number, found in looks.items():
            if found is None:
                self._end(number)
            else:
                self._cluster.drain(number, self._order.drain_seconds, DrainCause.DOWN)
                self._cluster.look(number, self._name, -1)
        if numbers:
            self._cluster.want(0)  # of an autoscaler

    def tick(self, seconds: float) -> None:
        """Renew the leases, and end the actors whose servers have ended."""
        for number, answer in list(self._cluster.answers(seconds)):
            if not isinstance(answer, Look) or answer.report.state == GuardState.ENDED:
                self._end(number)
                continue
            content = content_of(answer.report)
            if content is not None and self._records is not None:
                self._records.put(number, content)
            self._cluster.look(number, self._name, answer.known)

    def finish(self) -> int:
        """End the servers that are left, and return their number."""
        count = len(self.left)
        for number in set(self.left):
            self._end(number)
        if self._records is not None:
            self._records.finish()
        return count

    def _end(self, number: int) -> None:
        self._cluster.end(number)
        self.left.discard(number)
        if self._records is not None:
            self._records.put(number, GONE)


def check_reachable(address: str) -> None:
    """Check that something listens at HOST:PORT, which Ray itself would try for minutes.

    Raises:
        ConnectionError: If nothing does; `link.explain` knows its text.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConnectionError("No Ray head answers") from error


def main(words: list[str]) -> int:
    """Connect, do what the order says, and report how it went."""
    tie_to_parent(os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C of a terminal reaches the whole group; the caller sends TERM
    order = Order.from_json(json.loads(words[1]))
    log = logging.getLogger("obcd")
    log.setLevel(logging.INFO)
    log.addHandler(_SaidHandler())
    log.propagate = False
    try:
        address = order.address
        check_reachable(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        needs = ActorNeeds(cpus=order.cpus, memory_bytes=order.memory_bytes)
        cluster = connect(address, order.namespace, needs)
        say(Said.CONNECTED)
        {"keep": keep, "look": look, "end": end}[order.do](order, cluster)
    except ObcdError as error:
        say(Said.FAILED, text=str(error), code=int(error.exit_code))
    except Exception as error:  # noqa: BLE001 - whatever Ray raises; the caller makes a sentence of it
        say(Said.FAILED, text=f"{type(error).__name__}: {error}", code=None)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
