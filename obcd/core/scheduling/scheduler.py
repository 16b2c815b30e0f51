"""Which endpoint gets which request next: jobs on one side, free slots on the other. Pure: values in, leases out.

Rules: an endpoint never holds more requests than its open slots. It keeps the signature that it has loaded while there
is work for it, and drains before it switches. Submitters take turns, and so do the jobs of one submitter, higher
priority first (see `fair_share`). A request that failed on one endpoint goes to another one first. A fault of the
endpoint costs the request nothing. `poison` finds out which request caused a crash. An endpoint without other work also
gets requests that take long elsewhere, and the first answer counts (see `hedging`). A job never mixes answers of
different weights (see `weights`), and an endpoint that cannot serve a signature as it should is left out for that
signature (see `signature_health`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.health import LEAVING, Health
from obcd.core.request.records import Signature
from obcd.core.scheduling.attempt_count import AttemptCount
from obcd.core.scheduling.backlog import ELSEWHERE_SECONDS, Admits, Backlog
from obcd.core.scheduling.groups import Group
from obcd.core.scheduling.hedging import HedgedRequests
from obcd.core.scheduling.leases import Holder, Lease, Overtaken
from obcd.core.scheduling.missing_models import (
    MissingModel,
    Shortage,
    Unserved,
    describe_unfit,
    describe_unopened,
    missing_of,
)
from obcd.core.scheduling.model_affinity import must_switch, servers_of, spared_first
from obcd.core.scheduling.poison import Suspects
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
        #: {submitter: the last ticket for one of their requests}
        self._served: dict[int, int] = {}
        self._charges = AttemptCount()
        self._suspects = Suspects()
        self._hedged = HedgedRequests()
        self._overtaken: list[Overtaken] = []

    # --- endpoints -----------------------------------------------------------------------------------------------

    def add_endpoint(self, name: str, slots: int | None, now: float) -> None:
        """Add an endpoint; it gets work after its first good probe.

        Args:
            slots: How many requests it may hold; None: as many as prove best.
        """
        self._endpoints[name] = Holder(name, slots, Health(name, since=now))

    def set_slots(self, name: str, slots: int | None) -> None:
        """Change an endpoint's slots; requests above a smaller number finish."""
        self._endpoints[name].fixed_slots = slots

    def slots(self, name: str) -> int:
        """Return how many requests an endpoint may hold now, if it is UP."""
        return self._endpoints[name].slots

    def limit_endpoint(self, name: str, only_for: int | None, ends_at: float | None) -> None:
        """Set whose requests an endpoint serves, and when it ends, as in `Holder`."""
        self._endpoints[name].only_for, self._endpoints[name].ends_at = only_for, ends_at

    def can_finish(self, name: str, now: float) -> bool:
        """Return whether a request that an endpoint gets now should finish before the endpoint ends."""
        return self._endpoints[name].can_finish(now)

    def drain_endpoint(self, name: str, now: float, reason: str = LEAVING) -> None:
        """Give an endpoint nothing new; its requests finish."""
        self._endpoints[name].health.drain(now, reason)

    def undrain_endpoint(self, name: str, now: float) -> None:
        """Take an endpoint back while it drains; it gets work after its next good probe."""
        self._endpoints[name].health.undrain(now)

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

    def models(self, name: str) -> Mapping[str, str] | None:
        """Return `{model: digest}` of an endpoint, or None if it was never reached."""
        return self._endpoints[name].digests

    def on_probe(self, name: str, digests: Mapping[str, str] | None, failure: str | None, now: float) -> None:
        """Record a control call: the models that it found with their digests, or why it failed."""
        endpoint = self._endpoints[name]
        if digests is not None and digests != endpoint.digests:
            endpoint.digests = dict(digests)
            self._revision += 1
        endpoint.health.on_probe(failure, now)

    def on_recovery_step(self, name: str, step: str, now: float) -> None:
        """Record what is being done about an endpoint that answers no request: it gets nothing meanwhile."""
        self._endpoints[name].health.on_recovery_step(step, now)

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

    def remove_job(self, job: str) -> None:
        """Forget a job; its leases become unknown tickets."""
        self._backlogs.pop(job, None)
        self._groups = [group for group in self._groups if group.backlog.job != job]
        self._charges.forget_job(job)
        self._suspects.clear_job(job)
        self._hedged.forget_job(job)
        self._revision += 1

    # --- decisions -----------------------------------------------------------------------------------------------

    def assign(self, now: float) -> list[Lease]:
        """Fill every free slot that can be filled; one request to each endpoint in turn, so that all start together."""
        self._weights.look(self._endpoints.values(), now)
        reserved = self._reserve(now) if self._suspects else {}
        leases = self._lease_reserved(reserved, now)
        open_endpoints = [
            item for item in self._endpoints.values() if item.name not in reserved and self._has_room(item)
        ]
        # A lease may free another endpoint to switch, so all are checked until nothing more is leased.
        while open_endpoints and (waiting := [group for group in self._groups if not group.is_at_rest]):
            fresh = [
                lease for endpoint in open_endpoints if (lease := self._lease_one(endpoint, waiting, now)) is not None
            ]
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
        holder = self._endpoints[endpoint]
        lease = holder.leases.pop(ticket, None)
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
        return lease

    def _learn(self, holder: Holder, backlog: Backlog | None, lease: Lease, span: Span, now: float) -> None:
        """Learn from an answer about its endpoint, and about its job's lines."""
        holder.pace.note(now - lease.sent_at)
        self._overtake(lease, now)
        holder.finder.on_answer(lease.sent_at, len(holder.leases) + 1, span, now)
        holder.health.on_answer(now)
        if backlog is not None:
            backlog.on_answer(lease.ordinal, span.work)
            self._revision += holder.fitness.on_answer(backlog.signature_of(lease.ordinal), lease.sent_at)

    def faulted(self, ticket: int, endpoint: str, fault: Fault, now: float) -> tuple[Lease, bool, Fault] | None:
        """End a lease with a fault.

        Returns:
            The lease, whether the request has now failed for good (then it is ended), and the fault to report: a
            request that crashes every server gets another fault. None for a late fault.
        """
        holder = self._endpoints[endpoint]
        lease = holder.leases.pop(ticket, None)
        if lease is None:
            return None
        backlog, has_neighbours = self._backlogs.get(lease.job), bool(holder.leases)
        if backlog is not None:  # its hedged request may have failed before, which counts
            lease = replace(lease, attempt=max(lease.attempt, self._attempts(backlog, lease.ordinal) + 1))
        found = self._suspects.judge(fault, lease.request, endpoint, lease.sent_at, now, has_neighbours=has_neighbours)
        holder.health.on_fault(found.harm, fault.message, lease.sent_at, now, is_crash=found.is_crash)
        for name in found.cleared & self._endpoints.keys():
            self._endpoints[name].health.forgive_crashes(now)
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
        holder = self._endpoints[endpoint]
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
        """Return when the next back-off ends or the next check for stragglers is due, after `now`, or None.

        Requests that are due already wait for an endpoint.
        """
        dues = [backlog.next_due(now) for backlog in self._backlogs.values() if not backlog.is_paused]
        return min((due for due in [*dues, self._hedged.next_look] if due is not None and due > now), default=None)

    # --- inside --------------------------------------------------------------------------------------------------

    def _has_room(self, endpoint: Holder) -> bool:
        """Return whether an endpoint may hold more requests now; none beside a request that is sent alone."""
        if endpoint.free() <= 0:  # the usual case: all endpoints are checked, again and again
            return False
        return not self._suspects or not any(map(self._suspects.runs_alone, endpoint.requests()))

    def _lease_one(self, endpoint: Holder, waiting: Iterable[Group], now: float) -> Lease | None:
        for group in self._choices(endpoint, waiting, now):
            admits = self._admits(endpoint, group)
            ordinal = group.backlog.lease(group.number, endpoint.name, self._able_to_retry(group, now), now, admits)
            if ordinal is not None:
                return self._hold(group, ordinal, endpoint, now)
        return None

    def _hold(self, group: Group, ordinal: int, endpoint: Holder, now: float) -> Lease:
        """Make the lease of a request that its backlog has leased."""
        self._tickets += 1
        group.served_at, group.turn = now, self._tickets
        self._served[group.backlog.submitter] = self._tickets
        endpoint.load(group.signature)
        job, digest = group.backlog.job, self._weights.choose(group.backlog, group.signature, endpoint)
        attempt = self._attempts(group.backlog, ordinal) + 1
        lease = Lease(self._tickets, job, ordinal, endpoint.name, attempt, now, digest, group.number)
        endpoint.leases[lease.ticket] = lease
        return lease

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
            if backlog.is_paused or not backlog.lease_due(ordinal, ELSEWHERE_SECONDS, now, only_look=True):
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
        is_overdue = is_faster and holder.pace.is_overdue(now - hedge.sent_at, now - lease.sent_at)
        self._overtaken.append(Overtaken(hedge, is_overdue))
        if is_overdue:
            reason = "it takes far longer than other endpoints, and than before"
            holder.health.on_fault(Harm.STRIKE, reason, hedge.sent_at, now)

    def _end(self, backlog: Backlog, lease: Lease) -> None:
        backlog.end(lease.ordinal)
        self._charges.forget(lease.request)
        self._suspects.clear(lease.request)

    def _choices(self, endpoint: Holder, waiting: Iterable[Group], now: float) -> Iterator[Group]:
        """Yield the waiting groups that this endpoint may serve now, best first."""
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
            yield from sorted(own, key=self._order)
        elif not endpoint.leases:  # a switch drains first
            foreign = [group for group in ready if group.signature != endpoint.loaded] or own
            yield from sorted(
                foreign,
                key=lambda group: (
                    -group.backlog.rank.among_all,
                    servers_of(group, endpoints, serves),
                    self._order(group),
                ),
            )

    def _order(self, group: Group) -> tuple[int, int, int, int]:
        backlog = group.backlog
        return -backlog.rank.among_all, self._served.get(backlog.submitter, 0), -backlog.rank.among_own, group.turn

    def _able_to_retry(self, group: Group, now: float) -> frozenset[str]:
        """Return the endpoints that could take another attempt of a group; none if there is no attempt to make."""
        return self._able(group, now) if group.backlog.has_retries(group.number) else frozenset()

    def _able(self, group: Group, now: float) -> frozenset[str]:
        return frozenset(item.name for item in self._endpoints.values() if self._serves(now, item, group))

    def _serves(self, now: float, endpoint: Holder, group: Group) -> bool:
        return self._may_ask(endpoint, group, now) and endpoint.health.open_slots(endpoint.slots) > 0

    def _may_ask(self, endpoint: Holder, group: Group, now: float) -> bool:
        return endpoint.fits(group.signature, now) and self._weights.may_ask(group.backlog, group.signature, endpoint)

    def _group_of(self, backlog: Backlog, ordinal: int) -> Group:
        number = backlog.signature_number(ordinal)
        return next(item for item in self._groups if item.backlog is backlog and item.number == number)

    def _settle_fault(self, backlog: Backlog, lease: Lease, fault: Fault, now: float) -> bool:
        ordinal = lease.ordinal
        if fault.needs and backlog.enlarge(ordinal, fault.needs, now):
            return False
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
