"""The messages of the workers, and the outcomes of attempts that they report."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from obcd.coordinator.endpoints.control_calls import ControlCalls
from obcd.coordinator.endpoints.endpoint_table import EndpointTable
from obcd.core.endpoint.faults import Fault, worker_lost
from obcd.core.scheduling.leases import Lease
from obcd.workers.messages import (
    Answered,
    Cancel,
    Faulted,
    Grouped,
    LookedAround,
    Probed,
    Stepped,
    Uncached,
    Weighed,
)
from obcd.workers.pool import Lost, Received

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """A request has its response, which is to be recorded."""

    lease: Lease
    answer: Answered


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt at a request failed.

    Attributes:
        line: The request's line number, 0 when the worker could not read it.
        fault: The fault as it counts for the request.
        is_final: Whether the request has failed for good, which is to be recorded; otherwise it is sent again.
    """

    lease: Lease
    line: int
    fault: Fault
    is_final: bool


#: The outcome of an attempt at an endpoint.
RequestEvent = RequestAnswered | AttemptFailed


class Receiver:
    """Receives what the workers send."""

    def __init__(self, table: EndpointTable, calls: ControlCalls) -> None:
        self._table, self._calls = table, calls
        #: The reasons already logged why the cache of answers could not be used.
        self._uncached: set[str] = set()

    def receive(self, now: float, readable: Iterable[int] = ()) -> list[RequestEvent]:
        """Receive the workers' messages and return the outcomes of attempts.

        Args:
            readable: Descriptors that can be read; those of others than workers are ignored.
        """
        events: list[RequestEvent] = []
        for endpoint in self._table.pool.find_ready(readable):
            for event in self._table.pool.receive(endpoint, now):
                if isinstance(event, Lost):
                    events += self._on_worker_lost(event, now)
                elif isinstance(event.message, Grouped):
                    events += self._on_grouped(event.endpoint, event.message, now)
                elif (found := self._on_message(event, now)) is not None:
                    events.append(found)
        self._table.pool.reap(now)
        return events

    def replace_frozen(self, oldest: float, now: float) -> list[RequestEvent]:
        """Replace workers that exceed their own limits or were stopped; return the outcomes of their requests."""
        frozen = self._table.scheduler.overdue(oldest, now) | set(self._table.pool.find_stopped())
        return [event for name in frozen for event in self._on_worker_lost(self._table.pool.replace(name, now), now)]

    def _on_message(self, event: Received, now: float) -> RequestEvent | None:
        found: RequestEvent | None = None
        match event.message:
            case Answered():
                found = self._on_answered(event.endpoint, event.message, now)
            case Faulted(ticket, line, fault):
                found = self.on_faulted(event.endpoint, ticket, line, fault, now)
            case Probed(probe):
                self._calls.on_probed(event.endpoint, probe, now)
            case LookedAround():
                self._calls.on_seen(event.endpoint, event.message, now)
            case Uncached(reason):
                self._log_uncached(reason)
            case Weighed(ticket):
                self._table.holder(event.endpoint).on_weighed(ticket)
            case Stepped(text):
                self._on_recovery_step(event.endpoint, text, now)
            case _:
                raise TypeError(type(event.message).__name__)
        self._table.log_state(event.endpoint)
        return found

    def _on_answered(self, endpoint: str, answer: Answered, now: float) -> RequestAnswered | None:
        lease = self._table.scheduler.answered(answer.ticket, endpoint, now, answer.span)
        self._break_off_overtaken()
        if lease is None:  # late: another attempt has finished this request, or its job is gone
            return None
        figures = self._table.figures[endpoint]
        figures.answered += 1
        if answer.span is not None:
            figures.tokens.add(answer.counts.eval_tokens, now)
            figures.prompt_tokens += answer.counts.prompt_tokens
            figures.output_tokens += answer.counts.eval_tokens
        return RequestAnswered(lease, answer)

    def on_faulted(self, endpoint: str, ticket: int, line: int, fault: Fault, now: float) -> AttemptFailed | None:
        """End an attempt with a fault; None for a late one, and for one that counts for nothing."""
        settled = self._table.scheduler.faulted(ticket, endpoint, fault, now)
        self._break_off_overtaken()
        if settled is None:
            return None
        self._table.figures[endpoint].faults += 1
        lease, is_final, judged = settled
        return AttemptFailed(lease, line, judged, is_final)

    def _on_grouped(self, endpoint: str, group: Grouped, now: float) -> list[RequestEvent]:
        found: list[RequestEvent | None] = []
        for outcome in group.outcomes:
            if isinstance(outcome, Answered):
                found.append(self._on_answered(endpoint, outcome, now))
            else:
                found.append(self.on_faulted(endpoint, *outcome, now))
        for call in group.calls:
            self._table.holder(endpoint).on_group_call(*call)
        if any(isinstance(item, Faulted) and item.fault.is_late_group for item in group.outcomes):
            self._table.holder(endpoint).on_group_timeout()
        self._table.log_state(endpoint)
        return [event for event in found if event is not None]

    def _on_recovery_step(self, endpoint: str, text: str, now: float) -> None:
        health = self._table.health(endpoint)
        before = health.state
        self._table.health(endpoint).on_recovery_step(text, now)
        if health.state is before:  # a change of state is logged anyway, with its reason
            logger.warning("endpoint %s: %s", endpoint, text, extra={"action": "endpoint_rescue", "endpoint": endpoint})

    def _log_uncached(self, reason: str) -> None:
        """Log each reason once: every worker reports it."""
        if reason not in self._uncached:
            self._uncached.add(reason)
            text = "the cache of answers is not used: %s; obcd continues without it (to reset it: obcd cache clear)"
            logger.warning(text, reason, extra={"action": "cache_failed"})

    def _break_off_overtaken(self) -> None:
        """Cancel hedged requests whose response has come from another endpoint."""
        for lease, is_overdue in self._table.scheduler.take_overtaken():
            self._table.pool.send(lease.endpoint, Cancel(lease.ticket, is_overdue))
            self._table.log_state(lease.endpoint)

    def _on_worker_lost(self, lost: Lost, now: float) -> list[RequestEvent]:
        endpoint = lost.endpoint
        self._table.figures[endpoint].is_looking = False
        self._table.scheduler.on_probe(endpoint, None, lost.reason, now)
        leases = self._table.holder(endpoint).held
        found = [self.on_faulted(endpoint, lease.ticket, 0, worker_lost(), now) for lease in leases]
        self._table.log_state(endpoint)
        return [event for event in found if event is not None]
