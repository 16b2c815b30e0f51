"""Which endpoints there are: those of the configuration and those of hosts come, change and leave."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from obcd.config.endpoints import Endpoint
from obcd.config.settings import Settings
from obcd.coordinator.endpoints.changes import Change
from obcd.coordinator.endpoints.endpoint_table import EndpointTable, Figures
from obcd.coordinator.endpoints.endpoint_views import facts_of
from obcd.coordinator.endpoints.receiving import Receiver, RequestEvent
from obcd.core.endpoint.faults import host_gone
from obcd.core.endpoint.health import LEAVING, EndpointState
from obcd.core.endpoint.rates import Rate
from obcd.hosts.roster import HostedEndpoint, Standing, Taken
from obcd.spool.outbox.publication import EndpointFacts
from obcd.workers.worker import WorkerSpec

logger = logging.getLogger(__name__)

#: The number of removed endpoints whose facts are kept for manifests.
DEPARTED = 500


class Membership:
    """The coming and leaving of endpoints; one that leaves finishes its requests in flight first.

    Args:
        jobs: The folder from which workers read requests.

    Attributes:
        changes: Grows when an endpoint comes, or when its configuration changes.
        departed: `{endpoint that was removed: its entry in manifests}`.
    """

    def __init__(self, table: EndpointTable, receiver: Receiver, settings: Settings, jobs: Path, now: float) -> None:
        self.changes = 0
        self.departed: dict[str, EndpointFacts] = {}
        self._table, self._receiver, self._jobs = table, receiver, jobs
        #: Names of endpoints whose server still serves under another name, which is leaving.
        self._held: set[str] = set()
        self._requests = settings.requests
        self._take_settings(settings)
        for item in settings.endpoints():
            self._add(item, now)

    def _take_settings(self, settings: Settings) -> None:
        self._requests = settings.requests
        self._table.hosts = settings.cluster.hosts
        self._table.scheduler.expect_hosts(settings.cluster.hosts is not None)

    def apply(self, change: Change, settings: Settings, now: float) -> None:
        """Add, change and remove endpoints; those to be removed finish their requests in flight first."""
        if settings.requests.require_gpu != self._requests.require_gpu:
            self._table.scheduler.forgive_unfit()
        self._take_settings(settings)
        for name in change.left:
            self._drain(name, now)
        for item in change.back:
            self._reopen(item.name, now)
        self.let_leave(now)
        for item in change.came:
            if self._table.hosted.pop(item.name, None) is None:
                self._add(item, now)
            else:  # a host has registered it: it stays, and its requests in flight too
                self._reopen(item.name, now)
                self._table.holder(item.name).limit(None, None)
        old, wanted = self._table.members, settings.endpoints()
        self._table.members = {item.name: item for item in wanted}
        self._table.members.update(
            (name, old[name]) for name in old if name in self._table.hosted or name in self._table.leaving
        )
        self.changes += 1
        for item in wanted:
            holder = self._table.holder(item.name)
            holder.set_slots(item.slots)
            holder.set_yielding(item.yields)
            if item.name not in self._held:
                self._table.pool.configure(self._spec(item))

    def offer(self, offered: Iterable[HostedEndpoint], now: float) -> list[RequestEvent]:
        """Take the endpoints in that hosts offer now, drain those that are not OPEN, and remove all others at once.

        Returns:
            The outcomes of requests in flight at those that are removed: they are sent again.
        """
        wanted = {item.endpoint.name: item for item in offered}
        events: list[RequestEvent] = []
        for name in [name for name in self._table.hosted if name not in wanted]:
            events += self._remove_hosted(name, now)
        for name, item in wanted.items():
            if self._table.hosted.get(name) != item:
                self._offer(name, item, now)
        self.let_leave(now)
        return events

    def _offer(self, name: str, item: HostedEndpoint, now: float) -> None:
        is_ending = item.standing is Standing.ENDING
        if name in self._table.members and name not in self._table.hosted and name not in self._table.leaving:
            return  # the configuration has it
        if name not in self._table.members:
            if is_ending:
                return
            self._add(item.endpoint, now)
        self._table.hosted[name], self._table.members[name] = item, item.endpoint
        if name not in self._held:  # it may have been in the configuration, with a token
            self._table.pool.configure(self._spec(item.endpoint))
        holder = self._table.holder(name)
        holder.set_slots(item.endpoint.slots)
        holder.set_yielding(item.endpoint.yields)
        holder.limit(item.only_for, item.ends_at)
        if item.standing is Standing.OPEN:
            self._reopen(name, now)
        else:
            self._drain(name, now, item.reason, is_leaving=is_ending)

    def _drain(self, name: str, now: float, reason: str = LEAVING, *, is_leaving: bool = True) -> None:
        self._table.holder(name).drain(now, reason)
        self._table.log_state(name)
        if is_leaving:
            self._table.leaving.add(name)

    def _reopen(self, name: str, now: float) -> None:
        """Let an endpoint get requests again if it drains."""
        self._table.leaving.discard(name)
        if self._table.health(name).state is EndpointState.DRAINING:
            self._table.holder(name).undrain(now)
            self._table.log_state(name)
            self._table.probe_soon(name)

    def _remove_hosted(self, name: str, now: float) -> list[RequestEvent]:
        """Remove an endpoint of a host; its worker cancels what is in flight."""
        self._drain(name, now, "its host is gone")
        found = [
            self._receiver.on_faulted(name, lease.ticket, 0, host_gone(), now)
            for lease in self._table.holder(name).held
        ]
        self.let_leave(now)
        return [event for event in found if event is not None]

    def drain_hosted(self, now: float) -> None:
        """Let all endpoints of hosts leave when their requests in flight are finished: another folder is configured."""
        for name in self._table.hosted:
            self._drain(name, now)
        self._table.hosted.clear()
        self.let_leave(now)

    @property
    def configured(self) -> list[Endpoint]:
        """The endpoints that the configuration names."""
        return [
            item
            for name, item in self._table.members.items()
            if name not in self._table.hosted and name not in self._table.leaving
        ]

    def taken(self) -> Taken:
        """Return the servers that the configuration names, which no host can take from it."""
        configured = self.configured
        return Taken(
            urls=frozenset(item.url for item in configured),
            places=frozenset((self._table.figures[item.name].peer, item.port) for item in configured),
            local_ports=frozenset(item.port for item in configured if item.is_loopback),
        )

    def _spec(self, item: Endpoint) -> WorkerSpec:
        requests = self._requests
        return WorkerSpec(
            item.name, item.url, self._jobs, requests.connect_timeout_seconds, item.token, requests.require_gpu
        )

    def _add(self, item: Endpoint, now: float) -> None:
        """Add an endpoint; its worker waits while the same server still serves under another name."""
        self.changes += 1
        self._table.scheduler.add_endpoint(item.name, item.slots, now)
        self._table.holder(item.name).set_yielding(item.yields)
        self._table.figures[item.name] = Figures(Rate(now))
        if any(self._table.members[name].url == item.url for name in self._table.leaving):
            self._held.add(item.name)
        else:
            self._table.pool.add(self._spec(item))
        self._table.members[item.name] = item

    def let_leave(self, now: float) -> None:
        """Remove endpoints that are leaving and have nothing in flight any more."""
        for name in [name for name in self._table.leaving if not self._table.holder(name).in_flight]:
            self.departed[name] = facts_of(self._table, self._table.members[name])
            while len(self.departed) > DEPARTED:
                del self.departed[next(iter(self.departed))]
            self._table.scheduler.remove_endpoint(name)
            if name in self._held:
                self._held.remove(name)
            else:
                self._table.pool.remove(name, now)
            self._table.leaving.remove(name)
            self._table.hosted.pop(name, None)
            del self._table.members[name], self._table.figures[name]
            logger.info("endpoint %s is removed", name, extra={"action": "endpoint_left", "endpoint": name})
        taken = {self._table.members[name].url for name in self._table.leaving}
        for name in [name for name in self._held if self._table.members[name].url not in taken]:
            self._held.remove(name)
            self._table.pool.add(self._spec(self._table.members[name]))
