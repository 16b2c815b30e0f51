"""A cluster of endpoints on a simulated clock, with the real scheduler and windows: nights pass in milliseconds."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field

from obcd.core.endpoint.concurrency import Span
from obcd.core.endpoint.faults import attempt_cancelled
from obcd.core.forecasting.windows import Windows
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.holder import CLOSED
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler

SIGNATURE = Signature("llama3.2:latest", (("num_ctx", 8192),))
#: Seconds in which a server notices that its request is aborted.
ABORT_SECONDS = 0.05


@dataclass(slots=True)
class SimulatedCluster:
    """Endpoints that answer after some seconds.

    Attributes:
        offset: The clock on the wall is so many seconds ahead of the monotonic clock; changed to make it jump.
        limit: Seconds after which the worker aborts a request.
        answers: `{request: how often it was answered}`.
        charged: Requests that failed for good, or that have attempts against them.
    """

    slots: dict[str, int]
    offset: float
    chance: random.Random
    limit: float = 600.0
    endpoint_windows: dict[str, Windows] = field(default_factory=dict)
    job_windows: dict[str, Windows] = field(default_factory=dict)
    now: float = 0.0
    scheduler: Scheduler = field(default_factory=Scheduler)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    broken_off: int = 0
    sent: int = 0
    backlogs: dict[str, Backlog] = field(default_factory=dict)
    #: {ticket: its lease}, in flight
    out: dict[int, Lease] = field(default_factory=dict)
    #: [(moment, ticket, whether it was aborted)]
    events: list[tuple[float, int, bool]] = field(default_factory=list)
    mean_seconds: float = 120.0
    spread: float = 0.7

    def __post_init__(self) -> None:
        for name, slots in self.slots.items():
            self.scheduler.add_endpoint(name, slots, self.now)
            self.scheduler.on_probe(name, {SIGNATURE.model: "x"}, None, self.now)

    @property
    def at(self) -> float:
        """The time of the clock on the wall, in Unix seconds."""
        return self.now + self.offset

    def add_job(self, job: str, requests: int, windows: Windows | None = None, **more: object) -> Backlog:
        backlog = Backlog(job, bytes(requests), [SIGNATURE], limit=3, **more)  # type: ignore[arg-type]
        self.backlogs[job] = backlog
        if windows is not None:
            self.job_windows[job] = windows
        self.scheduler.add_job(backlog, self.now)
        return backlog

    def seconds_of(self, lease: Lease) -> float:
        """Return how long a request takes."""
        return self.mean_seconds * self.chance.lognormvariate(-(self.spread**2) / 2, self.spread)

    def on_answer(self, lease: Lease) -> None:
        """React to an answer."""

    def tick(self) -> None:
        """Do what the coordinator does in one tick."""
        while self.events and self.events[0][0] <= self.now:
            _, ticket, is_aborted = heapq.heappop(self.events)
            lease = self.out.pop(ticket, None)
            if lease is None:
                continue
            if is_aborted:
                self.scheduler.faulted(ticket, lease.endpoint, attempt_cancelled(), self.now)
            elif self.scheduler.answered(ticket, lease.endpoint, self.now, Span(self.now - lease.sent_at)) is not None:
                self.answers[lease.request] += 1
                self.on_answer(lease)
        for name, windows in self.endpoint_windows.items():
            self.scheduler.endpoint(name).closes_at = self._closes_at(windows)
        for job, windows in self.job_windows.items():
            self.backlogs[job].closes_at = self._closes_at(windows)
        for lease, _ in self.scheduler.take_overtaken():
            heapq.heappush(self.events, (self.now + ABORT_SECONDS, lease.ticket, True))
        for lease in self.scheduler.break_off_closed():
            self.broken_off += 1
            heapq.heappush(self.events, (self.now + ABORT_SECONDS, lease.ticket, True))
        for lease in self.scheduler.assign(self.now):
            self.sent += 1
            self.out[lease.ticket] = lease
            seconds = self.seconds_of(lease)
            heapq.heappush(self.events, (self.now + min(seconds, self.limit), lease.ticket, seconds > self.limit))

    def _closes_at(self, windows: Windows) -> float | None:
        if not windows.is_open(self.at):
            return CLOSED
        closes = windows.closes_at(self.at)
        return None if closes is None else closes - self.offset

    def next_change(self) -> float:
        """Return when anything happens next, in monotonic seconds."""
        found = [self.events[0][0] if self.events else math.inf]
        for windows in (*self.endpoint_windows.values(), *self.job_windows.values()):
            until = windows.around(self.at).until
            found.append(math.inf if until is None else until - self.offset)
        return min(found)
