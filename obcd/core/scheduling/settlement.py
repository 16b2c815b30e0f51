"""How leases end: with an answer, with a fault, because another endpoint was first, or because a window closes. Pure.

A fault of the endpoint costs the request nothing. A request that failed on one endpoint goes to another one first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.pending.backlog import Backlog
from obcd.core.scheduling.attempt_count import AttemptCount
from obcd.core.scheduling.hedging import HedgedRequests
from obcd.core.scheduling.holder import CLOSED, Holder
from obcd.core.scheduling.leases import Lease, Overtaken
from obcd.core.scheduling.poison import RequestKey
from obcd.core.scheduling.state import SchedulingState


class Settled(NamedTuple):
    """A lease that a fault ended.

    Attributes:
        is_final: Whether the request has failed for good; then it is ended.
        fault: The fault to report: a request that crashes every server gets another one.
    """

    lease: Lease
    is_final: bool
    fault: Fault


class Settlement:
    """The ends of leases."""

    def __init__(self, state: SchedulingState, hedged: HedgedRequests) -> None:
        self._state = state
        self._hedged = hedged
        self._charges = AttemptCount()
        self._overtaken: list[Overtaken] = []
        #: Requests whose group failed, perhaps because of them: they go alone.
        self._apart: set[RequestKey] = set()
        #: Tickets of requests that are aborted because a window has closed.
        self._broken_off: set[int] = set()

    def may_share(self, backlog: Backlog, ordinal: int, attempt: int) -> bool:
        """Return whether a request may go out in one call with others; one that failed before goes alone."""
        return attempt == 1 and backlog.may_share and (backlog.job, ordinal) not in self._apart

    def forget_job(self, job: str) -> None:
        """Forget the requests of a job."""
        self._charges.forget_job(job)
        self._apart = {request for request in self._apart if request[0] != job}

    def answered(self, ticket: int, endpoint: str, now: float, span: Span | None = UNTOLD) -> Lease | None:
        """End a lease with an answer; None if the ticket is no longer known (a late answer).

        Args:
            span: How long it took; None if no request was sent to the endpoint, so that nothing is learned about it.
        """
        holder = self._state.holders[endpoint]
        lease = holder.take(ticket)
        self._broken_off.discard(ticket)
        if lease is None:
            return None
        backlog = self._state.backlogs.get(lease.job)
        if span is None:
            self._overtake(lease, now, is_faster=False)
        else:
            self._learn(holder, backlog, lease, span, now)
        if backlog is None:
            return None
        self._state.suspects.on_answer(lease.request, now)
        self._end(backlog, lease)
        if self._state.has_lanes and backlog.keeps_slot(lease.signature, endpoint):
            holder.freed.append((lease.job, lease.signature))
            del holder.freed[: -max(1, holder.free())]
        return lease

    def _learn(self, holder: Holder, backlog: Backlog | None, lease: Lease, span: Span, now: float) -> None:
        """Learn from an answer about its endpoint, and about its job's lines."""
        holder.pace.note(now - lease.sent_at)
        self._overtake(lease, now)
        holder.on_span(lease.sent_at, span, now)
        holder.health.on_answer(now)
        if backlog is not None:
            backlog.on_answer(lease.ordinal, span.work, lease.endpoint)
            self._state.changes += holder.fitness.on_answer(backlog.signature_of(lease.ordinal), lease.sent_at)

    def faulted(self, ticket: int, endpoint: str, fault: Fault, now: float) -> Settled | None:
        """End a lease with a fault; None for a late one, and for one that counts for nothing."""
        state, holder = self._state, self._state.holders[endpoint]
        lease = holder.take(ticket)
        if lease is None:
            return None
        backlog, has_neighbours = state.backlogs.get(lease.job), bool(holder.leases)
        if ticket in self._broken_off:
            self._broken_off.remove(ticket)
            if backlog is not None and fault.remedy is not Remedy.NEVER:
                self._send_again(backlog, lease, now)
                return None
        if backlog is not None:  # its hedged request may have failed before, which counts
            lease = replace(lease, attempt=max(lease.attempt, state.attempts(lease.request, backlog) + 1))
        found = state.suspects.judge(fault, lease.request, endpoint, lease.sent_at, now, has_neighbours=has_neighbours)
        holder.health.on_fault(found.harm, fault.message, lease.sent_at, now, is_crash=found.is_crash)
        holder.note_other_work()
        for name in found.cleared & state.holders.keys():
            state.holders[name].forgive_crashes(now)
        if backlog is None:
            state.suspects.clear(lease.request)
            self._overtake(lease, now)
            return None
        state.changes += holder.on_unable(backlog.signature_of(lease.ordinal), fault, lease.sent_at, now)
        if found.fault.remedy is not Remedy.NEVER and self._hedged.part(lease) is not None:
            self._charges.note(backlog, lease, found.fault)
            return None  # the other one goes on
        self._overtake(lease, now)
        return Settled(lease, self._charge(backlog, lease, found.fault, now), found.fault)

    def _charge(self, backlog: Backlog, lease: Lease, fault: Fault, now: float) -> bool:
        """Decide what a fault costs a request and when it is sent again; return whether it has failed for good."""
        ordinal = lease.ordinal
        if fault.needs and backlog.enlarge(ordinal, fault.needs, now):
            return False
        if fault.is_shared and fault.reached_model:
            self._apart.add(lease.request)
        self._charges.note(backlog, lease, fault)
        is_refused = self._charges.is_refused(lease)
        if fault.remedy is Remedy.NEVER or is_refused or backlog.attempts.get(ordinal, 0) >= backlog.limit:
            self._end(backlog, lease)
            return True
        goes_elsewhere = fault.remedy is Remedy.ELSEWHERE and backlog.on_failed_on(
            ordinal, lease.endpoint, self._state.able(self._state.group_of(backlog, ordinal), now)
        )
        backlog.postpone(ordinal, now + self._charges.back_off(backlog, lease, fault, goes_elsewhere))
        return False

    def take_overtaken(self) -> list[Overtaken]:
        """Return the leases that ended since the last call because another endpoint was first: to be aborted."""
        overtaken, self._overtaken = self._overtaken, []
        return overtaken

    def break_off_closed(self) -> list[Lease]:
        """Return the leases in flight outside their windows, each one once: to be aborted, which costs them nothing."""
        closed = {job for job, backlog in self._state.backlogs.items() if backlog.closes_at == CLOSED}
        found = [
            lease
            for holder in self._state.holders.values()
            for lease in holder.leases.values()
            if (holder.closes_at == CLOSED or lease.job in closed) and lease.ticket not in self._broken_off
        ]
        self._broken_off.update(lease.ticket for lease in found)
        return found

    def _overtake(self, lease: Lease, now: float, *, is_faster: bool = True) -> None:
        """End the other lease of a request that has its result; unless `is_faster`, its endpoint is not blamed."""
        hedge = self._hedged.part(lease)
        holder = self._state.holders.get(hedge.endpoint) if hedge is not None else None
        if hedge is None or holder is None or holder.take(hedge.ticket) is None:
            return
        holder.note_other_work()
        self._broken_off.discard(hedge.ticket)
        backlog = self._state.backlogs.get(hedge.job)
        age = now - hedge.sent_at - (backlog.beginning(hedge.ordinal)[0] if backlog is not None else 0.0)
        is_overdue = is_faster and holder.pace.is_overdue(age, now - lease.sent_at)
        self._overtaken.append(Overtaken(hedge, is_overdue))
        if is_overdue:
            reason = "it takes far longer than other endpoints, and than before"
            holder.health.on_fault(Harm.STRIKE, reason, hedge.sent_at, now)

    def _send_again(self, backlog: Backlog, lease: Lease, now: float) -> None:
        """Let a request wait for its next window; it was not at fault, and nothing counts."""
        if self._hedged.part(lease) is None:
            backlog.postpone(lease.ordinal, now)

    def _end(self, backlog: Backlog, lease: Lease) -> None:
        backlog.end(lease.ordinal)
        self._apart.discard(lease.request)
        self._charges.forget(lease.request)
        self._state.suspects.clear(lease.request)
