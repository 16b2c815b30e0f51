"""Requests that are sent to a second endpoint because the first takes long and the second is idle. Pure.

The first answer counts. This happens only when nothing else waits, and so rarely that it costs almost nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from obcd.core.endpoint.health import EndpointState
from obcd.core.endpoint.latency import MeanLatency
from obcd.core.pending.backlog import Backlog
from obcd.core.scheduling.holder import Holder
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.weights import could_ask

#: Seconds between two checks for stragglers: there is a check at every lease.
LOOK_SECONDS = 0.2
#: The promise that justifies a hedged request: the straggler's rest is this many times a whole request elsewhere.
GAIN = 1.25
#: Shortest rest of a straggler, in seconds: a shorter one does not justify it, and a busy machine alone may cause it.
WORTH_SECONDS = 1.0
#: Seconds after which the cache of answers certainly did not know a request: a lookup takes milliseconds.
CACHE_SECONDS = 1.0
#: Share of a job's requests that may be hedged for speed alone, and the least number; overdue ones always may.
SHARE, LEAST = 0.02, 2


class HedgedRequests:
    """The hedged requests.

    Attributes:
        next_look: When to check for stragglers again, None if no endpoint is idle.
    """

    def __init__(self) -> None:
        self.next_look: float | None = None
        #: {ticket: the lease of the same request on the other endpoint}
        self._hedges: dict[int, Lease] = {}
        #: {job: its requests that were hedged}: once each, or one that hangs everywhere would go round and round
        self._asked: defaultdict[str, set[int]] = defaultdict(set)

    def choose(
        self, holders: Collection[Holder], with_room: Iterable[Holder], backlogs: Mapping[str, Backlog], now: float
    ) -> list[tuple[Lease, str]]:
        """Return the requests to hedge, and where.

        Called when everything that waits is leased.

        Args:
            with_room: The endpoints that still have room: they are idle.
        """
        if self.next_look is not None and now < self.next_look:
            return []
        self.next_look = None
        if not any(item.leases for item in holders):  # first, because it is quick, above all with nothing to do
            return []
        idle = [item for item in with_room if self._is_idle(item, now)]
        if not idle:
            return []
        at_work = [item for item in holders if item.leases]
        self.next_look = now + LOOK_SECONDS
        found: list[tuple[Lease, str]] = []
        slow = self._find_slow(at_work, backlogs, now)
        for endpoint in sorted(idle, key=lambda item: item.pace.mean or 0.0) if slow else ():
            others = [item for item in at_work if item is not endpoint and item.loaded == endpoint.loaded]
            room = endpoint.free()
            for lease in self._find(slow, endpoint, backlogs, now):
                backlog = backlogs.get(lease.job)
                if not room:
                    break
                if backlog is None or not could_ask(backlog, backlog.signature_of(lease.ordinal), endpoint):
                    continue
                if self._is_allowed(lease, backlog, others, endpoint.pace, now):
                    room -= 1
                    found.append((lease, endpoint.name))
                    self._asked[lease.job].add(lease.ordinal)  # at once: it counts for the next one already
        return found

    def note(self, lease: Lease, hedge: Lease) -> None:
        """Record a request that is now at two endpoints."""
        self._hedges[hedge.ticket], self._hedges[lease.ticket] = lease, hedge

    def part(self, lease: Lease) -> Lease | None:
        """Return the other lease of a request and forget that they belong together; None if there is no other."""
        other = self._hedges.pop(lease.ticket, None)
        if other is not None:
            self._hedges.pop(other.ticket, None)
        return other

    def forget_job(self, job: str) -> None:
        """Forget the counts of a job."""
        self._asked.pop(job, None)

    @staticmethod
    def _is_idle(item: Holder, now: float) -> bool:
        """Return whether an endpoint has proved that it serves its loaded signature, and has room."""
        if item.free() <= 0 or item.pace.mean is None or item.health.state is not EndpointState.UP:
            return False
        return item.loaded is not None and item.fits(item.loaded, now)

    def _find_slow(
        self, holders: Iterable[Holder], backlogs: Mapping[str, Backlog], now: float
    ) -> list[tuple[Holder, Lease]]:
        """Return the leases that may be worth a hedged request, wherever it goes: looked for once for all endpoints."""
        return [
            (item, lease)
            for item in holders
            for lease in item.leases.values()
            if (backlog := backlogs.get(lease.job)) is not None
            and lease.ordinal not in self._asked.get(lease.job, ())
            and (
                item.pace.mean is None
                or item.pace.rest(now - lease.sent_at - backlog.beginning(lease.ordinal)[0], 0.0) >= WORTH_SECONDS
            )
        ]

    def _find(
        self, slow: Iterable[tuple[Holder, Lease]], endpoint: Holder, backlogs: Mapping[str, Backlog], now: float
    ) -> list[Lease]:
        """Return the leases that an endpoint would probably answer first, the longest first."""
        mean, found = endpoint.pace.mean or 0.0, []
        for item, lease in slow:
            if item is endpoint or item.loaded != endpoint.loaded or lease.ordinal in self._asked.get(lease.job, ()):
                continue
            here, there = backlogs[lease.job].beginning(lease.ordinal)
            rest = item.pace.rest(now - lease.sent_at - here, mean)
            if rest >= max(GAIN * (mean + there), WORTH_SECONDS):
                found.append((rest, lease.ticket, lease))
        return [lease for _, _, lease in sorted(found, reverse=True)]

    def _is_allowed(self, lease: Lease, backlog: Backlog, holders: list[Holder], pace: MeanLatency, now: float) -> bool:
        if backlog.is_at_rest or (backlog.has_cache and now - lease.sent_at < CACHE_SECONDS):
            return False
        holder = next(item for item in holders if item.name == lease.endpoint)
        here, _ = backlog.beginning(lease.ordinal)
        if holder.pace.is_overdue(now - lease.sent_at - here, pace.mean or 0.0):
            return True
        return len(self._asked.get(lease.job, ())) < max(LEAST, SHARE * len(backlog))
