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

from obcd.core.endpoint.health import Health
from obcd.core.pending.backlog import ELSEWHERE_SECONDS, Backlog
from obcd.core.scheduling import missing_models
from obcd.core.scheduling.groups import Group, Turns, must_switch, servers_of, spared_first
from obcd.core.scheduling.hedging import HedgedRequests
from obcd.core.scheduling.holder import GROUP_CALLS, Holder
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.missing_models import MissingModel, Shortage, Unserved
from obcd.core.scheduling.settlement import Settlement
from obcd.core.scheduling.state import SchedulingState
from obcd.core.scheduling.weights import odd_ones


class Scheduler:
    """The state of all jobs and endpoints. One thread only; `now` is monotonic seconds.

    Args:
        model_waits: How long work waits for a model that no endpoint has: if all endpoints have reported their models,
            and if some were never reached.
    """

    def __init__(self, model_waits: tuple[float, float] | None = None) -> None:
        self._state = SchedulingState()
        self._hedged = HedgedRequests()
        self._settlement = Settlement(self._state, self._hedged)
        self._shortage = Shortage(model_waits)
        self._tickets = 0
        self._turns = Turns()
        # How leases end is the settlement's.
        self.answered = self._settlement.answered
        self.faulted = self._settlement.faulted
        self.take_overtaken = self._settlement.take_overtaken
        self.break_off_closed = self._settlement.break_off_closed

    # --- endpoints -----------------------------------------------------------------------------------------------

    def add_endpoint(self, name: str, slots: int | None, now: float) -> None:
        """Add an endpoint; it gets work after its first good probe.

        Args:
            slots: How many requests it may hold; None: as many as prove best.
        """
        self._state.holders[name] = Holder(name, slots, Health(name, since=now))

    def remove_endpoint(self, name: str) -> None:
        """Forget an endpoint.

        Raises:
            ValueError: If it still holds requests: their answers would find no lease, and they would be sent again.
        """
        if self._state.holders[name].leases:
            raise ValueError(f"{name} still holds requests")
        del self._state.holders[name]
        self._state.suspects.forget_endpoint(name)

    def endpoint(self, name: str) -> Holder:
        """Return an endpoint with its leases, its health and what is known of it."""
        return self._state.holders[name]

    @property
    def endpoints(self) -> Collection[Holder]:
        """All endpoints."""
        return self._state.holders.values()

    def on_probe(self, name: str, digests: Mapping[str, str] | None, failure: str | None, now: float) -> None:
        """Record a control call: the models that it found with their digests, or why it failed."""
        endpoint = self._state.holders[name]
        endpoint.may_have_room = True
        if digests is not None and digests != endpoint.digests:
            endpoint.digests = dict(digests)
            self._state.changes += 1
        endpoint.health.on_probe(failure, now)

    def expect_hosts(self, may_come: bool) -> None:
        """Set whether hosts may register endpoints: then work waits longer for a model that no endpoint has."""
        self._shortage.hosts_may_come = may_come

    def forgive_unfit(self) -> None:
        """Have every endpoint checked again: its requirements have changed."""
        for endpoint in self.endpoints:
            endpoint.fitness.forgive()
        self._state.changes += 1

    @property
    def revision(self) -> int:
        """A number that grows whenever the endpoints that are left out may have changed."""
        return self._state.changes + self._state.weights.choices

    def odd(self) -> dict[str, set[str]]:
        """Return `{endpoint: how its weights differ from those of the jobs}`, for people."""
        return odd_ones(self.endpoints, self._state.backlogs.values())

    def unfit(self) -> dict[str, set[str]]:
        """Return `{endpoint: what it does not serve as it should, and why}`, for people."""
        return {item.name: found for item in self.endpoints if (found := item.fitness.sentences())}

    @property
    def all_in_flight(self) -> int:
        """The number of requests that all endpoints hold together."""
        return sum([len(endpoint.leases) for endpoint in self.endpoints])

    @property
    def calls_in_flight(self) -> float:
        """How many calls all requests in flight make, about."""
        return sum(endpoint.calls_in_flight for endpoint in self.endpoints)

    def overdue(self, age: float, now: float) -> set[str]:
        """Return the endpoints with a lease older than `age` seconds: their worker does not keep its own limits."""
        return {
            endpoint.name
            for endpoint in self.endpoints
            if any(now - lease.sent_at > age for lease in endpoint.leases.values())
        }

    # --- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, backlog: Backlog, now: float) -> None:
        """Add the unfinished requests of a job."""
        self._state.backlogs[backlog.job] = backlog
        for number, signature in enumerate(backlog.signatures):
            self._state.groups.append(Group(backlog, number, signature, now))
        self._state.note_lanes()

    def remove_job(self, job: str) -> None:
        """Forget a job; its leases become unknown tickets."""
        state = self._state
        state.backlogs.pop(job, None)
        state.groups = [group for group in state.groups if group.backlog.job != job]
        state.suspects.clear_job(job)
        self._settlement.forget_job(job)
        self._hedged.forget_job(job)
        state.changes += 1
        state.note_lanes()

    def wanted_models(self) -> frozenset[str]:
        """Return the models that waiting work needs, missing or not."""
        return frozenset(group.signature.model for group in self._state.groups if not group.is_at_rest)

    def take_unservable(self, limit: int, now: float, coming: Collection[str] = ()) -> list[Unserved]:
        """Take requests that have waited long enough for a model that no endpoint has; see `Shortage`."""
        return self._shortage.take_unservable(self._state, limit, now, coming)

    def missing(self) -> set[MissingModel]:
        """Return what waiting work needs and no endpoint has."""
        return missing_models.missing(self._state)

    def stuck(self) -> dict[str, MissingModel]:
        """Return `{job: what it needs}` for jobs of which nothing can be sent because no endpoint has it."""
        return missing_models.stuck(self._state)

    def unserved(self) -> set[str]:
        """Return why work waits that no endpoint serves as it should, for people."""
        return missing_models.unserved(self._state)

    def next_due(self, now: float) -> float | None:
        """Return when the next back-off or rest ends or the next check for stragglers is due, after `now`, or None.

        Requests that are due already wait for an endpoint.
        """
        dues = [backlog.next_due(now) for backlog in self._state.backlogs.values() if not backlog.is_at_rest]
        dues += [item.yielding.look_due for item in self.endpoints if item.yielding is not None]
        return min((due for due in [*dues, self._hedged.next_look] if due is not None and due > now), default=None)

    # --- decisions -----------------------------------------------------------------------------------------------

    def assign(self, now: float) -> list[Lease]:
        """Fill every free slot that can be filled; one request to each endpoint in turn, so that all start together."""
        state = self._state
        state.weights.look(self.endpoints, now)
        for endpoint in self.endpoints:
            endpoint.look_at_others(now)
            if endpoint.makes_vectors:
                endpoint.open_calls()
        reserved = self._reserve(now) if state.suspects else {}
        leases = self._lease_reserved(reserved, now)
        open_endpoints = [
            item for item in self.endpoints if item.may_have_room and item.name not in reserved and state.has_room(item)
        ]
        # A lease may free another endpoint to switch, so all are checked until nothing more is leased.
        while open_endpoints and (waiting := [group for group in state.groups if not group.is_at_rest]):
            if state.has_lanes:
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
            open_endpoints = [endpoint for endpoint in open_endpoints if state.has_room(endpoint)]
        return leases + self._lease_hedges(open_endpoints, now)

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
        if endpoint.group_size > 1 and not self._state.suspects:
            group = self._state.group_of(self._state.backlogs[first.job], first.ordinal)
            part = group.backlog.unfinished // (2 * GROUP_CALLS * len(self.endpoints))
            able = self._state.able_to_retry(group, now)
            for _ in range(min(endpoint.group_size, part, endpoint.free() + 1) - 1):
                ordinal = group.backlog.lease(group.number, endpoint.name, able, now)
                if ordinal is None:
                    break
                leases.append(self._hold(group, ordinal, endpoint, now))
        return leases

    def _lease_one(self, endpoint: Holder, waiting: Sequence[Group], now: float) -> Lease | None:
        choices = fair = self._choices(endpoint, waiting, now)
        if self._state.has_lanes and len(choices) > 1 and choices[0].signature == endpoint.loaded:
            freed = endpoint.freed.pop() if endpoint.freed else None
            choices = self._turns.put_first(fair, endpoint.name, freed)
        for group in choices:
            able, admits = self._state.able_to_retry(group, now), self._state.admits(endpoint, group)
            ordinal = group.backlog.lease(group.number, endpoint.name, able, now, admits)
            if ordinal is not None:
                return self._hold(group, ordinal, endpoint, now, is_ahead=choices is not fair and group is choices[0])
        return None

    def _hold(self, group: Group, ordinal: int, endpoint: Holder, now: float, *, is_ahead: bool = False) -> Lease:
        """Make the lease of a request that its backlog has leased."""
        self._tickets += 1
        self._turns.note(group, now, is_ahead=is_ahead)
        endpoint.load(group.signature)
        digest = self._state.weights.choose(group.backlog, group.signature, endpoint)
        attempt = self._state.attempts((group.backlog.job, ordinal), group.backlog) + 1
        lease = Lease(
            self._tickets,
            group.backlog.job,
            ordinal,
            endpoint.name,
            attempt,
            now,
            digest,
            group.number,
            may_share=group.signature.embeds and self._settlement.may_share(group.backlog, ordinal, attempt),
        )
        endpoint.leases[lease.ticket] = lease
        endpoint.quota -= 1
        return lease

    def _reserve(self, now: float) -> dict[str, tuple[Group, int]]:
        """Choose an endpoint for each request that has to be sent alone; the endpoint takes nothing else meanwhile.

        Usually an endpoint becomes empty by itself. If there is always work, it has to be kept free.

        Returns:
            `{endpoint: (group, ordinal)}`.
        """
        reserved: dict[str, tuple[Group, int]] = {}
        serves = self._state.serves(now)
        for job, ordinal in self._state.suspects.alone:
            backlog = self._state.backlogs[job]
            if backlog.is_at_rest or not backlog.lease_due(ordinal, ELSEWHERE_SECONDS, now, only_look=True):
                continue
            group = self._state.group_of(backlog, ordinal)
            order = (item for item in spared_first(self.endpoints) if item.name not in reserved)
            chosen = next((item for item in order if serves(item, group)), None)
            if chosen is not None:
                reserved[chosen.name] = group, ordinal
        return reserved

    def _lease_reserved(self, reserved: dict[str, tuple[Group, int]], now: float) -> list[Lease]:
        """Lease the requests that waited for an empty endpoint, if theirs is empty now."""
        leases = []
        for name, (group, ordinal) in reserved.items():
            endpoint = self._state.holders[name]
            if not endpoint.leases and group.backlog.lease_due(ordinal, ELSEWHERE_SECONDS, now):
                leases.append(self._hold(group, ordinal, endpoint, now))
        return leases

    def _lease_hedges(self, with_room: Collection[Holder], now: float) -> list[Lease]:
        """Send stragglers to endpoints that have nothing else to do."""
        if self._state.suspects:
            return []
        found = self._hedged.choose(self.endpoints, with_room, self._state.backlogs, now)
        return [self._hedge(straggler, self._state.holders[name], now) for straggler, name in found]

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

    def _choices(self, endpoint: Holder, waiting: Sequence[Group], now: float) -> list[Group]:
        """Return the waiting groups that this endpoint may serve now, best first."""
        state, endpoints = self._state, self.endpoints
        ready = [
            group
            for group in waiting
            if state.may_ask(endpoint, group, now)
            and group.backlog.has_ready(
                group.number, endpoint.name, state.able_to_retry(group, now), now, state.admits(endpoint, group)
            )
        ]
        own = [group for group in ready if group.signature == endpoint.loaded]
        serves = state.serves(now)
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
