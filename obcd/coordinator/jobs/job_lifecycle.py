"""All jobs from acceptance to publication: which are active, what controls them, when they are complete.

accepted ─activate─► loading (clerk) ─► running ─► complete ─publish (clerk)─► published
                                          │  ▲          ▲
                                          ▼  │          │ cancelled: the clerk fails the rest
                                         paused ────────┘
"""

from __future__ import annotations

import logging
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from obcd.coordinator.clerk.calls import CallFailed, Hold, Publish, PublishLeft
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.jobs.job_index import JobIndex
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.quarantine import Quarantine
from obcd.coordinator.jobs.recorder import Recorder
from obcd.coordinator.jobs.running_job import RunningJob, idle_view, time_to_go
from obcd.coordinator.metering.counters_file import CountersFile
from obcd.coordinator.observer import Published
from obcd.coordinator.view import FurtherJobView, JobState, JobView
from obcd.core.endpoint.rates import Rate
from obcd.core.forecasting.deadline_watch import DeadlineWatch
from obcd.core.pending.backlog import Backlog
from obcd.core.pending.fair_share import FOREMOST, MOST_PRIORITY, Candidate, Rank, choose_next
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import JobControls
from obcd.spool.intake.recovery import LoadedJob, Recovery
from obcd.spool.job.job_folder import JobHeader
from obcd.text import duration
from obcd.users import user_name

logger = logging.getLogger(__name__)

#: The number of published jobs that the status keeps, and of jobs in line that it shows in full.
REMEMBERED, MOST_REPORTED = 20, 500
#: The controls of a job that has none.
NONE = JobControls()
#: Those of a trial: its submitter waits for it.
FRONT = JobControls(rank=Rank(among_own=FOREMOST))
#: What becomes of results that cannot be published, and who says why.
AGAIN = "obcd tries it again by itself; obcd check says more"
AGAIN_AT_START = "obcd tries it again when the coordinator starts; obcd check says more"
#: Cancelled jobs wait for no other job.
PASSING_THROUGH = Rank(MOST_PRIORITY + 1)


@dataclass(frozen=True, slots=True)
class FolderShown:
    """A job's folder is in the outbox."""

    job: str
    folder: Path
    is_trial: bool = False


class Jobs:
    """All unpublished jobs. Main thread only; `now` is in monotonic seconds.

    Args:
        clerks: The clerks for loading, and those for publishing.
        counts: Whether the starts of each job are counted (see `crash_count`), and whether a job may be held; not in
            `obcd batch`, where nobody could resume it.
    """

    def __init__(
        self,
        layout: Layout,
        endpoints: Endpoints,
        recorder: Recorder,
        clerks: tuple[ClerkPair, ClerkPair],
        progress_folders: ProgressFolders,
        counters_file: CountersFile,
        *,
        counts: bool = True,
    ) -> None:
        self._layout = layout
        self._counters_file, self._counters = counters_file, counters_file.counters
        self._endpoints = endpoints
        self._scheduler = endpoints.scheduler
        self._recorder = recorder
        self._outbox_clerks = clerks[1]
        self._progress_folders = progress_folders
        self._can_hold = counts
        self.running: dict[str, RunningJob] = {}
        #: {job that waits to become active: its header}, the oldest first
        self.accepted: dict[str, JobHeader] = {}
        #: {kind that `choose_next` treats alike: its waiting jobs, oldest first}: thousands wait, of few kinds
        self._lines: dict[Candidate, deque[str]] = {}
        #: {job that waits: its last view}, shown again if unchanged: ten thousand new views take time
        self._waiting_views: dict[str, JobView] = {}
        self._further_views: dict[str, FurtherJobView] = {}
        self.published: deque[Published] = deque(maxlen=REMEMBERED)
        self.damaged: tuple[str, ...] = ()
        #: Grows when a job comes, goes or changes: a status made at another number is stale.
        self.revision = 0
        #: The index of all unpublished jobs.
        self.job_index = JobIndex()
        self._loading: dict[str, JobHeader] = {}
        #: The jobs that were read after the last `tick`.
        self._loaded: list[tuple[JobHeader, LoadedJob | CallFailed | None]] = []
        #: The folders that were published after the last `tick`.
        self._shown: list[FolderShown] = []
        #: Complete jobs that are with the clerk for publication.
        self._publishing: set[str] = set()
        #: {unfinished job: its controls}; jobs without controls are not in it
        self._controls: dict[str, JobControls] = {}
        self._paused: frozenset[str] = frozenset()
        #: {unfinished job that has windows: its header}
        self.windowed: dict[str, JobHeader] = {}
        #: {job that waits for its window: the sentence about it}
        self.window_waits: Mapping[str, str] = {}
        #: {job whose deadline is in danger: its raised rank}
        self._raised: Mapping[str, Rank] = {}
        #: {unfinished job with a deadline: what is foreseen for it}
        self.foreseen: Mapping[str, DeadlineWatch] = {}
        #: The number of jobs that became active so far.
        self.starts = 0
        self.quarantine = Quarantine(layout.jobs, clerks[0], progress_folders, counts=counts)

    # --- what there is -------------------------------------------------------------------------------------------

    def unfinished(self) -> tuple[JobHeader, ...]:
        """Return the jobs that are accepted and not published, except those that are set aside."""
        return (
            *self.accepted.values(),
            *self.quarantine.later,
            *self._loading.values(),
            *(job.header for job in self.running.values()),
        )

    def addressable(self) -> tuple[JobHeader, ...]:
        """Return all unpublished jobs: those that a control file can address or a drop can repeat."""
        return (*self.unfinished(), *self.quarantine.kept.values())

    @property
    def is_idle(self) -> bool:
        """Return whether no job is left except those that are set aside."""
        return not self.unfinished()

    def controls(self, job: str) -> JobControls:
        """Return the controls of a job."""
        return self._controls.get(job, NONE)

    def is_paused(self, job: str) -> bool:
        """Return whether a job is paused, by its user or by obcd itself."""
        return job in self._paused or bool(self.controls(job).held)

    def held(self) -> list[str]:
        """Return why obcd itself paused jobs, for people."""
        return [one.held for one in self._controls.values() if one.held and one.canceller is None]

    def state(self, job: str) -> JobState:
        """Return the state of an unfinished job."""
        running = self.running.get(job)
        if running is not None:
            return running.state
        state = self._idle_state(job)
        return JobState.QUARANTINED if state is not JobState.CANCELLED and job in self.quarantine.kept else state

    def _idle_state(self, job: str) -> JobState:
        """Return the state of a job that is neither running nor set aside."""
        controls = self._controls.get(job)
        if controls is not None and controls.canceller is not None:
            return JobState.CANCELLED
        return JobState.PAUSED if self.is_paused(job) else JobState.ACCEPTED

    def views(self, now: float, obstacle: Callable[[str], str]) -> tuple[JobView, ...]:
        """Return the views of the running jobs, of the oldest waiting jobs, and of those that are set aside.

        Args:
            obstacle: Returns why no request of a job can be sent at present.
        """
        running = [job.view(now, obstacle(job.header.id)) for job in self.running.values()]
        old, self._waiting_views = self._waiting_views, {}
        for header in (*islice(self.accepted.values(), MOST_REPORTED), *self.quarantine.later):
            state, controls = self._idle_state(header.id), self.controls(header.id)
            priority = min(controls.rank.among_own, MOST_PRIORITY)
            trouble = controls.held or self.window_waits.get(header.id, "")
            view = old.get(header.id)
            if view is None or header.by or (view.state, view.priority, view.trouble) != (state, priority, trouble):
                view = idle_view(header, state, trouble, priority, self.foreseen.get(header.id))
            self._waiting_views[header.id] = view
        return (*running, *self._waiting_views.values(), *self.quarantine.views())

    def further_views(self) -> tuple[FurtherJobView, ...]:
        """Return short views of the jobs that `views` leaves out: full views of ten thousand jobs would take time."""
        old, self._further_views = self._further_views, {}
        for header in islice(self.accepted.values(), MOST_REPORTED, None):
            job, state = header.id, self._idle_state(header.id)
            view = old.get(job)
            if view is None or view.state != state:
                view = FurtherJobView(job=job, profile=header.profile, name=header.name, state=state)
            self._further_views[job] = view
        return tuple(self._further_views.values())

    def requests_left(self, jobs: Iterable[JobHeader]) -> int:
        """Return the number of requests without a result of those of these jobs that are not paused."""
        left = 0
        for header in jobs:
            if not self.is_paused(header.id):
                running = self.running.get(header.id)
                left += header.requests - (running.counts.done if running is not None else 0)
        return left

    def eta_seconds(self) -> float | None:
        """Return the seconds until all jobs in progress are done; paused jobs do not count."""
        waiting = sum(header.requests for header in self.accepted.values() if not self.is_paused(header.id))
        going = [job for job in self.running.values() if job.state is not JobState.PAUSED]
        return time_to_go(going, waiting, self._endpoints.calls_in_flight)

    # --- coming --------------------------------------------------------------------------------------------------

    def take(self, header: JobHeader) -> None:
        """Add an accepted job; one that only tries a few lines comes first among those of its submitter."""
        self.accepted[header.id] = header
        if header.trial and header.id not in self._controls:
            self._controls[header.id] = FRONT
        self.job_index.add(header)
        if header.settings.window:
            self.windowed[header.id] = header
        self._line_up(header)
        self.revision += 1

    def take_over(self, recovery: Recovery, wanted: Collection[JobHeader]) -> None:
        """Continue with the jobs that an earlier coordinator left.

        Args:
            wanted: Those of the jobs that are to be run.
        """
        self._controls.update(recovery.controls)
        self.damaged = recovery.damaged
        self.quarantine.take_over(recovery.quarantined, recovery.in_vain)
        for header in wanted:
            self.take(header)
            if held := self.controls(header.id).held:
                self._progress_folders.show_kept(header, idle_view(header, JobState.PAUSED, held))
        for header in recovery.quarantined:
            self.job_index.add(header)
            if self.controls(header.id).canceller is not None:
                self.quarantine.release(header.id)

    def _line_up(self, header: JobHeader) -> None:
        self._lines.setdefault(self._candidate(header), deque()).append(header.id)

    def _line_up_all(self) -> None:
        """Put every waiting job into its line again; controls and pauses are rare."""
        self._lines = {}
        for header in self.accepted.values():
            self._line_up(header)

    def tick(self, now: float) -> list[FolderShown]:
        """Process jobs that clerks have read, that may be started again, or that are cancelled and recorded.

        Returns:
            The folders that were published after the last call.
        """
        loaded, self._loaded = self._loaded, []
        for header, outcome in loaded:
            self._on_loaded(header, outcome, now)
        for header in self.quarantine.tick(self.running, now):
            self.take(header)
        for job in [job for job, running in self.running.items() if running.state is JobState.CANCELLED]:
            self.end_if_complete(job)
        shown, self._shown = self._shown, []
        return shown

    def activate(self, limit: int, now: float) -> None:
        """Load accepted jobs while fewer than `limit` are active; cancelled jobs only pass through and do not count."""
        while self.accepted:
            kinds = sorted((kind for kind, jobs in self._lines.items() if jobs), key=lambda kind: self._lines[kind][0])
            place = choose_next(kinds, self._active(), limit, is_on_trial=self.quarantine.is_on_trial)
            if place is None:
                return
            header = self.accepted.pop(self._lines[kinds[place]].popleft())
            self._loading[header.id] = header
            records = self._counters.records_of(header.id)
            self.quarantine.begin(header, partial(self._note_loaded, header), now, records)

    def _candidate(self, header: JobHeader) -> Candidate:
        controls = self.controls(header.id)
        if controls.canceller is not None:
            return Candidate(header.uid, PASSING_THROUGH)
        suspicion = self.quarantine.suspicion(header.id)
        return Candidate(
            header.uid, self._rank_of(header.id), can_start=not self._is_at_rest(header.id), suspicion=suspicion
        )

    def _active(self) -> list[Candidate]:
        """Return the jobs that count as active: neither at rest nor only waiting to be published."""
        active = [job.header for job in self.running.values() if job.state is not JobState.COMPLETE]
        return [self._candidate(item) for item in (*active, *self._loading.values()) if not self._is_at_rest(item.id)]

    def _is_at_rest(self, job: str) -> bool:
        """Return whether a job is paused or waits for its window: it keeps no other job from being active."""
        return self.is_paused(job) or job in self.window_waits

    def _note_loaded(self, header: JobHeader, outcome: LoadedJob | CallFailed | None) -> None:
        self._loaded.append((header, outcome))

    def _on_loaded(self, header: JobHeader, outcome: LoadedJob | CallFailed | None, now: float) -> None:
        del self._loading[header.id]
        if self.quarantine.keeps(header, outcome, now) or outcome is None:
            return
        if isinstance(outcome, CallFailed):
            extra = {"action": "load_failed", "job": header.id}
            logger.error("job %s cannot be loaded: %s", header.id, outcome.reason, extra=extra)
            self.damaged = (*self.damaged, header.id)
            self.job_index.remove(header.id)
            return
        backlog = Backlog(
            header.id,
            outcome.replay.done,
            header.signatures,
            outcome.column,
            larger=header.larger_numbers(),
            sizes=outcome.sizes,
            lanes=outcome.lanes,
            limit=header.settings.attempts,
            submitter=header.uid,
            rank=self._rank_of(header.id),
        )
        backlog.weights = None if header.settings.digest == "any" else dict(outcome.replay.weights)
        backlog.has_cache = header.settings.cache
        backlog.may_share = not header.asks  # OpenAI's form reports the tokens of each line
        replay = outcome.replay
        self._counters.on_loaded(header.id, replay)
        running = RunningJob(
            header,
            backlog,
            replay.counts,
            Rate(now),
            Rate(now),
            outcome.times,
            failures=dict(replay.failures),
            work_sizes=outcome.work_sizes,
        )
        running.priority = min(self.controls(header.id).rank.among_own, MOST_PRIORITY)
        running.deadline = self.foreseen.get(header.id)
        if self.controls(header.id).canceller is not None:
            running.move(JobState.CANCELLED)
        elif self.is_paused(header.id):
            running.move(JobState.PAUSED)
        running.held = self.controls(header.id).held
        running.waits = self.window_waits.get(header.id, "")
        self.running[header.id] = running
        self.starts += 1
        self._recorder.open(header.id, outcome.replay.size)
        self._endpoints.on_limits(header.settings)
        self._scheduler.add_job(backlog, now)
        self.end_if_complete(header.id)

    # --- control -------------------------------------------------------------------------------------------------

    def bind(self, job: str, controls: JobControls) -> None:
        """Apply new controls to a job; a job that has finished meanwhile is ignored."""
        known = {header.id: header for header in self.addressable()}
        controls = replace(controls, held=self.controls(job).held)  # `hold` and `resume` decide that
        if job not in known or controls == self.controls(job):
            return
        old, self._controls[job] = self.controls(job), controls
        self._line_up_all()
        self.revision += 1
        running = self.running.get(job)
        if running is not None:
            running.backlog.rank = self._rank_of(job)
            running.priority = min(controls.rank.among_own, MOST_PRIORITY)
        if controls.rank != old.rank:
            rank = controls.rank.among_own
            extra = {"action": "job_priority", "job": job, "priority": rank}
            logger.info("%s now has priority %d", known[job].label, rank, extra=extra)
        if controls.canceller is not None and old.canceller is None:
            extra = {"action": "job_cancelled", "job": job, "uid": controls.canceller}
            logger.info("%s was cancelled by %s", known[job].label, user_name(controls.canceller), extra=extra)
            self._cancel(job)

    def _rank_of(self, job: str) -> Rank:
        return self._raised.get(job, self.controls(job).rank)

    def raise_ranks(self, ranks: Mapping[str, Rank]) -> None:
        """Raise the ranks of exactly these jobs, whose deadlines are in danger.

        Args:
            ranks: `{job: its rank}`.
        """
        if ranks == self._raised:
            return
        self._raised = ranks
        for job, running in self.running.items():
            running.backlog.rank = self._rank_of(job)
        self._line_up_all()
        self.revision += 1

    def _cancel(self, job: str) -> None:
        """Send no more requests of a job and cancel those in flight; `tick` does the rest."""
        self.quarantine.release(job)
        running = self.running.get(job)
        if running is not None and running.state is not JobState.COMPLETE:
            running.move(JobState.CANCELLED)
            self._endpoints.cancel_in_flight(job)
            self._scheduler.remove_job(job)

    def resume(self, job: str) -> None:
        """Release a job that was set aside or held, so that it goes on."""
        self.quarantine.release(job)
        if self.controls(job).held:
            self._controls[job] = replace(self.controls(job), held="")
            if (running := self.running.get(job)) is not None:
                running.held = ""
                running.refusals.on_resume()
            else:
                self._progress_folders.end_progress(job)
            self._on_pause_changed({job})

    def on_refused(self, job: str, ordinal: int, endpoint: str) -> None:
        """Count a request that failed because the endpoints refuse it; if there are too many, hold the job.

        Args:
            endpoint: The one that refused it last.
        """
        running = self.running[job]
        is_too_much = running.refusals.add(running.lines_of(ordinal), running.header.requests)
        if not is_too_much or running.held or running.state not in (JobState.RUNNING, JobState.PAUSED):
            return
        if not running.backlog.unfinished or not self._can_hold:
            return
        header, refused = running.header, running.refusals.refused
        running.held = (
            f"{header.label} is paused: {refused} of its {header.requests} requests failed with an error of the servers"
            f" that obcd does not know, the last one on {endpoint}, while they answer others: look into the server's "
            f"log, then obcd resume {header.id}, or obcd cancel {header.id} to end it"
        )
        self._controls[job] = replace(self.controls(job), held=running.held)
        self._outbox_clerks.submit(Hold(header, running.held), partial(self._on_held, job))
        self._on_pause_changed({job})

    def _on_held(self, job: str, outcome: CallFailed | None) -> None:
        if outcome is not None:
            extra = {"action": "hold_failed", "job": job}
            logger.error("job %s is paused, which a restart forgets: %s", job, outcome.reason, extra=extra)

    def pause(self, jobs: frozenset[str]) -> None:
        """Pause exactly these jobs: none of their requests are sent, requests in flight finish."""
        if jobs == self._paused:
            return
        changed, self._paused = jobs ^ self._paused, jobs
        self._on_pause_changed(changed)

    def wait_for_windows(self, waits: Mapping[str, str]) -> None:
        """Let exactly these jobs wait for their windows.

        Args:
            waits: `{job: the sentence about it}`.
        """
        if waits == self.window_waits:
            return
        self.window_waits = waits
        for job, running in self.running.items():
            running.waits = waits.get(job, "")
        self._line_up_all()
        self.revision += 1

    def _on_pause_changed(self, jobs: Collection[str]) -> None:
        """Pause or continue jobs of which it has changed who pauses them."""
        self._line_up_all()
        for header in [header for header in self.unfinished() if header.id in jobs]:
            is_paused, running = self.is_paused(header.id), self.running.get(header.id)
            state = JobState.PAUSED if is_paused else JobState.RUNNING
            if running is not None and running.state in (JobState.RUNNING, JobState.PAUSED) and running.state != state:
                running.move(state)
            extra = {"action": "job_paused" if is_paused else "job_resumed", "job": header.id}
            if held := self.controls(header.id).held:
                logger.warning("%s", held, extra=extra)
            else:
                logger.info("%s %s", header.label, "is paused" if is_paused else "is resumed", extra=extra)
            self.revision += 1

    # --- going ---------------------------------------------------------------------------------------------------

    def end_if_complete(self, *jobs: str) -> None:
        """Publish those of these jobs of which every request has its result, or will get it from the clerk."""
        for job in [job for job in jobs if self._complete(job)]:
            self.publish(job)

    def _complete(self, job: str) -> bool:
        """Move a job to COMPLETE, if it may, so that it gets no more requests; return whether it was moved."""
        running = self.running[job]
        if running.state is JobState.COMPLETE:
            return False
        is_cut_short = running.state is JobState.CANCELLED and not self._recorder.holds(job)
        if running.counts.done < running.header.requests and not is_cut_short:
            return False
        running.move(JobState.COMPLETE)
        self._counters.on_complete(job, running.header.requests - running.counts.done)
        self._scheduler.remove_job(job)
        self._recorder.close_job(job)
        return True

    def publish(self, job: str) -> None:
        """Have the clerk publish a complete job's results in the outbox.

        The counters are kept first: a coordinator that is killed now finds no ledger of the job any more.
        """
        self._counters_file.keep()
        self._publishing.add(job)
        call = Publish(self.running[job].header, self._endpoints.facts())
        self._outbox_clerks.submit(call, partial(self._on_published, job))

    @property
    def lack_of_room(self) -> str:
        """Why results cannot be published, if free space is the reason; "" when they can."""
        lacking = [job.header.label for job in self.running.values() if job.lacks_room]
        return f"no space to publish the results of {lacking[0]}" if lacking else ""

    def publish_again(self) -> None:
        """Retry the jobs that could not be published."""
        for job, running in self.running.items():
            if running.state is JobState.COMPLETE and job not in self._publishing:
                self.publish(job)

    def _on_published(self, job: str, outcome: Path | CallFailed) -> None:
        self._publishing.discard(job)
        running = self.running.get(job)
        if running is None:  # abandoned meanwhile
            return
        if isinstance(outcome, CallFailed):
            trouble = f"the results of {running.header.label} cannot be published: {outcome.reason}; {AGAIN}"
            if running.trouble != trouble:  # retried every few seconds, logged once
                logger.error("%s", trouble, extra={"action": "publish_failed", "job": job})
            running.trouble, running.lacks_room = trouble, outcome.is_full
            return
        counts, header = running.counts, running.header
        failures = header.requests - counts.responses  # the clerk wrote those of a cancelled job
        self.published.append(Published(header, outcome, counts.responses, failures, counts.empty))
        self._forget(job)
        logger.info(
            "%s published in %s: %d answered%s, %d failed, %s of server work",
            header.label,
            outcome,
            counts.responses,
            f" ({counts.empty} of them empty)" if counts.empty else "",
            failures,
            duration(counts.work_seconds),
            extra={"action": "job_published", "job": job},
        )
        self._shown.append(FolderShown(job, outcome, is_trial=bool(header.trial)))

    def publish_left(self, job: str) -> None:
        """Have the clerk publish a job whose outputs an earlier coordinator had written."""
        self._outbox_clerks.submit(PublishLeft(job), partial(self._on_left_published, job))

    def _on_left_published(self, job: str, outcome: Path | CallFailed) -> None:
        if isinstance(outcome, CallFailed):
            extra = {"action": "publish_failed", "job": job}
            logger.error("job %s cannot be published: %s; %s", job, outcome.reason, AGAIN_AT_START, extra=extra)
            return
        self._counters.forget(job)
        logger.info("job %s published in %s", job, outcome, extra={"action": "job_published", "job": job})
        self._shown.append(FolderShown(job, outcome))

    def give_up_taken_away(self) -> None:
        """Abandon jobs whose folder was removed from outside; the others continue."""
        for job in [job for job in self.running if _is_gone(self._layout.jobs / job)]:
            if job in self._publishing:
                continue  # publication moves the folder
            logger.error("jobs/%s was removed: its job is abandoned", job, extra={"action": "job_gone", "job": job})
            self._scheduler.remove_job(job)
            self._recorder.forget(job)
            self._forget(job)

    def _forget(self, job: str) -> None:
        self._progress_folders.end_progress(job)
        del self.running[job]
        self._counters.forget(job)
        self.job_index.remove(job)
        self.windowed.pop(job, None)
        self._controls.pop(job, None)
        self.revision += 1


def _is_gone(folder: Path) -> bool:
    """Return whether a folder does not exist; a folder that cannot be examined at present counts as existing."""
    try:
        return not stat.S_ISDIR(folder.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
