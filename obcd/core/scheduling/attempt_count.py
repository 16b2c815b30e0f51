"""What faults cost a request: attempts, and pauses before the next one. Pure."""

from __future__ import annotations

from obcd.core.endpoint.faults import Fault, Harm
from obcd.core.endpoint.retry import REQUEST_BASE, REQUEST_LIMIT, pause
from obcd.core.pending.backlog import Backlog
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.poison import RequestKey

#: Attempts that cost nothing (the endpoint's own faults) after which they do cost, so that nothing goes round for ever.
FREE_FAULTS = 50
#: Refusals of a request, on different endpoints where there are several, after which it is not sent again.
REFUSALS = 2


class AttemptCount:
    """The free faults of all requests; a backlog counts its attempts itself."""

    def __init__(self) -> None:
        #: {request: faults that did not count as an attempt}
        self._free: dict[RequestKey, int] = {}
        #: {request: how often an endpoint that serves others refused it}
        self._refusals: dict[RequestKey, int] = {}

    def note(self, backlog: Backlog, lease: Lease, fault: Fault) -> None:
        """Count a fault, as an attempt or as a free one."""
        if fault.harm is Harm.UNFIT:  # such an endpoint is left out, so nothing goes round
            return
        if fault.is_refusal:
            self._refusals[lease.request] = self._refusals.get(lease.request, 0) + 1
        free = self._free.get(lease.request, 0)
        if fault.costs_attempt or free >= FREE_FAULTS:
            backlog.attempts[lease.ordinal] = backlog.attempts.get(lease.ordinal, 0) + 1
        else:
            self._free[lease.request] = free + 1

    def is_refused(self, lease: Lease) -> bool:
        """Return whether a request was refused so often that it is at fault."""
        return self._refusals.get(lease.request, 0) >= REFUSALS

    def back_off(self, backlog: Backlog, lease: Lease, fault: Fault, goes_elsewhere: bool) -> float:
        """Return the pause before the next attempt, in seconds.

        Free faults make the pauses at a busy server grow too; at another endpoint there is no pause.
        """
        counted = backlog.attempts.get(lease.ordinal, 0)
        count = counted if goes_elsewhere else counted + self._free.get(lease.request, 0)
        wait = pause(count, REQUEST_BASE, REQUEST_LIMIT, f"{lease.job}/{lease.ordinal}") if count else 0.0
        return wait if goes_elsewhere else max(wait, fault.retry_after)

    def forget(self, request: RequestKey) -> None:
        """Forget a request that has its result."""
        self._free.pop(request, None)
        self._refusals.pop(request, None)

    def forget_job(self, job: str) -> None:
        """Forget the requests of a job."""
        self._free = {key: count for key, count in self._free.items() if key[0] != job}
        self._refusals = {key: count for key, count in self._refusals.items() if key[0] != job}
