"""What the coordinator shows of itself: the view that status.json is written from, and all who read that file."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from obcd import __version__
from obcd.clock import timestamp, wall
from obcd.config.settings import Settings
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.disk_watch import DiskWatch
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.endpoints.state_messages import describe_shortage
from obcd.coordinator.hosts.host_registry import HostRegistry
from obcd.coordinator.inbox_watch import InboxWatch
from obcd.coordinator.intake.control_files import ControlFiles
from obcd.coordinator.intake.drop_intake import DropIntake
from obcd.coordinator.jobs.forecaster import Forecaster
from obcd.coordinator.jobs.job_lifecycle import Jobs
from obcd.coordinator.jobs.window_keeper import WindowKeeper
from obcd.coordinator.metering.counters import CounterSet
from obcd.coordinator.notices.notifier import Notifier
from obcd.coordinator.view import DaemonState, LiveView, ReloadView, WaitingView, WaitReason
from obcd.core.request.records import plain_model
from obcd.core.scheduling.scheduler import Scheduler
from obcd.hosts.record import CardReading
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Key
from obcd.text import printable

#: The number of reloads that are kept for the view.
RELOADS_REMEMBERED = 10
#: The number of settling files that are named.
MOST_SETTLING = 100


@dataclass(slots=True)
class Presenter:
    """Makes the view from the coordinator's parts, and keeps what only the view needs.

    Attributes:
        reloads: The outcomes of the last reloads.
        reload_trouble: Why the last one failed, "" if it did not.
        root_doubt: Why the root should lie on another mount, "" if it need not.
        cards: The readings of the cards of this machine.
        cards_at: When they were taken in, in monotonic seconds.
    """

    layout: Layout
    scheduler: Scheduler
    jobs: Jobs
    endpoints: Endpoints
    hosts: HostRegistry
    intake: DropIntake
    control_files: ControlFiles
    clerks: tuple[ClerkPair, ...]
    disk_watch: DiskWatch
    inbox_watch: InboxWatch
    window_keeper: WindowKeeper
    forecaster: Forecaster
    notifier: Notifier
    counters: CounterSet
    reloads: deque[ReloadView] = field(default_factory=lambda: deque(maxlen=RELOADS_REMEMBERED))
    reload_trouble: str = ""
    root_doubt: str = ""
    cards: tuple[CardReading, ...] = ()
    cards_at: float = 0.0

    def view(self, now: float, state: DaemonState, settings: Settings, *, takes_reloads: bool) -> LiveView:
        """Return the view of the coordinator; takes some milliseconds with ten thousand jobs.

        Args:
            takes_reloads: Whether the coordinator reads its configuration again at SIGHUP.
        """
        layout, unfinished, updated = self.layout, self.jobs.unfinished(), wall()
        end, eta = self.forecaster.all_end_at, self.jobs.eta_seconds()
        if end is not None and unfinished:
            eta = max(0.0, end - updated)
        return LiveView(
            version=__version__,
            pid=os.getpid(),
            root=str(layout.root),
            inbox=str(layout.inbox),
            outbox=str(layout.outbox),
            per_user=layout.per_user,
            state=state,
            updated=round(updated, 3),
            updated_at=timestamp(updated),
            troubles=tuple(self.troubles()),
            notes=tuple(self._notes()),
            takes_reloads=takes_reloads,
            reloads=tuple(self.reloads),
            eta_seconds=None if eta is None else round(eta, 1),
            jobs=self.jobs.views(now, self.obstacles()),
            further_jobs=self.jobs.further_views(),
            endpoints=self.endpoints.views(now),
            hosts=self.hosts.views,
            pulls=self.endpoints.fetcher.views(),
            settling=tuple(printable(key.name) for key in self.intake.settling[:MOST_SETTLING]),
            waiting=tuple(self._waiting_views()),
            rejected=tuple(self.intake.rejected),
            published=tuple(item.view() for item in self.jobs.published),
            requests_waiting=max(0, self.jobs.requests_left(unfinished) - self.endpoints.in_flight),
            free_bytes=self.disk_watch.free_bytes,
            min_free_bytes=self.disk_watch.min_free_bytes,
            cards=self._aged_cards(now),
            counters=self.counters.view(),
            processes={
                **self.endpoints.pool.pids(),
                **self.hosts.pids,
                **self.notifier.pids,
                **{name: pid for pair in self.clerks for name, pid in pair.pids().items()},
            },
            paces={profile: round(pace, 3) for profile, pace in self.forecaster.paces.items()} or None,
            windows=settings.windows() or None,
            unfinished=len(unfinished),
            requests=sum(header.requests for header in unfinished),
            waits_for_host=self.endpoints.waits_for_host,
            is_short_of_disk=bool(self.disk_watch.trouble),
        )

    def waiting(self) -> dict[Key, str]:
        """Return the files of the inbox that are not accepted or have no effect, and why."""
        return {**self.intake.waiting, **self.control_files.waiting}

    def _waiting_views(self) -> Iterator[WaitingView]:
        controls = self.control_files.waiting
        for key, why in self.waiting().items():
            file = printable(f"{key.profile}/{key.name}" if key.profile else key.name)
            reason = WaitReason.CONTROL if key in controls else self.intake.wait_reason(key)
            yield WaitingView(file=file, why=why, reason=reason)

    def obstacles(self) -> Callable[[str], str]:
        """Return the function that says why no request of a job can be sent at present; "" when one can."""
        of_all = self.disk_watch.trouble or self.endpoints.outage or self.endpoints.window_wait
        stuck = self.scheduler.stuck()

        def obstacle(job: str) -> str:
            missing = stuck.get(job)
            return of_all or ("" if missing is None else describe_shortage(missing, self.endpoints.open_url))

        return obstacle

    def _notes(self) -> list[str]:
        """Return what people should know although nothing needs repair."""
        waiting = self.endpoints.outage if self.endpoints.waits_for_host else ""
        return [text for text in (self.inbox_watch.note, waiting, *self.window_keeper.notes()) if text]

    def troubles(self) -> list[str]:
        """Return the sentences for people on what keeps the coordinator from working as it should."""
        found = [
            self.reload_trouble,
            self.intake.trouble,
            self.disk_watch.trouble,
            "" if self.endpoints.waits_for_host else self.endpoints.outage,
            *self.hosts.troubles,
            *(job.trouble for job in self.jobs.running.values()),
            *self.forecaster.troubles,
            *self.jobs.held(),
            *self.jobs.quarantine.troubles(self.jobs.damaged),
            *self.notifier.troubles,
            self.root_doubt,
        ]
        fetched = {pull.model for pull in self.endpoints.fetcher.views()}
        missing = [item for item in sorted(self.scheduler.missing()) if plain_model(item.model) not in fetched]
        found += [describe_shortage(item, self.endpoints.open_url) for item in missing]
        found += self.endpoints.fetcher.troubles()
        found += sorted(self.scheduler.unserved())
        return [text for text in found if text]

    def _aged_cards(self, now: float) -> tuple[CardReading, ...]:
        since = now - self.cards_at
        return tuple(replace(card, age_seconds=round(card.age_seconds + since, 1)) for card in self.cards)
