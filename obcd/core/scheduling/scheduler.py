"""Which endpoint gets which request next: jobs on one side, free slots on the other. Pure: values in, leases out.

Rules: an endpoint never holds more requests than its open slots, and gets nothing outside its window or the job's. It
keeps the signature that it has loaded while there is work for it, and drains before it switches. Submitters take turns,
and so do the jobs of one submitter, higher priority first (see `fair_share`). Requests that share a long beginning
follow each other in one slot (see `lanes`). A request that failed on one endpoint goes to another one first. A fault of
the endpoint costs the request nothing.
`poison` finds out which request caused a crash. An endpoint without other work also gets requests that take long
elsewhere, and the first answer counts (see `hedging`). A job never mixes answers of different weights (see `weights`),
and an endpoint that cannot serve a signature as it should is left out for that signature (see `signature_health`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.health import LEAVING, Health
from obcd.core.endpoint.latency import MeanLatency
from obcd.core.endpoint.yielding import Yielding
from obcd.core.request.records import Signature
from obcd.core.scheduling.attempt_count import AttemptCount
from obcd.core.scheduling.backlog import ELSEWHERE_SECONDS, Admits, Backlog
from obcd.core.scheduling.groups import Group, Turns, must_switch, servers_of, spared_first
from obcd.core.scheduling.hedging import HedgedRequests
from obcd.core.scheduling.leases import CLOSED, GROUP_CALLS, Holder, Lease, Overtaken
from obcd.core.scheduling.missing_models import (
    MissingModel,
    Shortage,
    Unserved,
    describe_unfit,
    describe_unopened,
    missing_of,
)
from obcd.core.scheduling.poison import RequestKey, Suspects
from obcd.core.scheduling.weights import Weights, odd_ones


class Scheduler:
    """The state of all jobs and endpoints. One thread only; `now` is monotonic seconds.

    Args:
        model_waits: How long work waits for a model that no endpoint has: if all endpoints have reported their models,
            and if some were never reached.
    """

    def __init__(self, model_waits: tuple[float, float] | None = None) -> None:
        self._shortage = Shortage(model_waits)
        self._weights = Weights()
        self._revision = 0
        self._endpoints: dict[str, Holder] = {}
        self._backlogs: dict[str, Backlog] = {}
        self._groups: list[Group] = []
        self._tickets = 0
        self._turns = Turns()
        self._has_lanes = False
        self._charges = AttemptCount()
        self._suspects = Suspects()
        self._hedged = HedgedRequests()
        self._overtaken: list[Overtaken] = []
        #: Requests whose group failed, perhaps because of them: they go alone.
        self._apart: set[RequestKey] = set()
        #: Tickets of requests that are aborted because a window has closed.
        self._broken_off: set[int] = set()

    # --- endpoints -----------------------------------------------------------------------------------------------

    def add_endpoint(self, name: str, slots: int | None, now: float) -> None:
        """Add an endpoint; it gets work after its first good probe.

        Args:
            slots: How many requests it may hold; None: as many as prove best.
        """
        self._endpoints[name] = Holder(name, slots, Health(name, since=now))

    def set_slots(self, name: str, slots: int | None) -> None:
        """Change an endpoint's slots; requests above a smaller number finish."""
        holder = self._changing(name)
        if slots != holder.fixed_slots:
            holder.fixed_slots = slots
            if holder.yielding is not None:
                holder.finders.clear()  # they were found up to the old number

    def set_yielding(self, name: str, is_yielding: bool) -> None:
        """Set whether an endpoint makes room for people who use it too; see `Yielding`."""
        holder = self._changing(name)
        if is_yielding != (holder.yielding is not None):
            holder.yielding = Yielding() if is_yielding else None
            holder.finders.clear()

    def yields(self, name: str) -> str:
        """Return why an endpoint holds fewer requests than its slots, for people; "" if it does not."""
        yielding = self._endpoints[name].yielding
        return "" if yielding is None else yielding.reason

    def on_models(self, name: str, ends: Mapping[str, float], asked_at: float, now: float) -> None:
        """Record what an endpoint that yields has in memory: `{model: the end of its keep-alive time}`."""
        holder = self._changing(name)
        if holder.yielding is not None:
            ours = "" if holder.loaded is None else holder.loaded.model
            holder.yielding.on_models(ours, ends, asked_at, now, len(holder.leases))

    def look_at_others(self, now: float) -> None:
        """Let endpoints that yield have more or fewer requests, as it is time."""
        for holder in self._endpoints.values():
            if holder.yielding is not None and holder.yielding.look(len(holder.leases), now):
                holder.may_have_room = True

    def has_look_due(self, name: str, now: float) -> bool:
        """Return whether `on_models` is wanted at once: an endpoint that yields rests until then."""
        yielding = self._endpoints[name].yielding
        due = None if yielding is None else yielding.look_due
        return due is not None and due <= now

    def slots(self, name: str) -> int:
        """Return how many requests an endpoint may hold now, if it is UP."""
        return self._endpoints[name].slots

    def group_size(self, name: str) -> int:
        """Return how many requests go out to an endpoint in one call now; 0 if its model makes no vectors."""
        return self._endpoints[name].group_size

    def on_group_call(self, name: str, requests: int, texts: int, seconds: float) -> None:
        """Record a call of vectors that an endpoint answered; see `GroupSize`."""
        holder = self._changing(name)
        group = holder.group
        if group is not None:
            before = group.now
            group.on_call(requests, texts, seconds)
            if group.now != before:
                holder.pace = MeanLatency()

    def on_group_timeout(self, name: str) -> None:
        """Record that a group exceeded its time limit at an endpoint."""
        group = self._changing(name).group
        if group is not None:
            group.on_timeout()

    @property
    def calls_in_flight(self) -> float:
        """How many calls all requests in flight make, about."""
        return sum(endpoint.calls_in_flight for endpoint in self._endpoints.values())

    def limit_endpoint(self, name: str, only_for: int | None, ends_at: float | None) -> None:
        """Set whose requests an endpoint serves, and when it ends, as in `Holder`."""
        self._endpoints[name].only_for, self._endpoints[name].ends_at = only_for, ends_at

    def set_window(self, name: str, closes_at: float | None) -> None:
        """Set when the window of an endpoint closes, as in `Holder`; that of a job stands in its backlog."""
        self._endpoints[name].closes_at = closes_at

    def break_off_closed(self) -> list[Lease]:
        """Return the leases in flight outside their windows, each one once: to be aborted, which costs them nothing."""
        closed = {job for job, backlog in self._backlogs.items() if backlog.closes_at == CLOSED}
        found = [
            lease
            for holder in self._endpoints.values()
            for lease in holder.leases.values()
            if (holder.closes_at == CLOSED or lease.job in closed) and lease.ticket not in self._broken_off
        ]
        self._broken_off.update(lease.ticket for lease in found)
        return found

    def can_finish(self, name: str, now: float) -> bool:
        """Return whether a request that an endpoint gets now should finish before the endpoint ends."""
        return self._endpoints[name].can_finish(now)

    def drain_endpoint(self, name: str, now: float, reason: str = LEAVING) -> None:
        """Give an endpoint nothing new; its requests finish."""
        self._changing(name).health.drain(now, reason)

    def undrain_endpoint(self, name: str, now: float) -> None:
        """Take an endpoint back while it drains; it gets work after its next good probe."""
        self._changing(name).health.undrain(now)

    def remove_endpoint(self, name: str) -> None:
        """Forget an endpoint.

        Raises:
            ValueError: If it still holds requests: their answers would find no lease, and they would be sent again.
        """
        if self._endpoints[name].leases:
            raise ValueError(f"{name} still holds requests")
        del self._endpoints[name]
        self._suspects.forget_endpoint(name)

    def health(self, name: str) -> Health:
        """Return the live health of an endpoint, for reading."""
        return self._endpoints[name].health

    def loaded(self, name: str) -> Signature | None:
        """Return the signature of an endpoint's last requests, which its server keeps loaded; None before the first."""
        return self._endpoints[name].loaded

    def models(self, name: str) -> Mapping[str, str] | None:
        """Return `{model: digest}` of an endpoint, or None if it was never reached."""
        return self._endpoints[name].digests

    def on_probe(self, name: str, digests: Mapping[str, str] | None, failure: str | None, now: float) -> None:
        """Record a control call: the models that it found with their digests, or why it failed."""
        endpoint = self._changing(name)
        if digests is not None and digests != endpoint.digests:
            endpoint.digests = dict(digests)
            self._revision += 1
        endpoint.health.on_probe(failure, now)

    def on_recovery_step(self, name: str, step: str, now: float) -> None:
        """Record what is being done about an endpoint that answers no request: it gets nothing meanwhile."""
        self._changing(name).health.on_recovery_step(step, now)

    def expect_hosts(self, may_come: bool) -> None:
        """Set whether hosts may register endpoints: then work waits longer for a model that no endpoint has."""
        self._shortage.hosts_may_come = may_come

    def forgive_unfit(self) -> None:
        """Have every endpoint checked again: its requirements have changed."""
        for endpoint in self._endpoints.values():
            endpoint.fitness.forgive()
        self._revision += 1

    @property
    def revision(self) -> int:
        """A number that grows whenever the endpoints that are left out may have changed."""
        return self._revision + self._weights.choices

    def odd(self) -> dict[str, set[str]]:
        """Return `{endpoint: how its weights differ from those of the jobs}`, for people."""
        return odd_ones(self._endpoints.values(), self._backlogs.values())

    def unfit(self) -> dict[str, set[str]]:
        """Return `{endpoint: what it does not serve as it should, and why}`, for people."""
        return {item.name: found for item in self._endpoints.values() if (found := item.fitness.sentences())}

    @property
    def all_in_flight(self) -> int:
        """The number of requests that all endpoints hold together."""
        return sum([len(endpoint.leases) for endpoint in self._endpoints.values()])

    def in_flight(self, name: str) -> int:
        """Return how many requests an endpoint holds."""
        return len(self._endpoints[name].leases)

    def leases(self, name: str) -> list[Lease]:
        """Return the leases of an endpoint."""
        return list(self._endpoints[name].leases.values())

    # --- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, backlog: Backlog, now: float) -> None:
        """Add the unfinished requests of a job."""
        self._backlogs[backlog.job] = backlog
        for number, signature in enumerate(backlog.signatures):
            self._groups.append(Group(backlog, number, signature, now))
        self._note_lanes()

    def remove_job(self, job: str) -> None:
        """Forget a job; its leases become unknown tickets."""
        self._backlogs.pop(job, None)
        self._groups = [group for group in self._groups if group.backlog.job != job]
        self._charges.forget_job(job)
        self._suspects.clear_job(job)
        self._hedged.forget_job(job)
        self._apart = {request for request in self._apart if request[0] != job}
        self._revision += 1
        self._note_lanes()

    def _note_lanes(self) -> None:
        self._has_lanes = any(backlog.is_laned for backlog in self._backlogs.values())
        if not self._has_lanes:
            for endpoint in self._endpoints.values():
                endpoint.has_lanes, endpoint.may_have_room = False, True

    # --- decisions -----------------------------------------------------------------------------------------------

    def assign(self, now: float) -> list[Lease]:
        """Fill every free slot that can be filled; one request to each endpoint in turn, so that all start together."""
        self._weights.look(self._endpoints.values(), now)
        self.look_at_others(now)
        for endpoint in self._endpoints.values():
            if endpoint.makes_vectors:
                endpoint.open_calls()
        reserved = self._reserve(now) if self._suspects else {}
        leases = self._lease_reserved(reserved, now)
        open_endpoints = [
            item
            for item in self._endpoints.values()
            if item.may_have_room and item.name not in reserved and self._has_room(item)
        ]
        # A lease may free another endpoint to switch, so all are checked until nothing more is leased.
        while open_endpoints and (waiting := [group for group in self._groups if not group.is_at_rest]):
            if self._has_lanes:
                open_endpoints = self._spare_slots(open_endpoints, waiting)
            fresh: list[Lease] = []
            for endpoint in open_endpoints:
                lease = self._lease_one(endpoint, waiting, now)
                if lease is not None:
                    fresh.append(lease)
                    if lease.may_share:
                        fresh += self._lease_more(lease, endpoint, now)
            if not fresh:
                break
            leases += fresh
            open_endpoints = [endpoint for endpoint in open_endpoints if self._has_room(endpoint)]
        return leases + self._lease_hedges(open_endpoints, now)

    def answered(self, ticket: int, endpoint: str, now: float, span: Span | None = UNTOLD) -> Lease | None:
        """End a lease with an answer; None if the ticket is no longer known (a late answer).

        Args:
            span: How long it took; None if no request was sent to the endpoint, so that nothing is learned about it.
        """
        holder = self._changing(endpoint)
        lease = holder.leases.pop(ticket, None)
        self._broken_off.discard(ticket)
        if lease is None:
            return None
        backlog = self._backlogs.get(lease.job)
        if span is None:
            self._overtake(lease, now, is_faster=False)
        else:
            self._learn(holder, backlog, lease, span, now)
        if backlog is None:
            return None
        self._suspects.on_answer(lease.request, now)
        self._end(backlog, lease)
        if self._has_lanes and backlog.keeps_slot(lease.signature, endpoint):
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
            self._revision += holder.fitness.on_answer(backlog.signature_of(lease.ordinal), lease.sent_at)

    def faulted(self, ticket: int, endpoint: str, fault: Fault, now: float) -> tuple[Lease, bool, Fault] | None:
        """End a lease with a fault.

        Returns:
            The lease, whether the request has now failed for good (then it is ended), and the fault to report: a
            request that crashes every server gets another fault. None for a late fault.
        """
        holder = self._changing(endpoint)
        lease = holder.leases.pop(ticket, None)
        if lease is None:
            return None
        backlog, has_neighbours = self._backlogs.get(lease.job), bool(holder.leases)
        if ticket in self._broken_off:
            self._broken_off.remove(ticket)
            if backlog is not None and fault.remedy is not Remedy.NEVER:
                self._send_again(backlog, lease, now)
                return None
        if backlog is not None:  # its hedged request may have failed before, which counts
            lease = replace(lease, attempt=max(lease.attempt, self._attempts(backlog, lease.ordinal) + 1))
        found = self._suspects.judge(fault, lease.request, endpoint, lease.sent_at, now, has_neighbours=has_neighbours)
        holder.health.on_fault(found.harm, fault.message, lease.sent_at, now, is_crash=found.is_crash)
        holder.note_other_work()
        for name in found.cleared & self._endpoints.keys():
            self._changing(name).health.forgive_crashes(now)
        if backlog is None:
            self._suspects.clear(lease.request)
            self._overtake(lease, now)
            return None
        self._note_unable(holder, backlog.signature_of(lease.ordinal), fault, lease.sent_at, now)
        if found.fault.remedy is not Remedy.NEVER and self._hedged.part(lease) is not None:
            self._charges.note(backlog, lease, found.fault)
            return None  # the other one goes on
        self._overtake(lease, now)
        return lease, self._settle_fault(backlog, lease, found.fault, now), found.fault

    def on_weighed(self, ticket: int, endpoint: str) -> None:
        """Record that the server has replied to a request with a fault that is being examined: its slot is free."""
        holder = self._changing(endpoint)
        if ticket in holder.leases:
            holder.weighed.add(ticket)

    def take_overtaken(self) -> list[Overtaken]:
        """Return the leases that ended since the last call because another endpoint was first: to be aborted."""
        overtaken, self._overtaken = self._overtaken, []
        return overtaken

    def overdue(self, age: float, now: float) -> set[str]:
        """Return the endpoints with a lease older than `age` seconds: their worker does not keep its own limits."""
        return {
            endpoint.name
            for endpoint in self._endpoints.values()
            if any(now - lease.sent_at > age for lease in endpoint.leases.values())
        }

    def wanted_models(self) -> frozenset[str]:
        """Return the models that waiting work needs, missing or not."""
        return frozenset(group.signature.model for group in self._groups if not group.is_at_rest)

    def take_unservable(self, limit: int, now: float, coming: Collection[str] = ()) -> list[Unserved]:
        """Take at most `limit` requests that have waited long enough for a model that no endpoint has, and end them.

        Args:
            coming: Models that are being fetched: requests that need them wait.

        Returns:
            The requests; each is to be recorded as a failure.
        """
        taken: list[Unserved] = []
        for group in self._groups:
            is_over = self._shortage.is_over(group, self._endpoints.values(), now)
            if is_over and group.signature.model not in coming:
                missing = missing_of(group, self._endpoints.values())
                for ordinal in group.backlog.take_unservable(group.number, limit - len(taken), now):
                    group.backlog.end(ordinal)
                    self._suspects.clear((group.backlog.job, ordinal))
                    taken.append(Unserved(group.backlog.job, ordinal, missing))
        return taken

    def missing(self) -> set[MissingModel]:
        """Return what waiting work needs and no endpoint has."""
        waiting = [group for group in self._groups if group.unservable_since is not None]
        return {missing_of(group, self._endpoints.values()) for group in waiting}

    def unserved(self) -> set[str]:
        """Return why work waits that no endpoint serves as it should, for people."""
        holders = self._endpoints.values()
        found = [(describe_unfit(group, holders), describe_unopened(group, holders)) for group in self._groups]
        return {text for pair in found for text in pair} - {""}

    def next_due(self, now: float) -> float | None:
        """Return when the next back-off or rest ends or the next check for stragglers is due, after `now`, or None.

        Requests that are due already wait for an endpoint.
        """
        dues = [backlog.next_due(now) for backlog in self._backlogs.values() if not backlog.is_at_rest]
        dues += [item.yielding.look_due for item in self._endpoints.values() if item.yielding is not None]
        return min((due for due in [*dues, self._hedged.next_look] if due is not None and due > now), default=None)

    # --- inside --------------------------------------------------------------------------------------------------

    def _changing(self, name: str) -> Holder:
        """Return an endpoint that is about to change; it may have room then."""
        holder = self._endpoints[name]
        holder.may_have_room = True
        return holder

    def _has_room(self, endpoint: Holder) -> bool:
        """Return whether an endpoint may hold more requests now; none beside a request that is sent alone."""
        if not endpoint.has_room():
            return False
        return not self._suspects or not any(map(self._suspects.runs_alone, endpoint.requests()))

    def _spare_slots(self, with_room: list[Holder], waiting: Sequence[Group]) -> list[Holder]:
        """Return the endpoints that have room if those which lanes wait for hold no more than their slots."""
        laned = {group.signature for group in waiting if group.backlog.has_lanes(group.number)}
        for endpoint in with_room:
            endpoint.has_lanes = endpoint.loaded in laned
        return [endpoint for endpoint in with_room if endpoint.free() > 0]

    def _lease_more(self, first: Lease, endpoint: Holder, now: float) -> list[Lease]:
        """Lease the requests that go out in one call with the first one: they are one turn of their job.

        A part of a call at a time, while little is left, so that all endpoints get some of it.
        """
        leases: list[Lease] = []
        if endpoint.group_size > 1 and not self._suspects:
            group = self._group_of(self._backlogs[first.job], first.ordinal)
            part = group.backlog.unfinished // (2 * GROUP_CALLS * len(self._endpoints))
            able = self._able_to_retry(group, now)
            for _ in range(min(endpoint.group_size, part, endpoint.free() + 1) - 1):
                ordinal = group.backlog.lease(group.number, endpoint.name, able, now)
                if ordinal is None:
                    break
                leases.append(self._hold(group, ordinal, endpoint, now))
        return leases

    def _lease_one(self, endpoint: Holder, waiting: Sequence[Group], now: float) -> Lease | None:
        choices = fair = self._choices(endpoint, waiting, now)
        if self._has_lanes and len(choices) > 1 and choices[0].signature == endpoint.loaded:
            freed = endpoint.freed.pop() if endpoint.freed else None
            choices = self._turns.put_first(fair, endpoint.name, freed)
        for group in choices:
            admits = self._admits(endpoint, group)
            ordinal = group.backlog.lease(group.number, endpoint.name, self._able_to_retry(group, now), now, admits)
            if ordinal is not None:
                return self._hold(group, ordinal, endpoint, now, is_ahead=choices is not fair and group is choices[0])
        return None

    def _hold(self, group: Group, ordinal: int, endpoint: Holder, now: float, *, is_ahead: bool = False) -> Lease:
        """Make the lease of a request that its backlog has leased."""
        self._tickets += 1
        self._turns.note(group, now, is_ahead=is_ahead)
        endpoint.load(group.signature)
        job, digest = group.backlog.job, self._weights.choose(group.backlog, group.signature, endpoint)
        attempt = self._attempts(group.backlog, ordinal) + 1
        may_share = group.signature.embeds and self._may_share(group.backlog, ordinal, attempt)
        lease = Lease(
            self._tickets, job, ordinal, endpoint.name, attempt, now, digest, group.number, may_share=may_share
        )
        endpoint.leases[lease.ticket] = lease
        endpoint.quota -= 1
        return lease

    def _may_share(self, backlog: Backlog, ordinal: int, attempt: int) -> bool:
        """Return whether a request may go out in one call with others; one that failed before goes alone."""
        return attempt == 1 and backlog.may_share and (backlog.job, ordinal) not in self._apart

    def _attempts(self, backlog: Backlog, ordinal: int) -> int:
        """Return how many attempts of a request failed, including crashes that did not count."""
        return backlog.attempts.get(ordinal, 0) + self._suspects.unpaid((backlog.job, ordinal))

    def _note_unable(self, holder: Holder, signature: Signature, fault: Fault, sent_at: float, now: float) -> None:
        """Record a fault which shows that an endpoint cannot serve a signature; it may serve others."""
        if fault.kind is FaultKind.MODEL_MISSING and holder.digests is not None:
            holder.digests.pop(signature.model, None)
        if fault.harm is Harm.UNFIT:
            holder.fitness.on_fault(signature, fault.message, sent_at, now, holder.name)
            self._revision += 1

    def _admits(self, endpoint: Holder, group: Group) -> Admits | None:
        if not self._suspects:
            return None
        return self._suspects.admits(group.backlog.job, endpoint.requests())

    def _reserve(self, now: float) -> dict[str, tuple[Group, int]]:
        """Choose an endpoint for each request that has to be sent alone; the endpoint takes nothing else meanwhile.

        Usually an endpoint becomes empty by itself. If there is always work, it has to be kept free.

        Returns:
            `{endpoint: (group, ordinal)}`.
        """
        reserved: dict[str, tuple[Group, int]] = {}
        for job, ordinal in self._suspects.alone:
            backlog = self._backlogs[job]
            if backlog.is_at_rest or not backlog.lease_due(ordinal, ELSEWHERE_SECONDS, now, only_look=True):
                continue
            group = self._group_of(backlog, ordinal)
            order = (item for item in spared_first(self._endpoints.values()) if item.name not in reserved)
            chosen = next((item for item in order if self._serves(now, item, group)), None)
            if chosen is not None:
                reserved[chosen.name] = group, ordinal
        return reserved

    def _lease_reserved(self, reserved: dict[str, tuple[Group, int]], now: float) -> list[Lease]:
        """Lease the requests that waited for an empty endpoint, if theirs is empty now."""
        leases = []
        for name, (group, ordinal) in reserved.items():
            endpoint = self._endpoints[name]
            if not endpoint.leases and group.backlog.lease_due(ordinal, ELSEWHERE_SECONDS, now):
                leases.append(self._hold(group, ordinal, endpoint, now))
        return leases

    def _lease_hedges(self, with_room: Collection[Holder], now: float) -> list[Lease]:
        """Send stragglers to endpoints that have nothing else to do."""
        if self._suspects:
            return []
        found = self._hedged.choose(self._endpoints.values(), with_room, self._backlogs, now)
        return [self._hedge(straggler, self._endpoints[name], now) for straggler, name in found]

    def _hedge(self, straggler: Lease, endpoint: Holder, now: float) -> Lease:
        self._tickets += 1
        lease = replace(
            straggler,
            ticket=self._tickets,
            endpoint=endpoint.name,
            sent_at=now,
            is_hedged=True,
            may_share=False,
        )
        endpoint.leases[lease.ticket] = lease
        self._hedged.note(straggler, lease)
        return lease

    def _overtake(self, lease: Lease, now: float, *, is_faster: bool = True) -> None:
        """End the other lease of a request that has its result; unless `is_faster`, its endpoint is not blamed."""
        hedge = self._hedged.part(lease)
        holder = self._endpoints.get(hedge.endpoint) if hedge is not None else None
        if hedge is None or holder is None or holder.leases.pop(hedge.ticket, None) is None:
            return
        holder.may_have_room = True
        holder.note_other_work()
        self._broken_off.discard(hedge.ticket)
        backlog = self._backlogs.get(hedge.job)
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
        self._suspects.clear(lease.request)

    def _choices(self, endpoint: Holder, waiting: Sequence[Group], now: float) -> list[Group]:
        """Return the waiting groups that this endpoint may serve now, best first."""
        ready = [
            group
            for group in waiting
            if self._may_ask(endpoint, group, now)
            and group.backlog.has_ready(
                group.number, endpoint.name, self._able_to_retry(group, now), now, self._admits(endpoint, group)
            )
        ]
        own = [group for group in ready if group.signature == endpoint.loaded]
        endpoints, serves = self._endpoints.values(), partial(self._serves, now)
        if own and not must_switch(endpoint, ready, endpoints, serves, now):
            return sorted(own, key=self._turns.order)
        if endpoint.leases:  # a switch drains first
            return []
        foreign = [group for group in ready if group.signature != endpoint.loaded] or own
        return sorted(
            foreign,
            key=lambda group: (
                -group.backlog.rank.among_all,
                servers_of(group, endpoints, serves),
                self._turns.order(group),
            ),
        )

    def _able_to_retry(self, group: Group, now: float) -> frozenset[str]:
        """Return the endpoints that could take another attempt of a group; none if there is no attempt to make."""
        return self._able(group, now) if group.backlog.has_retries(group.number) else frozenset()

    def _able(self, group: Group, now: float) -> frozenset[str]:
        return frozenset(item.name for item in self._endpoints.values() if self._serves(now, item, group))

    def _serves(self, now: float, endpoint: Holder, group: Group) -> bool:
        return self._may_ask(endpoint, group, now) and endpoint.health.open_slots(endpoint.slots) > 0

    def _may_ask(self, endpoint: Holder, group: Group, now: float) -> bool:
        backlog = group.backlog
        if backlog.closes_at is not None and not endpoint.can_finish_by(backlog.closes_at, now):
            return False
        return endpoint.fits(group.signature, now) and self._weights.may_ask(backlog, group.signature, endpoint)

    def _group_of(self, backlog: Backlog, ordinal: int) -> Group:
        number = backlog.signature_number(ordinal)
        return next(item for item in self._groups if item.backlog is backlog and item.number == number)

    def _settle_fault(self, backlog: Backlog, lease: Lease, fault: Fault, now: float) -> bool:
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
            ordinal, lease.endpoint, self._able(self._group_of(backlog, ordinal), now)
        )
        backlog.postpone(ordinal, now + self._charges.back_off(backlog, lease, fault, goes_elsewhere))
        return False
