"""The jobs and endpoints that are scheduled, and which endpoint may serve which requests now. Pure."""

from __future__ import annotations

from functools import partial

from obcd.core.pending.backlog import Admits, Backlog
from obcd.core.scheduling.groups import Group, Serves
from obcd.core.scheduling.holder import Holder
from obcd.core.scheduling.poison import RequestKey, Suspects
from obcd.core.scheduling.weights import Weights


class SchedulingState:
    """What the scheduler decides on. `now` is monotonic seconds.

    Attributes:
        holders: `{endpoint: it, with its leases}`.
        backlogs: `{job: its unfinished requests}`.
        groups: The units of scheduling of all jobs.
        changes: A number that grows when what endpoints are left out of may have changed, except by their weights.
    """

    def __init__(self) -> None:
        self.holders: dict[str, Holder] = {}
        self.backlogs: dict[str, Backlog] = {}
        self.groups: list[Group] = []
        self.weights = Weights()
        self.suspects = Suspects()
        self.has_lanes = False
        self.changes = 0

    def note_lanes(self) -> None:
        """Look whether a job has lanes; called after jobs come and go."""
        self.has_lanes = any(backlog.is_laned for backlog in self.backlogs.values())
        if not self.has_lanes:
            for endpoint in self.holders.values():
                endpoint.has_lanes, endpoint.may_have_room = False, True

    def group_of(self, backlog: Backlog, ordinal: int) -> Group:
        """Return the group of a request."""
        number = backlog.signature_number(ordinal)
        return next(item for item in self.groups if item.backlog is backlog and item.number == number)

    def attempts(self, request: RequestKey, backlog: Backlog) -> int:
        """Return how many attempts of a request failed, including crashes that did not count."""
        return backlog.attempts.get(request[1], 0) + self.suspects.unpaid(request)

    def may_ask(self, endpoint: Holder, group: Group, now: float) -> bool:
        """Return whether an endpoint may get a request of a group, if it has room."""
        backlog = group.backlog
        if backlog.closes_at is not None and not endpoint.can_finish_by(backlog.closes_at, now):
            return False
        return endpoint.fits(group.signature, now) and self.weights.may_ask(backlog, group.signature, endpoint)

    def serves(self, now: float) -> Serves:
        """Return the function that says whether an endpoint serves a group now: it may, and it is in order."""
        return partial(self._serves, now)

    def _serves(self, now: float, endpoint: Holder, group: Group) -> bool:
        return self.may_ask(endpoint, group, now) and endpoint.health.open_slots(endpoint.slots) > 0

    def able(self, group: Group, now: float) -> frozenset[str]:
        """Return the endpoints that serve a group now."""
        return frozenset(item.name for item in self.holders.values() if self._serves(now, item, group))

    def able_to_retry(self, group: Group, now: float) -> frozenset[str]:
        """Return the endpoints that could take another attempt of a group; none if there is no attempt to make."""
        return self.able(group, now) if group.backlog.has_retries(group.number) else frozenset()

    def admits(self, endpoint: Holder, group: Group) -> Admits | None:
        """Return which requests of a group may be sent beside those that an endpoint holds; None: any."""
        return self.suspects.admits(group.backlog.job, endpoint.requests()) if self.suspects else None

    def has_room(self, endpoint: Holder) -> bool:
        """Return whether an endpoint may hold more requests now; none beside a request that is sent alone."""
        if not endpoint.has_room():
            return False
        return not self.suspects or not any(map(self.suspects.runs_alone, endpoint.requests()))
