"""The coordinator: one main loop, `tick(now)`, which owns inbox, jobs, ledgers, scheduler and pool.

    inbox ─► intake ─► clerk ─► job ─► scheduler ─lease─► pool ─► worker ─► Ollama
                                        ▲                                    │ result
    outbox ◄─ clerk ◄─ complete job ◄─ recorder (ledger, synced) ◄───────────┘

No tick may take long: the clerk does long work, and the recorder waits for the disk.
"""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager
from pathlib import Path

from obcd.clock import monotonic, wall
from obcd.config.settings import Settings
from obcd.coordinator.clerk.calls import CallFailed, Recover
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.disk_watch import DiskWatch
from obcd.coordinator.endpoints.changes import compare, describe
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.endpoints.local_cards import default_folders, read_cards
from obcd.coordinator.history.minutes import HistoryWriter
from obcd.coordinator.hosts.host_registry import HostRegistry
from obcd.coordinator.inbox_watch import InboxWatch
from obcd.coordinator.intake.control_files import ControlFiles
from obcd.coordinator.intake.drop_intake import DropIntake
from obcd.coordinator.jobs.forecaster import Forecaster
from obcd.coordinator.jobs.job_lifecycle import Jobs
from obcd.coordinator.jobs.outcomes import Outcomes
from obcd.coordinator.jobs.previews import Previews
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.recorder import Recorder
from obcd.coordinator.jobs.retention_sweeps import Sweeper
from obcd.coordinator.jobs.window_keeper import WindowKeeper
from obcd.coordinator.loop_waits import TickPacing, Waker
from obcd.coordinator.metering import counters_file
from obcd.coordinator.metering.counters import CounterSet
from obcd.coordinator.metering.counters_file import CountersFile
from obcd.coordinator.notices.alarms import Alarms
from obcd.coordinator.notices.notifier import Notifier
from obcd.coordinator.observer import Observer
from obcd.coordinator.showing.presenter import Presenter
from obcd.coordinator.spool_setup import open_profiles, open_spool, open_to_api
from obcd.coordinator.view import DaemonState, LiveView, ReloadView
from obcd.core.scheduling.scheduler import Scheduler
from obcd.errors import InputError
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.folders.mounts import LOCAL_ROOT, doubt_root, read_mount
from obcd.spool.inbox.submitters import find_api_user
from obcd.spool.intake.recovery import Recovery
from obcd.spool.job.job_folder import JobHeader
from obcd.text import plural

logger = logging.getLogger(__name__)

#: Seconds between checks of overdue leases and of the watch.
HOUSEKEEPING_SECONDS = 5.0
#: Least seconds between two scans that file events cause.
NEWS_SECONDS = 0.1
#: How long `obcd batch` waits for a missing model: its user watches, and has read of it at the start.
IMPATIENT = (0.0, 10.0)


class Coordinator:
    """Owns all parts and passes events between them.

    One thread calls `start`, then `wait` and `tick` in turn, then `stop`.

    Args:
        settings: The configuration.
        layout: The folders; `start` locks them.
        observer: Notified of results and publications.
        takes_drops: Whether the inbox is scanned (`obcd batch` has none).
        only: When not empty, the jobs to run; others are left as they are.
        lock: The spool's lock, if the caller already holds it.
    """

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        observer: Observer | None = None,
        *,
        takes_drops: bool = True,
        only: frozenset[str] = frozenset(),
        lock: SpoolLock | None = None,
    ) -> None:
        self.settings = settings
        self.layout = layout
        self._observer = observer or Observer()
        self._takes_drops = takes_drops
        self._only = only
        self._lock = lock or SpoolLock(layout)
        self._waker, self._pacing = Waker(), TickPacing()
        #: The descriptors that could be read at the end of the last `wait`.
        self._readable: frozenset[int] = frozenset()
        self.scheduler = Scheduler() if takes_drops else Scheduler(IMPATIENT)
        self.endpoints = Endpoints(settings, layout.jobs, self.scheduler, monotonic())
        self._hosts = HostRegistry(settings)
        self.is_draining = False
        self.is_recovered = False
        self._intake_clerks, self._outbox_clerks = ClerkPair("intake", layout), ClerkPair("outbox", layout)
        self._clerks = (self._intake_clerks, self._outbox_clerks)
        self.notifier, self._alarms = Notifier(layout, is_used=takes_drops), Alarms()
        self._progress_folders = ProgressFolders(layout)
        self._sweeper = Sweeper(settings, layout)
        self._inbox_watch = InboxWatch(self._watched_folders(), self._waker)
        self._disk_watch = DiskWatch(layout.root, settings.spool.min_free_bytes)
        self._recorder = Recorder(layout.jobs, self._waker, self._disk_watch)
        self.counters = CounterSet(wall())
        self.history = HistoryWriter(layout.root if takes_drops else None, self._recorder.run_later)
        kept = layout.root / counters_file.NAME if takes_drops else None
        self.counters_file = CountersFile(kept, self.counters)
        self.jobs = Jobs(
            layout,
            self.endpoints,
            self._recorder,
            self._clerks,
            self._progress_folders,
            self.counters_file,
            counts=takes_drops,
        )
        self._window_keeper = WindowKeeper(self.jobs, self.endpoints)
        self._forecaster = Forecaster(self.jobs, self.endpoints)
        #: When the next window opens or closes.
        self._window_at = math.inf
        self._intake = DropIntake(settings, layout, self._intake_clerks, self.jobs.job_index)
        self._previews = Previews(layout, self.jobs.running, self._progress_folders)
        self._control_files = ControlFiles(layout, self.jobs, self._outbox_clerks, self._previews.show)
        self._outcomes = Outcomes(
            folder=layout.jobs,
            scheduler=self.scheduler,
            endpoints=self.endpoints,
            jobs=self.jobs,
            recorder=self._recorder,
            pacing=self._pacing,
            counters=self.counters,
            history=self.history,
            observer=self._observer,
        )
        self.presenter = Presenter(
            layout=layout,
            scheduler=self.scheduler,
            jobs=self.jobs,
            endpoints=self.endpoints,
            hosts=self._hosts,
            intake=self._intake,
            control_files=self._control_files,
            clerks=self._clerks,
            disk_watch=self._disk_watch,
            inbox_watch=self._inbox_watch,
            window_keeper=self._window_keeper,
            forecaster=self._forecaster,
            notifier=self.notifier,
            counters=self.counters,
        )
        self._housekeeping_at = 0.0
        #: When file events may cause the next scan of the inbox.
        self._news_at = 0.0

    # --- start and stop ------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Lock the spool and start recovery.

        Raises:
            AlreadyRunningError: If another coordinator has locked it.
            InputError: If the folders cannot be made, or do not protect users from each other.
        """
        open_spool(self.layout, self.settings.profiles, self._lock, takes_drops=self._takes_drops)
        if self._takes_drops:  # otherwise the outbox is the user's own folder and never has a status folder
            self._progress_folders.clear()
            self.notifier.configure(self.settings)
        self._open_to_api()
        self.counters_file.resume()
        mount = read_mount(self.layout.root)
        if doubt := doubt_root(self.layout.root, mount):
            logger.warning("%s; use %s", doubt, LOCAL_ROOT, extra={"action": "root_doubtful"})
            if self._takes_drops and mount is not None and mount.is_network:
                self.presenter.root_doubt = f"{doubt}; use {LOCAL_ROOT}"
        self._disk_watch.start()
        self._look_at_inbox()
        self.endpoints.pool.start_missing(now)
        self._intake_clerks.submit(Recover(), self._on_recovered)

    def apply(self, settings: Settings, now: float) -> str:
        """Apply a new configuration of the same folders while jobs run.

        Accepted jobs keep their settings: model, options, limits. Everything else takes effect now.

        Returns:
            What changed, in one line.

        Raises:
            InputError: If a profile's folder cannot be made; the old configuration stays in force then.
        """
        change = compare(self.settings, settings, self.endpoints.leaving)
        if self._takes_drops:
            open_profiles(self.layout, change.profiles_came)
            self.notifier.configure(settings)
        old, self.settings = self.settings, settings
        if settings.cluster.folder != old.cluster.folder:
            self.endpoints.drain_hosted(now)
        self._hosts.configure(settings)
        self.endpoints.apply(change, settings, now)
        self._intake.configure(settings)
        self._open_to_api()
        self._disk_watch.configure(settings.spool.min_free_bytes)
        self._sweeper.configure(settings)
        self._inbox_watch.look_at(self._watched_folders())
        self._housekeeping_at = now
        in_flight = sum(
            self.scheduler.endpoint(name).in_flight for name in self.endpoints.leaving.intersection(change.left)
        )
        return describe(change, in_flight, len(self.unfinished()))

    def _open_to_api(self) -> None:
        """Let the API's user in, if there is an API and it is another user's."""
        wanted = self.settings.api
        uid = find_api_user(wanted.user) if wanted.enabled and self._takes_drops else None
        if uid is None or wanted.profile not in ("", *self.settings.profiles):
            return
        for sentence in open_to_api(self.layout, uid, wanted.profile):
            logger.warning("%s", sentence, extra={"action": "api_shut_out"})

    def _watched_folders(self) -> list[Path]:
        return [self.layout.inbox, *(self.layout.inbox / name for name in self.settings.profiles)]

    def drain(self) -> None:
        """Send no new requests; requests in flight may finish."""
        self.is_draining = True
        self.jobs.quarantine.clear_all()

    def stop(self) -> None:
        """End all child processes and record the results received; requests in flight are sent again next time."""
        self.endpoints.pool.stop()
        self._hosts.stop()
        for clerks in self._clerks:
            clerks.stop()
        self._sweeper.stop()
        self._previews.stop()
        self._inbox_watch.stop()
        self._recorder.stop(5.0)
        self._disk_watch.stop()
        for job in list(self.jobs.running):
            self._progress_folders.end_progress(job)
        self._progress_folders.finish(5.0)
        self.notifier.stop()
        self.counters_file.keep()
        self._lock.release()

    @property
    def unrecorded(self) -> int:
        """The number of results that are not on disk yet."""
        return self._recorder.pending

    @property
    def in_flight(self) -> int:
        """The number of requests at the endpoints now."""
        return self.endpoints.in_flight

    def cancel_in_flight(self) -> None:
        """Cancel the requests in flight, so that no server computes a result in vain."""
        self.endpoints.cancel_in_flight()

    def clear_begun(self) -> None:
        """Record that no job has crashed this coordinator: it ends in order."""
        self.jobs.quarantine.clear_all()

    def record_reload(self, reload: ReloadView, trouble: str) -> None:
        """Record the outcome of a reload, and the trouble with the configuration now, "" for none."""
        self.presenter.reloads.append(reload)
        if not self.is_draining:  # otherwise it is no trouble: the next start reads the configuration
            self.presenter.reload_trouble = trouble
        self.jobs.revision += 1

    # --- what is shown -------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """A number that grows when a job or an endpoint comes, goes or changes: the last view is stale then."""
        return self.jobs.revision + self.endpoints.revision

    def is_damaged(self, job: str) -> bool:
        """Return whether the folder of a job cannot be read."""
        return job in self.jobs.damaged

    def view(self, now: float, *, takes_reloads: bool = False) -> LiveView:
        """Return the view of the coordinator; see `Presenter.view`."""
        return self.presenter.view(now, self._state, self.settings, takes_reloads=takes_reloads)

    @property
    def _state(self) -> DaemonState:
        if self.is_draining:
            return DaemonState.DRAINING
        return DaemonState.READY if self.is_recovered else DaemonState.STARTING

    # --- the loop ------------------------------------------------------------------------------------------------

    def woken_by_signals(self) -> AbstractContextManager[None]:
        """Let every signal that is caught inside the block end the present `wait`."""
        return self._waker.woken_by_signals()

    def wait(self, seconds: float) -> None:
        """Sleep until something happens, at most this long."""
        clerks = (*self._intake_clerks.filenos(), *self._outbox_clerks.filenos())
        children = (*clerks, *self._hosts.filenos(), *self._previews.filenos(), *self.notifier.filenos())
        self._pacing.wait()
        self._readable = self._waker.sleep({*self.endpoints.pool.channels, *children}, seconds)

    def tick(self, now: float) -> float:
        """Do everything that can be done now, without waiting.

        Returns:
            Seconds until the next tick is due, unless something happens before.
        """
        self._pacing.begin(now)
        self._watch_disk(now)
        self._receive(now)
        at = wall()
        self._window_at = self._window_keeper.tick(now, at)
        self._forecaster.tick(now, at, self.settings.spool.active_jobs)
        if self._is_accepting:
            self._accept_drops(now)
            self._obey_control_files(now)
        if self._takes_drops:
            self._show_progress(now)
        self._keep_house(now)
        if self._is_open:
            self._dispatch(now)
        if self._recorder.pending and not self.endpoints.in_flight:
            self._recorder.hurry()
        return self._until_next(now)

    @property
    def _is_open(self) -> bool:
        """Whether new work is started."""
        return self.is_recovered and not self.is_draining

    @property
    def _is_accepting(self) -> bool:
        """Whether the inbox is scanned."""
        return self._takes_drops and self._is_open

    def _watch_disk(self, now: float) -> None:
        """Decide whether there is free space to work."""
        self._disk_watch.tick(now, self.jobs.lack_of_room)
        self._intake.admit(not self._disk_watch.trouble)

    def _receive(self, now: float) -> None:
        """Process what workers, clerks and the recorder have done since the last tick."""
        self.endpoints.pool.start_missing(now)
        self._look_at_hosts(now)
        self._outcomes.record(self.endpoints.receive(now, self._readable), now)
        for clerks in self._clerks:
            clerks.tick(now, self._readable)
        for header in self._intake.take_accepted():
            self.jobs.take(header)
        self.notifier.tick(now, self._readable)
        self._outcomes.count_recorded(now)
        for shown in self.jobs.tick(now):
            self._intake.wake_held()
            self._observer.on_published(shown.job, shown.folder)
            if shown.is_trial:
                self._sweeper.on_trial(now)

    def _look_at_hosts(self, now: float) -> None:
        """Take the endpoints in that hosts have registered, and let those go whose hosts are gone."""
        offered = self._hosts.tick(self.endpoints, now, self._readable)
        if offered is not None:
            self._outcomes.record(self.endpoints.offer(offered, now), now)

    def _accept_drops(self, now: float) -> None:
        """Scan the inbox if a scan is due, and have clerks accept settled drops."""
        if self._inbox_watch.has_news and now >= self._news_at:
            self._inbox_watch.take_news()
            self._news_at = now + NEWS_SECONDS
            self._intake.wake()
        self._intake.tick(now)

    def _obey_control_files(self, now: float) -> None:
        """Pause and cancel jobs and set their priorities, as control files in the inbox say."""
        self._control_files.tick(self._intake.controls, self._intake.is_coming, now)

    def _show_progress(self, now: float) -> None:
        """Show the progress of jobs, and why files wait, in the outbox."""
        running = self.jobs.running.values()
        self._progress_folders.show(running, self.presenter.waiting, now, self.presenter.obstacles)
        self._previews.tick(now, self._readable, has_room=not self._disk_watch.trouble)

    def _keep_house(self, now: float) -> None:
        """Probe endpoints; every HOUSEKEEPING_SECONDS, do the steps that are not needed in each tick."""
        self.endpoints.probe(now)
        self.endpoints.look_around(now)
        if now < self._housekeeping_at:
            return
        self._housekeeping_at = now + HOUSEKEEPING_SECONDS
        self._look_at_inbox()
        if self._takes_drops:
            self._sweeper.tick(now)
            self.presenter.cards, self.presenter.cards_at = read_cards(default_folders(self.layout.runtime)), now
        self.endpoints.fetch(self.settings, now)
        if self._outcomes.fail_unservable(now):
            self._housekeeping_at = now
        self._outcomes.record(self.endpoints.replace_frozen(now), now)
        self.jobs.give_up_taken_away()
        for clerks in self._clerks:
            clerks.replace_stopped()
        self._previews.replace_stopped()
        self._raise_alarms(now)
        if self.jobs.lack_of_room and not self.endpoints.in_flight and not self._recorder.pending:
            self._disk_watch.throw_off()  # no result needs the ballast any more
        self.jobs.publish_again()

    def _raise_alarms(self, now: float) -> None:
        """Have notifications sent of what lasts: endpoints that do not serve, a full disk, jobs that cannot be run."""
        self.notifier.replace_stopped(now)
        limit = 60.0 * self.settings.notify.endpoint_minutes
        lost = {**self.endpoints.lost(), **self._hosts.lost()}
        for event in self._alarms.look(lost, limit, self._disk_watch.trouble, now, wall()):
            self.notifier.raise_event(event)
        for event in self._forecaster.take_events():
            self.notifier.raise_event(event)
        while self.jobs.quarantine.events:
            self.notifier.raise_event(self.jobs.quarantine.events.pop())

    def _dispatch(self, now: float) -> None:
        """Start jobs and fill free slots; a result that cannot be recorded should not be computed."""
        if not self._disk_watch.trouble:
            self.jobs.activate(self.settings.spool.active_jobs, now)
            self.endpoints.dispatch(now)

    def _until_next(self, now: float) -> float:
        wanted = [now + 1.0, max(now, self.endpoints.next_probe), max(now, self._window_at)]
        if self._is_accepting:
            wanted.append(max(now, self._intake.next_scan()))
            if self._inbox_watch.has_news:
                wanted.append(max(now, self._news_at))
        coming = (
            self.endpoints.pool.next_restart(),
            self.scheduler.next_due(now),
            self._hosts.next_due(),
            self._previews.next_due(),
        )
        wanted += [max(now, at) for at in coming if at is not None]
        return min(wanted) - now

    # --- jobs ----------------------------------------------------------------------------------------------------

    def _on_recovered(self, recovery: Recovery | CallFailed) -> None:
        if isinstance(recovery, CallFailed):
            raise InputError(f"cannot recover the spool at {self.layout.root}: {recovery.reason}")
        wanted = [header for header in recovery.jobs if not self._only or header.id in self._only]
        if gone := self._only.difference(recovery.unpublished, (header.id for header in wanted)):
            raise InputError(f"the job folder {self.layout.jobs / min(gone)} is gone: run the same command again")
        left = (*recovery.jobs, *recovery.quarantined)
        self.counters_file.open({*(header.id for header in left), *recovery.unpublished, *recovery.damaged})
        self.jobs.take_over(recovery, wanted)
        for job in recovery.unpublished:
            if not self._only or job in self._only:
                self.jobs.publish_left(job)
        if self._takes_drops:
            for claim in recovery.claims:
                self._intake.resume_claim(claim)
        if wanted:
            jobs = plural(len(wanted), "unfinished job")
            logger.info("continuing with %s", jobs, extra={"action": "recovered"})
        self.is_recovered = True

    def unfinished(self) -> tuple[JobHeader, ...]:
        """Return the jobs that are accepted and not published, except those that are set aside."""
        return self.jobs.unfinished()

    @property
    def is_idle(self) -> bool:
        """Return whether no work is left (except to wait for drops)."""
        return self.is_recovered and self.jobs.is_idle and not any(clerks.pending for clerks in self._clerks)

    @property
    def is_at_rest(self) -> bool:
        """Return whether only a person can give it work: no file is on its way, and every job left is paused."""
        are_clerks_at_work = any(clerks.pending for clerks in self._clerks)
        is_waiting = not self.is_recovered or self._intake.is_at_work or are_clerks_at_work
        return not is_waiting and all(self.jobs.is_paused(header.id) for header in self.unfinished())

    # --- housekeeping --------------------------------------------------------------------------------------------

    def _look_at_inbox(self) -> None:
        if self._takes_drops:
            self._inbox_watch.ensure()
            self._intake.settle_at_least(self._inbox_watch.least_settle_seconds)
