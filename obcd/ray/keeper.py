"""The keeper: it holds the leases of the servers, registers them, and starts and drains servers by what waits.

    status.json ─► Demand ─► decide ─► RayCluster: start, drain, end
    RayCluster: looks ─► KnownServer ─► ServerRecords ─► hosts folder ─► coordinator

A look at an actor is a call that waits inside the actor until something changes, at most ten seconds; it renews the
lease, and its answer becomes the record. An actor that does not answer has a record that stands still, and gets no
requests. A keeper that starts again adopts the actors that it finds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from obcd.errors import AlreadyRunningError
from obcd.host.control.registrar import Content
from obcd.hosts.record import HostState, RegisteredEndpoint
from obcd.ray.cluster import Look, ServerCluster, Silence
from obcd.ray.messages import DrainCause, GuardState, ServerReport, ServerWish
from obcd.ray.scaling import Demand, KnownServer, Limits, Step, decide
from obcd.ray.server_records import GONE
from obcd.text import plural

logger = logging.getLogger(__name__)

#: Seconds between two counts of the GPUs and of what waits; between two listings of the actors.
COUNT_SECONDS, LIST_SECONDS = 2.0, 30.0
#: Seconds until another actor starts where Ray gave one up, from, to.
PAUSES = (1.0, 60.0)
#: Seconds after which an actor that did not answer is called again.
AGAIN_SECONDS = 1.0


class Records(Protocol):
    """`obcd.ray.server_records.ServerRecords`."""

    def put(self, number: int, content: Content) -> None:
        """Write a record."""

    def bury(self, there: set[int]) -> None:
        """Write that other servers of an earlier process are gone."""

    def finish(self) -> None:
        """Wait until everything is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperPlan:
    """What a keeper is to do.

    Attributes:
        name: Of this keeper, `machine/process`; a keeper of the same machine takes over at once.
        drain_seconds: How long a draining server may go on.
    """

    name: str
    wish: ServerWish
    limits: Limits
    drain_seconds: float


@dataclass(slots=True)
class _Known:
    """An actor, as far as this keeper knows it; times are monotonic seconds.

    Attributes:
        known: The number of its last report.
        report: Its last report; None before the first.
        is_asked: Whether a look is under way.
        ask_at: When the next look may begin.
        drained: The cause for which this keeper has let it drain, "" if it has not.
    """

    known: int = -1
    report: ServerReport | None = None
    is_asked: bool = False
    ask_at: float = 0.0
    drained: str = ""


class Keeper:
    """Keeps the servers of one namespace.

    Args:
        waiting: Returns how many requests wait; None while that cannot be read.
    """

    def __init__(
        self, plan: KeeperPlan, cluster: ServerCluster, records: Records, waiting: Callable[[], int | None], now: float
    ) -> None:
        self._plan, self._cluster, self._records, self._waiting = plan, cluster, records, waiting
        self._known = {number: _Known() for number in cluster.numbers()}
        records.bury(set(self._known))
        self._demand = Demand(plan.limits, len(self._known), now)
        self._next_count, self._next_list = now, now + LIST_SECONDS
        self._wanted = 0
        self._next_start, self._pause = now, PAUSES[0]
        self._is_ending = False
        self.target = 0
        if self._known:
            logger.info("%s adopted", plural(len(self._known), "server"), extra={"action": "servers_adopted"})

    def tick(self, now: float, seconds: float) -> bool:
        """Make one turn that waits some seconds for answers; return False when obcd ray down has ended the servers.

        Raises:
            AlreadyRunningError: If the keeper of another machine keeps these servers.
        """
        for number, item in self._known.items():
            if not item.is_asked and now >= item.ask_at:
                item.is_asked = True
                self._cluster.look(number, self._plan.name, item.known)
        for number, answer in self._cluster.answers(seconds):
            if number in self._known:
                self._answered(number, answer, now)
        if now >= self._next_list:
            self._next_list = now + LIST_SECONDS
            self._list()
        if now >= self._next_count:
            self._next_count = now + COUNT_SECONDS
            self._scale(now)
        return not self._is_ending or bool(self._known)

    def _answered(self, number: int, answer: Look | Silence, now: float) -> None:
        item = self._known[number]
        item.is_asked = False
        if isinstance(answer, Silence):  # its record stands still meanwhile
            item.known, item.ask_at = -1, now + AGAIN_SECONDS
            if answer.is_dead:
                self._died(number, answer.words, now)
            return
        if answer.held_by:
            raise AlreadyRunningError(
                f"another obcd ray up keeps these servers (machine and process {answer.held_by}): stop that one first, "
                "or choose another --namespace"
            )
        before, item.known, item.report = item.report, answer.known, answer.report
        self._log(number, before, answer.report)
        if answer.report.cause == DrainCause.DOWN and not self._is_ending:
            logger.info("obcd ray down: the servers finish and end", extra={"action": "keeper_ending"})
            self._is_ending = True
        if answer.report.state == GuardState.ENDED:
            self._cluster.end(number)
            self._forget(number)
            return
        self._register(number, answer.report)

    def _died(self, number: int, words: str, now: float) -> None:
        """Forget an actor that Ray gave up, and wait before another one starts, which may fail in the same way."""
        if words:
            logger.warning("server %d: its actor has ended: %s", number, words, extra={"action": "actor_ended"})
        self._forget(number)
        self._next_start, self._pause = now + self._pause, min(2 * self._pause, PAUSES[1])

    def _register(self, number: int, report: ServerReport) -> None:
        """Write the record of a server that is up; that of one that starts again stands still meanwhile."""
        content = content_of(report)
        if content is not None:
            self._records.put(number, content)
            self._pause = PAUSES[0]

    def _log(self, number: int, before: ServerReport | None, report: ServerReport) -> None:
        extra = {"action": "server_reported", "server": number}
        if report.trouble and (before is None or before.trouble != report.trouble):
            logger.warning("server %d on %s: %s", number, report.node, report.trouble, extra=extra)
        elif report.url and (before is None or (before.state, before.url) != (report.state, report.url)):
            logger.info(
                "server %d on %s: %s %s", number, report.node, report.state, report.url, extra=extra
            )  # fmt: skip

    def _forget(self, number: int) -> None:
        self._cluster.forget(number)
        del self._known[number]
        self._records.put(number, GONE)

    def _list(self) -> None:
        """Adopt actors that another process started, and forget those that are no longer there."""
        there = self._cluster.numbers()
        for number in self._known.keys() - there:
            self._forget(number)
        for number in there - self._known.keys():
            self._known[number] = _Known()

    def _scale(self, now: float) -> None:
        gpus, free = self._cluster.gpus()
        reports = [item.report for item in self._known.values() if item.report is not None]
        slots = max((report.slots for report in reports), default=0)
        target = 0 if self._is_ending else self._demand.target(self._waiting(), slots, gpus, now)
        if target != self.target:
            logger.info("%s wanted; the cluster has %s", plural(target, "server"), plural(gpus, "GPU"),
                        extra={"action": "target_changed"})  # fmt: skip
        self.target = target
        if target != self._wanted:
            self._wanted = target
            self._cluster.want(target)
        if now < self._next_start:
            free = 0
        cause = DrainCause.DOWN if self._is_ending else DrainCause.SCALING
        self._act(decide([self._member(*pair) for pair in self._known.items()], target, free, self._known), cause)

    def _act(self, step: Step, cause: DrainCause) -> None:
        for number in step.start:
            self._cluster.start(number, self._plan.wish)
            self._known[number] = _Known()
        for number in step.withdraw:
            self._cluster.end(number)
            self._forget(number)
        for number in step.drain:
            item = self._known[number]
            item.drained = cause
            self._cluster.drain(number, self._plan.drain_seconds, cause)
            if item.report is not None:
                item.report = replace(item.report, state=GuardState.DRAINING)
                self._register(number, item.report)

    def _member(self, number: int, item: _Known) -> KnownServer:
        report = item.report
        if report is None:
            return KnownServer(number=number, is_placed=False)
        return KnownServer(
            number=number,
            is_serving=report.state == GuardState.SERVING and not report.trouble,
            is_draining=bool(item.drained) or report.state == GuardState.DRAINING,
            is_stale=report.mark not in ("", self._plan.wish.mark),
        )

    def describe(self) -> dict[str, object]:
        """Return the state for `obcd ray status`, as JSON."""
        return {"target": self.target, "servers": len(self._known)}


def content_of(report: ServerReport) -> Content | None:
    """Return what the record of a server says; None if the server is not up."""
    is_draining = report.state == GuardState.DRAINING
    if not report.url or not (is_draining or report.state == GuardState.SERVING):
        return None
    endpoint = RegisteredEndpoint(
        url=report.url, gpu=report.gpu, gpu_uuid=report.gpu_uuid, slots=report.slots or None, version=report.version
    )
    state = HostState.DRAINING if is_draining else HostState.SERVING
    return state, (endpoint,), report.cards
