"""Intake: scans the inbox, has a clerk accept settled drops, and reports why the others wait."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import deque
from functools import partial
from typing import assert_never

from obcd.clock import monotonic, wall
from obcd.config.settings import Settings
from obcd.coordinator.clerk.calls import Accept, AcceptClaimed, CallFailed, RejectClaimed, is_large_file
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.intake.admission import Admission
from obcd.coordinator.jobs.job_index import JobIndex
from obcd.coordinator.view import RejectedView, WaitReason
from obcd.core.request.keys.ignored_keys import describe_ignored
from obcd.core.user_limits import UserUsage, why_too_large
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Drop, Key
from obcd.spool.inbox.submitters import find_api_user, find_submitter
from obcd.spool.intake.acceptance import Accepted, Gone, NotYet, Rejected, Repeated, Verdict
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.intake.recovery import Claim
from obcd.spool.job.job_folder import JobHeader, new_job_id
from obcd.text import duration, printable

logger = logging.getLogger(__name__)

#: Seconds between scans: while a file is settling, and otherwise (events cause earlier scans).
SCAN_SOON, SCAN_IDLE = 0.5, 5.0
#: Least pause after a scan, in seconds, and as a multiple of the scan's duration: when thousands of files arrive, are
#: accepted or are published in a row, not each of them may cost a scan of all.
LEAST_PAUSE, PAUSE_BY_COST = 0.1, 4.0
#: Most seconds of a tick that the scan of the inbox may take.
LOOK_SECONDS = 0.02
#: The number of rejected files that `obcd status` lists.
REMEMBERED = 20
#: The number of settled files that are put in line in one tick.
ARRIVED_A_TURN = 500
#: The number of drops that are with a clerk at once: the one being accepted and the next ones, so that it never waits.
AT_THE_CLERK = 4
#: The number of ignored files in the inbox from which on a warning is given.
MANY_IGNORED = 10_000
#: Why files wait while no file is accepted.
NO_ROOM = "the disk is almost full: this file is accepted when space is free"
#: Seconds after which a file that the clerk could not accept is offered again.
HOLD_SECONDS, DISK_SECONDS = 5.0, 10.0
NEVER = float("inf")


class DropIntake:
    """Turns drops into jobs. Main thread only; `now` is in monotonic seconds.

    Args:
        job_index: The jobs that a drop might repeat, and that count against their submitters' limits.
    """

    def __init__(self, settings: Settings, layout: Layout, clerks: ClerkPair, job_index: JobIndex) -> None:
        spool = settings.spool
        self._settings = settings
        self._layout = layout
        self._clerks = clerks
        self._job_index = job_index
        #: Jobs that were accepted after the last `take_accepted`.
        self._accepted: list[JobHeader] = []
        self._least_settle = 0.0
        self._inbox = Inbox(
            layout.inbox, list(settings.profiles), spool.settle_seconds, spool.require_marker, settings.accepted()
        )
        self._is_open = True
        self._scan_at = 0.0
        #: No scan is made before this time, except after a change of the configuration.
        self._rested_at = 0.0
        self._now = 0.0  # of the last tick, which dates the outcomes that a clerk sends between two ticks
        #: Claimed files that could not be accepted: (when they are retried, the order)
        self._again: list[tuple[float, AcceptOrder]] = []
        #: Drops that are with the clerk, which has sent no outcome yet.
        self._asked: dict[Key, Drop] = {}
        self._admission = Admission(spool.limits, self._held)
        self._api = _find_api(settings)
        #: {user that markers named: its number}: a lookup may ask another machine
        self._submitters: dict[str, int] = {}
        self._look_seconds = 0.0
        #: Drops that had settled at the last scan and are not in line yet, the oldest first.
        self._arrived: list[Drop] = []
        self._has_logged_ignored = False
        #: Claimed files that cannot become jobs because their profile is gone.
        self._stranded: list[Claim] = []
        #: The files that were rejected last.
        self.rejected: deque[RejectedView] = deque(maxlen=REMEMBERED)
        #: Why the inbox as a whole cannot be read, "" when it can.
        self.trouble = ""

    @property
    def waiting(self) -> dict[Key, str]:
        """The files that are not accepted, and why."""
        stranded = {
            claim.drop.key: f"its profile '{claim.drop.key.profile}' is no longer in the configuration"
            for claim in self._stranded
        }
        obstacle = "" if self._is_open else NO_ROOM
        return {**stranded, **self._inbox.waiting, **self._admission.waiting(obstacle)}

    def wait_reason(self, key: Key) -> WaitReason:
        """Return the kind of the reason why a file in `waiting` is not accepted."""
        if key in self._admission:
            return WaitReason.LIMIT if self._is_open else WaitReason.DISK
        return WaitReason.FILE if key in self._inbox.waiting else WaitReason.PROFILE

    @property
    def settling(self) -> list[Key]:
        """The files that are settling."""
        return self._inbox.settling

    @property
    def controls(self) -> tuple[Key, ...]:
        """The control files of the last scan."""
        return self._inbox.controls

    @property
    def is_at_work(self) -> bool:
        """Return whether a file is, or may be, on its way to a job: settling, in line, with the clerk, or unseen."""
        is_seen = self._rested_at > 0.0  # a scan has come to its end
        in_line = self._arrived or self._admission or self._asked or self._again
        return bool(not is_seen or self._inbox.settling or in_line)

    def is_coming(self, key: Key) -> bool:
        """Return whether a file is about to become a job: it is settling, in line, or with the clerk."""
        is_in_line = key in self._asked or key in self._admission or self._inbox.is_settling(key)
        return is_in_line or any(drop.key == key for drop in self._arrived)

    def configure(self, settings: Settings) -> None:
        """Accept files with new settings from now on; drops that are already with the clerk keep the earlier ones."""
        self._settings = settings
        self._api = _find_api(settings)
        self._admission.limits = settings.spool.limits
        self._configure_inbox()
        stranded, self._stranded = self._stranded, []
        for claim in stranded:
            self.resume_claim(claim)
        self._rested_at = 0.0
        self.wake_held()

    def admit(self, is_open: bool) -> None:
        """Accept files from now on, or leave them in the inbox (see `DiskWatch`)."""
        was_open, self._is_open = self._is_open, is_open
        if is_open and not was_open:
            self.wake_held()

    def settle_at_least(self, seconds: float) -> None:
        """Wait at least this long for files to settle, whatever the configuration says (see `InboxWatch`)."""
        if seconds != self._least_settle:
            self._least_settle = seconds
            self._configure_inbox()

    def _configure_inbox(self) -> None:
        spool = self._settings.spool
        settle = max(spool.settle_seconds, self._least_settle)
        self._inbox.configure(list(self._settings.profiles), settle, spool.require_marker, self._settings.accepted())

    def wake(self) -> None:
        """Scan at the next tick, or a little later if the last scan has only just ended."""
        self._scan_at = min(self._scan_at, self._rested_at)

    def wake_held(self) -> None:
        """Offer drops again that waited for another job."""
        self._inbox.wake_held()
        self.wake()

    def next_scan(self) -> float:
        """Return when `tick` is to be called; may be in the past."""
        return 0.0 if self._arrived else min([self._scan_at, *(due for due, _ in self._again)])

    def take_accepted(self) -> list[JobHeader]:
        """Return the jobs that were accepted after the last call."""
        accepted, self._accepted = self._accepted, []
        return accepted

    def tick(self, now: float) -> None:
        """Scan if a scan is due."""
        self._now = now
        if self._again:
            due = [order for at, order in self._again if at <= now]
            self._again = [entry for entry in self._again if entry[0] > now]
            for order in due:
                self._take_up(order)
        if not self._arrived and now >= self._scan_at:
            self._look(now)
        if self._arrived:
            self._on_arrived()
        if self._admission:
            self._hand_out()

    def _look(self, now: float) -> None:
        """Continue the scan of the inbox; at its end, take over the drops that have settled."""
        began = monotonic()  # not `now`: the duration of the scan decides how long the pause after it is
        try:
            drops = self._inbox.look(now, LOOK_SECONDS)
        except OSError as error:
            trouble = f"the inbox {self._layout.inbox} cannot be read: {error.strerror}"
            if self.trouble != trouble:
                logger.warning("%s; obcd keeps trying", trouble, extra={"action": "inbox_unreadable"})
            self.trouble = trouble
            self._scan_at = now + SCAN_IDLE
            return
        self._look_seconds += monotonic() - began
        if drops is None:
            return
        self.trouble = self._find_crowd()
        self._rested_at = now + max(LEAST_PAUSE, PAUSE_BY_COST * self._look_seconds)
        self._look_seconds = 0.0
        self._admission.keep_only(self._inbox.given)
        self._arrived = drops
        is_soon = self._inbox.settling and self._is_open and not self._least_settle
        self._scan_at = now + (SCAN_SOON if is_soon else SCAN_IDLE)

    def _on_arrived(self) -> None:
        """Put settled drops in line, a limited number in each tick."""
        drops, self._arrived = self._arrived[:ARRIVED_A_TURN], self._arrived[ARRIVED_A_TURN:]
        for drop in drops:
            why = why_too_large(drop.identity.size, self._settings.spool.limits)
            if why:
                self._inbox.hold(drop, why, NEVER)
            elif drop.key in self._asked:  # a newer file of that name, which may repeat the older once that is a job
                self._inbox.offer_again(drop)
            else:
                self._admission.offer(drop, self._submitter(drop))

    def _hand_out(self) -> None:
        """Give each clerk the next drops, up to the number that may be with it."""
        for is_large in (False, True):
            asked = sum(is_large_file(drop.identity.size, drop.key.name) == is_large for drop in self._asked.values())
            for _ in range(asked, AT_THE_CLERK):
                drop = self._admission.take_next(is_large=is_large) if self._is_open else None
                if drop is None:
                    break
                self._accept(drop)

    def _held(self, uid: int) -> UserUsage:
        """Return a submitter's usage."""
        asked = [drop.identity for drop in self._asked.values() if self._submitter(drop) == uid]
        return self._job_index.held(uid).plus(UserUsage(len(asked), sum(identity.size for identity in asked)))

    def _submitter(self, drop: Drop) -> int:
        """Return in whose line a drop waits and whose limits count; whose job it becomes the clerk decides."""
        owner, name = drop.identity.uid, drop.marker.submitter if drop.marker is not None else ""
        if not name or owner != self._api:
            return owner
        if name not in self._submitters:
            with contextlib.suppress(ValueError):  # the clerk rejects it
                self._submitters[name] = find_submitter(owner, drop.marker, self._api).uid
        return self._submitters.get(name, owner)

    def _find_crowd(self) -> str:
        """Return the warning about very many ignored files, which cost time at each scan; "" for none."""
        count = self._inbox.ignored
        if count < MANY_IGNORED:
            self._has_logged_ignored = False
            return ""
        text = f"the inbox {self._layout.inbox} holds {count} hidden or temporary files, which make each scan slower"
        if not self._has_logged_ignored:
            self._has_logged_ignored = True
            logger.warning("%s: remove those that are not needed", text, extra={"action": "inbox_crowded"})
        return f"{text}: remove those that are not needed"

    def resume_claim(self, claim: Claim) -> None:
        """Have a clerk accept a file that an earlier coordinator had claimed."""
        profile = claim.drop.key.profile
        if profile and profile not in self._settings.profiles:
            extra = {"action": "claim_waits", "job": claim.job, "profile": profile}
            logger.error("claim %s waits: profile '%s' is not configured", claim.job, profile, extra=extra)
            self._stranded.append(claim)
            return
        self._take_up(self._make_order(claim.drop, claim.job, reject_torn=True))

    def _take_up(self, order: AcceptOrder) -> None:
        """Have a clerk accept a claimed file, as soon as files are accepted."""
        if self._is_open:
            self._clerks.submit(AcceptClaimed(order), partial(self._on_verdict, order))
        else:
            self._again.append((self._now + DISK_SECONDS, order))

    def _accept(self, drop: Drop) -> None:
        self._asked[drop.key] = drop
        limit = self._settings.spool.incomplete_hold_seconds
        torn_for_long = self._inbox.age(drop.key, self._now) > limit
        order = self._make_order(drop, new_job_id(wall()), reject_torn=torn_for_long)
        self._clerks.submit(Accept(order), partial(self._on_verdict, order))

    def _make_order(self, drop: Drop, job: str, *, reject_torn: bool) -> AcceptOrder:
        return AcceptOrder(
            drop=drop,
            job=job,
            settings=self._settings.job_settings(drop.key.profile),
            max_line_bytes=self._settings.spool.max_line_bytes,
            max_expanded_bytes=self._settings.spool.max_expanded_bytes,
            reject_torn=reject_torn,
            min_free_bytes=self._settings.spool.min_free_bytes,
            max_file_bytes=self._settings.spool.max_file_bytes,
            answered_since=self._settings.answered_since(drop.key.profile, wall()),
            unfinished=self._job_index.named(drop.key.name),
            accepts=self._settings.accepts(drop.key.profile),
            api=self._api,
        )

    def _on_verdict(self, order: AcceptOrder, outcome: Verdict | CallFailed) -> None:
        key = order.drop.key
        self._asked.pop(key, None)
        label = printable(f"{key.profile}/{key.name}" if key.profile else key.name)
        self.wake()
        match outcome:
            case CallFailed():
                self._on_accept_failed(order, label, outcome)
            case Accepted(header):
                extra = {"action": "job_accepted", "job": header.id, "profile": key.profile}
                logger.info("%s accepted as job %s: %s", label, header.id, _size(header), extra=extra)
                for sentence in describe_ignored(header.unobeyed):
                    logger.info("%s: %s", label, sentence, extra=extra | {"action": "key_echoed"})
                self._accepted.append(header)
            case NotYet(why, until_published, until_rejected, until_reloaded):
                if until_rejected:
                    limit = duration(self._settings.spool.incomplete_hold_seconds)
                    why = f"{why}; it is rejected if this lasts for {limit}"
                until = NEVER if until_published or until_reloaded else self._now + HOLD_SECONDS
                self._inbox.hold(order.drop, why, until)
            case Rejected(job, why, folder):
                self.rejected.append(RejectedView(file=label, folder=str(folder), why=why))
                extra = {"action": "drop_rejected", "job": job, "profile": key.profile, "file": label}
                logger.warning("%s rejected: %s", label, why, extra=extra)
            case Repeated(job, earlier, folder):
                extra = {"action": "drop_repeated", "job": job, "profile": key.profile, "file": label}
                logger.info("%s was answered before, as job %s: see %s", label, earlier, folder, extra=extra)
            case Gone():
                extra = {"action": "drop_gone", "profile": key.profile}
                logger.info("%s was removed before it was accepted", label, extra=extra)
            case _:
                assert_never(outcome)

    def _on_accept_failed(self, order: AcceptOrder, label: str, outcome: CallFailed) -> None:
        key = order.drop.key
        extra = {"action": "accept_failed", "job": order.job, "profile": key.profile, "file": label}
        logger.error("%s cannot be accepted: %s", label, outcome.reason, extra=extra)
        if not os.path.lexists(self._layout.claim(order.job, key.profile) / key.name):
            self._inbox.hold(order.drop, outcome.reason, self._now + DISK_SECONDS)
        elif outcome.is_disk:
            self._again.append((self._now + DISK_SECONDS, order))
        else:
            self._clerks.submit(RejectClaimed(order, outcome.reason), partial(self._on_verdict, order))


def _find_api(settings: Settings) -> int | None:
    """Return the API's user, who may drop for others; None while there is no API."""
    return find_api_user(settings.api.user) if settings.api.enabled else None


def _size(header: JobHeader) -> str:
    """Return e.g. `1 request`, `30 requests, 2 of them bad lines`."""
    bad = header.bad_lines
    lines = f", {bad} of them {'a bad line' if bad == 1 else 'bad lines'}" if bad else ""
    context = f"; {header.context.describe()}" if header.context is not None else ""
    return f"{header.requests} request{'' if header.requests == 1 else 's'}{lines}{context}"
