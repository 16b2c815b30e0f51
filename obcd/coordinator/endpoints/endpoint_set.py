"""The endpoints and their workers, as the coordinator uses them: leased requests go out, outcomes come in.

coordinator ◄─events─ endpoints ◄─► scheduler (which endpoint gets which request)
                          ▲
                          └─► pool (one worker process per endpoint)

`membership`: which endpoints there are; `control_calls`: what they have; `receiving`: what their workers report;
`endpoint_views`: what people see of them. They share an `endpoint_table`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from obcd.config.endpoints import Endpoint
from obcd.config.settings import Settings
from obcd.coordinator.endpoints import endpoint_views
from obcd.coordinator.endpoints.control_calls import ControlCalls
from obcd.coordinator.endpoints.endpoint_table import EndpointTable
from obcd.coordinator.endpoints.fetching import Fetcher, PullSite
from obcd.coordinator.endpoints.left_out_log import LeftOutLog
from obcd.coordinator.endpoints.membership import Membership
from obcd.coordinator.endpoints.receiving import Receiver, RequestEvent
from obcd.coordinator.view import EndpointView
from obcd.core.endpoint.health import EndpointState
from obcd.core.request.records import JobSettings
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler
from obcd.spool.outbox.publication import EndpointFacts
from obcd.text import plural
from obcd.workers.messages import Ask, AskGroup, Cancel

logger = logging.getLogger(__name__)

#: Seconds that a worker may exceed its own limits before it counts as frozen.
OVERDUE_GRACE = 30.0


class Endpoints:
    """All endpoints. Main thread only; `now` is in monotonic seconds.

    Args:
        jobs: The folder from which workers read requests.
    """

    def __init__(self, settings: Settings, jobs: Path, scheduler: Scheduler, now: float) -> None:
        self.scheduler = scheduler
        self._table = EndpointTable(scheduler)
        self.pool, self.figures, self.leaving = self._table.pool, self._table.figures, self._table.leaving
        self.fetcher = Fetcher()
        self._calls = ControlCalls(self._table)
        self._receiver = Receiver(self._table, self._calls)
        self._membership = Membership(self._table, self._receiver, settings, jobs, now)
        self._left_out_log, self._logged_revision = LeftOutLog(), 0
        self._oldest = 0.0
        # Who comes and leaves is the membership's, and when control calls are made is theirs.
        self.apply, self.offer = self._membership.apply, self._membership.offer
        self.drain_hosted, self.taken = self._membership.drain_hosted, self._membership.taken
        self.probe, self.look_around = self._calls.probe, self._calls.look_around

    @property
    def members(self) -> tuple[Endpoint, ...]:
        """The endpoints in the order of the configuration; then those of hosts; those that are leaving come last."""
        return tuple(self._table.members.values())

    @property
    def open_url(self) -> str:
        """The URL of an endpoint that needs no token, for advice that people copy; "" if all need one."""
        return next((member.url for member in self._table.members.values() if member.token is None), "")

    def on_limits(self, settings: JobSettings) -> None:
        """Allow for the time limits of a job's requests; a job keeps its limits when the configuration changes."""
        longest = settings.load_timeout_seconds + settings.request_timeout_seconds + OVERDUE_GRACE
        self._oldest = max(self._oldest, longest)

    def wait_for_windows(self, waits: Mapping[str, str]) -> None:
        """Show that exactly these endpoints wait for their windows.

        Args:
            waits: `{endpoint: the sentence about it}`, the first to open first.
        """
        if waits != self._table.window_waits:
            self._table.window_waits = waits
            self._table.revision += 1

    def break_off_closed(self) -> None:
        """Abort the requests in flight outside their windows: they are sent again in the next one."""
        late = self.scheduler.break_off_closed()
        for lease in late:
            self.pool.send(lease.endpoint, Cancel(lease.ticket))
        if late:
            text = "%s aborted at the end of a window: sent again in the next one, which costs no attempt"
            logger.info(text, plural(len(late), "request"), extra={"action": "window_ended"})

    @property
    def revision(self) -> int:
        """A number that grows when an endpoint changes its state, or when what it is left out of changes."""
        return self._table.revision

    @property
    def changes(self) -> int:
        """A number that grows when an endpoint comes, or when its configuration changes."""
        return self._membership.changes

    @property
    def configured(self) -> list[Endpoint]:
        """The endpoints that the configuration names."""
        return self._membership.configured

    @property
    def next_probe(self) -> float:
        """When the next control call is due, in monotonic seconds."""
        return self._table.next_probe

    @property
    def waits_for_host(self) -> bool:
        """Whether there is no endpoint, which is a state and not a fault: hosts may register."""
        return self._table.waits_for_host

    @property
    def outage(self) -> str:
        """Why no endpoint can take a request; "" when one can, or when it is not known yet."""
        return self._table.outage

    @property
    def window_wait(self) -> str:
        """Until when every endpoint waits for its window; "" when one need not."""
        return self._table.window_wait

    def lost(self) -> dict[str, str]:
        """Return `{endpoint that does not serve: why, for people}`, without those that are leaving or draining."""
        return endpoint_views.lost(self._table)

    def views(self, now: float) -> tuple[EndpointView, ...]:
        """Return the views of the endpoints."""
        return endpoint_views.views(self._table, now)

    def facts(self) -> dict[str, EndpointFacts]:
        """Return `{endpoint: its entry in manifests}`, with those of endpoints that have left."""
        now = {item.name: endpoint_views.facts_of(self._table, item) for item in self.members}
        return {**self._membership.departed, **now}

    @property
    def in_flight(self) -> int:
        """The number of requests at the endpoints now."""
        return self.scheduler.all_in_flight

    @property
    def calls_in_flight(self) -> float:
        """The number of calls that these requests make, about: several requests for vectors go out in one."""
        return self.scheduler.calls_in_flight

    def dispatch(self, now: float) -> None:
        """Fill every free slot."""
        for endpoint, message in self._messages_of(self.scheduler.assign(now)):
            self.pool.send(endpoint, message)
        self._calls.log_yielding()
        if self.scheduler.revision != self._logged_revision:
            self._log_left_out()

    def _messages_of(self, leases: Iterable[Lease]) -> Iterator[tuple[str, Ask | AskGroup]]:
        """Yield what is sent to which endpoint; texts for vectors of one job go out in groups."""
        groups: dict[tuple[str, str, int, str], list[Ask]] = {}
        for lease in leases:
            about = lease.job, lease.ordinal, lease.attempt, lease.digest, lease.signature, lease.is_hedged
            ask = Ask(lease.ticket, *about)
            if not lease.may_share:
                yield lease.endpoint, ask
                continue
            key = lease.endpoint, lease.job, lease.signature, lease.digest
            group = groups.setdefault(key, [])
            group.append(ask)
            if len(group) >= self.scheduler.endpoint(lease.endpoint).group_size:
                yield lease.endpoint, AskGroup(tuple(groups.pop(key)))
        for (endpoint, *_), group in groups.items():
            yield endpoint, AskGroup(tuple(group))

    def fetch(self, settings: Settings, now: float) -> None:
        """Fetch models that jobs need and a host lacks, if the configuration allows it."""
        wanted = self.scheduler.wanted_models() & settings.models() if settings.requests.pull else frozenset[str]()
        sites = [
            PullSite(item, models)
            for item in self._table.members.values()
            if (models := self.scheduler.endpoint(item.name).digests) is not None
            and self._table.health(item.name).state is EndpointState.UP
        ]
        news = self.fetcher.tick(wanted, sites, now)
        for item in self._table.members.values():
            if item.host in news:
                self._table.probe_soon(item.name)

    def receive(self, now: float, readable: Iterable[int] = ()) -> list[RequestEvent]:
        """Receive the workers' messages and return the outcomes of attempts.

        Args:
            readable: Descriptors that can be read; those of others than workers are ignored.
        """
        events = self._receiver.receive(now, readable)
        if self.leaving:
            self._membership.let_leave(now)
        return events

    def replace_frozen(self, now: float) -> list[RequestEvent]:
        """Replace workers that exceed their own limits or were stopped; return the outcomes of their requests."""
        return self._receiver.replace_frozen(self._oldest, now)

    def cancel_in_flight(self, job: str | None = None) -> None:
        """Cancel the requests in flight, of one job or of all, so that no server computes a result in vain."""
        for item in self._table.members.values():
            for lease in self.scheduler.endpoint(item.name).held:
                if job in (None, lease.job):
                    self.pool.send(item.name, Cancel(lease.ticket))

    def _log_left_out(self) -> None:
        self._logged_revision = self.scheduler.revision
        if self._left_out_log.log_news(self.scheduler.odd(), self.scheduler.unfit()):
            self._table.revision += 1
