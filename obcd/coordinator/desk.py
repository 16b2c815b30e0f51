"""The intake desk: scans the inbox, has the clerk accept what settled, and says why the rest waits."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from obcd.clock import duration, monotonic, wall
from obcd.config.settings import Settings
from obcd.coordinator.clerk import Clerk, Done, Failed
from obcd.logs import printable
from obcd.spool.inbox import Drop, Inbox, Key
from obcd.spool.intake import Accepted, Gone, NotYet, Order, Rejected, Repeated
from obcd.spool.job import JobHeader, new_job_id
from obcd.spool.layout import Layout
from obcd.spool.recovery import Claim

logger = logging.getLogger(__name__)

#: Seconds between scans: while something settles, and otherwise (events make it sooner).
SCAN_SOON, SCAN_IDLE = 0.5, 5.0
#: Least pause after a scan, in seconds, and as a multiple of what the scan took: thousands of files that come, are
#: taken or are published in a row may not each cost a look at all of them.
LEAST_PAUSE, PAUSE_BY_COST = 0.1, 4.0
#: Seconds after which something that the clerk could not take is offered again.
HOLD_SECONDS, DISK_SECONDS = 5.0, 10.0
NEVER = float("inf")


class Desk:
    """Main thread only; `now` is monotonic seconds.

    Args:
        accepted: Called with each new job.
        unfinished: Returns the jobs that a repeated drop might be.
    """

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        clerk: Clerk,
        accepted: Callable[[JobHeader], None],
        unfinished: Callable[[], tuple[JobHeader, ...]],
    ) -> None:
        spool = settings.spool
        self._settings = settings
        self._layout = layout
        self._clerk = clerk
        self._accepted = accepted
        self._unfinished = unfinished
        self._inbox = Inbox(layout.inbox, list(settings.profiles), spool.settle_seconds, spool.require_marker)
        self._scan_at = 0.0
        #: Until when no scan is made but for another configuration.
        self._rested_at = 0.0
        self._now = 0.0
        self._again: list[tuple[float, Callable[[], None]]] = []
        #: Drops that the clerk has been asked to accept and has not answered.
        self._asked: set[Key] = set()
        #: Claimed files that cannot be taken up, since their profile is gone.
        self._stranded: list[Claim] = []
        #: What keeps the whole inbox from being read, "" when all is well.
        self.trouble = ""

    @property
    def waiting(self) -> dict[Key, str]:
        """The files that are not taken, and why."""
        stranded = {
            claim.drop.key: f"its profile '{claim.drop.key.profile}' is no longer in the configuration"
            for claim in self._stranded
        }
        return {**stranded, **self._inbox.waiting}

    @property
    def settling(self) -> list[Key]:
        """The files that are on their way."""
        return self._inbox.settling

    @property
    def controls(self) -> tuple[Key, ...]:
        """The control files of the last scan."""
        return self._inbox.controls

    @property
    def coming(self) -> set[Key]:
        """The files that become jobs soon: they settle, or the clerk has them."""
        return {*self._inbox.settling, *self._asked}

    def configure(self, settings: Settings) -> None:
        """Take files with other settings from now on; what the clerk was asked to accept already keeps the former."""
        self._settings = settings
        spool = settings.spool
        self._inbox.configure(list(settings.profiles), spool.settle_seconds, spool.require_marker)
        stranded, self._stranded = self._stranded, []
        for claim in stranded:
            self.take_claim(claim)
        self._rested_at = 0.0
        self.wake_held()

    def wake(self) -> None:
        """Scan at the next turn, or a little later when the last scan was just now."""
        self._scan_at = min(self._scan_at, self._rested_at)

    def wake_held(self) -> None:
        """Look again at drops that waited for another job."""
        self._inbox.wake_held()
        self.wake()

    def next_scan(self) -> float:
        """Return when `turn` wants to be called."""
        return min([self._scan_at, *(due for due, _ in self._again)])

    def turn(self, now: float) -> None:
        """Scan if it is time."""
        self._now = now
        due = [errand for at, errand in self._again if at <= now]
        self._again = [entry for entry in self._again if entry[0] > now]
        for errand in due:
            errand()
        if now < self._scan_at:
            return
        began = monotonic()
        try:
            drops = self._inbox.scan(now)
        except OSError as error:
            trouble = f"the inbox {self._layout.inbox} cannot be read: {error.strerror}"
            if self.trouble != trouble:
                logger.warning("%s; obcd goes on trying", trouble, extra={"action": "inbox_unreadable"})
            self.trouble = trouble
            self._scan_at = now + SCAN_IDLE
            return
        self.trouble = ""
        self._rested_at = now + max(LEAST_PAUSE, PAUSE_BY_COST * (monotonic() - began))
        for drop in drops:
            if drop.key in self._asked:  # a newer file of that name: only when the older is a job can it be its twin
                self._inbox.offer_again(drop.key)
            else:
                self._order(drop)
        self._scan_at = now + (SCAN_SOON if self._inbox.settling else SCAN_IDLE)

    def take_claim(self, claim: Claim) -> None:
        """Have a file accepted that an earlier coordinator had claimed."""
        profile = claim.drop.key.profile
        if profile and profile not in self._settings.profiles:
            extra = {"action": "claim_waits", "job": claim.job, "profile": profile}
            logger.error("claim %s waits: profile '%s' is gone", claim.job, profile, extra=extra)
            self._stranded.append(claim)
            return
        self._ask("accept_claimed", self._make_order(claim.drop, claim.job, reject_torn=True))

    def _order(self, drop: Drop) -> None:
        self._asked.add(drop.key)
        limit = self._settings.spool.incomplete_hold_seconds
        torn_for_long = self._inbox.age(drop.key, self._now) > limit
        self._ask("accept", self._make_order(drop, new_job_id(wall()), reject_torn=torn_for_long))

    def _make_order(self, drop: Drop, job: str, *, reject_torn: bool) -> Order:
        return Order(
            drop=drop,
            job=job,
            settings=self._settings.job_settings(drop.key.profile),
            max_line_bytes=self._settings.spool.max_line_bytes,
            reject_torn=reject_torn,
            answered_since=self._settings.answered_since(drop.key.profile, wall()),
            unfinished=tuple(header for header in self._unfinished() if header.name == drop.key.name),
        )

    def _ask(self, name: str, order: Order) -> None:
        self._clerk.ask(lambda outcome: self._take_outcome(order, outcome), name, order)

    def _take_outcome(self, order: Order, outcome: Done | Failed) -> None:
        key = order.drop.key
        self._asked.discard(key)
        label = printable(f"{key.profile}/{key.name}" if key.profile else key.name)
        self.wake()
        if isinstance(outcome, Failed):
            self._take_failure(order, label, outcome)
            return
        match outcome.value:
            case Accepted(header):
                extra = {"action": "job_accepted", "job": header.id, "profile": key.profile}
                logger.info("%s accepted as job %s: %s", label, header.id, _size(header), extra=extra)
                self._accepted(header)
            case NotYet(why, until_published, until_rejected):
                if until_rejected:
                    limit = duration(self._settings.spool.incomplete_hold_seconds)
                    why = f"{why}; rejected when it has been so for {limit}"
                self._inbox.hold(key, why, NEVER if until_published else self._now + HOLD_SECONDS)
            case Rejected(job, why, _):
                extra = {"action": "drop_rejected", "job": job, "profile": key.profile, "file": label}
                logger.warning("%s rejected: %s", label, why, extra=extra)
            case Repeated(job, earlier, folder):
                extra = {"action": "drop_repeated", "job": job, "profile": key.profile, "file": label}
                logger.info("%s was answered before, as job %s: so says %s", label, earlier, folder, extra=extra)
            case Gone():
                extra = {"action": "drop_gone", "profile": key.profile}
                logger.info("%s was taken away before it was accepted", label, extra=extra)
            case other:
                raise TypeError(type(other).__name__)

    def _take_failure(self, order: Order, label: str, outcome: Failed) -> None:
        key = order.drop.key
        extra = {"action": "accept_failed", "job": order.job, "profile": key.profile, "file": label}
        logger.error("%s cannot be accepted: %s", label, outcome.reason, extra=extra)
        if not os.path.lexists(self._layout.claim(order.job, key.profile) / key.name):
            self._inbox.hold(key, outcome.reason, self._now + DISK_SECONDS)
        elif outcome.is_disk:
            self._again.append((self._now + DISK_SECONDS, lambda: self._ask("accept_claimed", order)))
        else:
            self._clerk.ask(lambda done: self._take_outcome(order, done), "reject_claimed", order, outcome.reason)


def _size(header: JobHeader) -> str:
    """Return e.g. `1 request`, `30 requests, 2 of them bad lines`."""
    bad = header.bad_lines
    lines = f", {bad} of them {'a bad line' if bad == 1 else 'bad lines'}" if bad else ""
    context = f"; {header.context.describe()}" if header.context is not None else ""
    return f"{header.requests} request{'' if header.requests == 1 else 's'}{lines}{context}"
