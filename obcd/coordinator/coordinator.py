"""The coordinator: one main loop, `tick(now)`, that owns inbox, jobs, ledgers, scheduler and pool.

    inbox ─► desk ─► clerk ─► job ─► scheduler ─lease─► pool ─► worker ─► Ollama
                                        ▲                                   │ result
    outbox ◄─ clerk ◄─ complete job ◄─ recorder (ledger, synced) ◄──────────┘

No turn may take long: what is long is the clerk's, what waits for the disk is the recorder's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from obcd.clock import duration, monotonic
from obcd.config.settings import Settings
from obcd.coordinator.clerk import Clerk, Done, Failed
from obcd.coordinator.desk import Desk
from obcd.coordinator.recorder import Entry, Recorder
from obcd.coordinator.running import EndpointFigures, JobState, RunningJob
from obcd.coordinator.watch import InboxWatch
from obcd.core.backlog import Backlog
from obcd.core.faults import Fault, model_missing, worker_lost
from obcd.core.health import EndpointState
from obcd.core.rates import Rate
from obcd.core.scheduling import Lease, Scheduler
from obcd.errors import InputError
from obcd.spool.intake import failure_record
from obcd.spool.job import JobHeader, read_place
from obcd.spool.layout import Layout, SpoolLock
from obcd.spool.outbox import EndpointFacts, Signs
from obcd.spool.recovery import LoadedJob, Recovery
from obcd.workers.messages import Answered, Ask, Cancel, Faulted, Probed, ProbeNow
from obcd.workers.pool import Lost, Pool, Received
from obcd.workers.worker import WorkerSpec

logger = logging.getLogger(__name__)

#: Seconds between control calls to an endpoint: while it does not serve, and while it does.
PROBE_SOON, PROBE_IDLE = 1.0, 30.0
#: Seconds between looks at overdue leases and at the watch.
HOUSEKEEPING_SECONDS = 5.0
#: Seconds that a worker may exceed its own limits before it counts as frozen.
OVERDUE_GRACE = 30.0
#: Seconds between two writings of a job's progress.
PROGRESS_SECONDS = 2.0
#: Failures for want of a model, recorded in one turn.
UNSERVABLE_A_TURN = 500
#: Least seconds between two scans that file events ask for.
NEWS_SECONDS = 0.1
#: Published jobs that the status remembers.
REMEMBERED = 20


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the recorder gives back with a recorded result."""

    failed: bool
    cut_short: bool = False
    prompt_tokens: int = 0
    eval_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Published:
    """A job that lies in the outbox."""

    header: JobHeader
    folder: Path
    responses: int
    failures: int


class Observer:
    """Told what happens, as it happens; for `obcd batch`. Does nothing by itself."""

    def on_answer(self, job: JobHeader, lease: Lease, answer: Answered) -> None:
        """A request was answered (and is about to be recorded)."""

    def on_failure(self, job: JobHeader, lease: Lease | None, line: int, fault: Fault) -> None:
        """A request failed for good."""

    def on_published(self, job: str, folder: Path) -> None:
        """A job's folder was shown."""


class Coordinator:
    """All of it; one thread calls `start`, then `wait` and `tick` in turn, then `stop`.

    Args:
        settings: The configuration.
        layout: The folders; locked by `start`.
        observer: Told what happens.
        takes_drops: Whether the inbox is looked at (`obcd batch` has none).
        only: When not empty, the one job to run; others are left as they are.
    """

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        observer: Observer | None = None,
        *,
        takes_drops: bool = True,
        only: str = "",
    ) -> None:
        now = monotonic()
        self.settings = settings
        self.layout = layout
        self._observer = observer or Observer()
        self._takes_drops = takes_drops
        self._only = only
        self._lock = SpoolLock(layout)
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.endpoints = settings.endpoints()
        self.scheduler = Scheduler()
        self.figures = {item.name: EndpointFigures(Rate(now)) for item in self.endpoints}
        for item in self.endpoints:
            self.scheduler.add_endpoint(item.name, item.slots, now)
        connect = settings.requests.connect_timeout_seconds
        self.pool = Pool([WorkerSpec(e.name, e.url, e.slots, layout.jobs, connect) for e in self.endpoints])
        self.running: dict[str, RunningJob] = {}
        self.accepted: deque[JobHeader] = deque()
        self.published: deque[Published] = deque(maxlen=REMEMBERED)
        self.damaged: tuple[str, ...] = ()
        self.is_draining = False
        self.is_recovered = False
        self._loading: dict[str, JobHeader] = {}
        self._intake_clerk = Clerk("intake", layout)
        self._outbox_clerk = Clerk("outbox", layout)
        self._desk = Desk(settings, layout, self._intake_clerk, self._take_accepted, self._unfinished)
        self._signs = Signs(layout)
        folders = [layout.inbox, *(layout.inbox / name for name in settings.profiles)]
        self._watch = InboxWatch(folders, self._note_inbox_news)
        self._recorder = Recorder(layout.jobs, self.wake)
        self._housekeeping_at = 0.0
        self._has_inbox_news, self._news_at = False, 0.0

    # --- start and stop ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the spool and begin recovery.

        Raises:
            AlreadyRunningError: If another coordinator has it.
            InputError: If the folders cannot be made.
        """
        self.layout.create(list(self.settings.profiles))
        self._lock.acquire()
        if self._takes_drops:  # else the outbox is the user's own folder, and no sign is ever put there
            self._signs.clear()
        self.pool.start_missing(monotonic())
        self._intake_clerk.ask(self._take_recovery, "recover")

    def drain(self) -> None:
        """Give out nothing new; what is in flight may finish."""
        self.is_draining = True

    def stop(self) -> None:
        """End all child processes and record what has come; what was in flight is asked again next time."""
        self.pool.stop()
        self._intake_clerk.stop()
        self._outbox_clerk.stop()
        self._watch.stop()
        self._recorder.stop(5.0)
        for job in list(self.running):
            self._signs.end_progress(job)
        self._lock.release()

    @property
    def in_flight(self) -> int:
        """Requests at the endpoints now."""
        return sum(self.scheduler.in_flight(item.name) for item in self.endpoints)

    @property
    def unrecorded(self) -> int:
        """Results that are not on disk yet."""
        return self._recorder.pending

    @property
    def waiting(self) -> dict[Any, str]:
        """Files of the inbox that are not taken, and why."""
        return self._desk.waiting

    def troubles(self) -> list[str]:
        """Return what keeps the coordinator from working as it should, for people."""
        found = [self._desk.trouble, self._recorder.trouble, *(job.trouble for job in self.running.values())]
        missing = sorted(self.scheduler.unservable_models())
        found += [f"no endpoint has the model '{name}': ollama pull {name}" for name in missing]
        found += [f"jobs/{name} is damaged and was left as it is: look at it" for name in self.damaged]
        return [text for text in found if text]

    def pids(self) -> dict[str, int | None]:
        """Return the child processes by name."""
        clerks = {"clerk intake": self._intake_clerk.pid, "clerk outbox": self._outbox_clerk.pid}
        return {**self.pool.pids(), **clerks}

    # --- the loop ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """End the present `wait` early; any thread, also a signal handler's."""
        try:
            os.write(self._wake_writer, b".")
        except BlockingIOError:  # the pipe is full of wake-ups already
            return

    def wait(self, seconds: float) -> None:
        """Sleep until something happens, at most this long."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        for descriptor in self.pool.channels():
            poll.register(descriptor, select.POLLIN)
        for clerk in (self._intake_clerk, self._outbox_clerk):
            descriptor_or_none = clerk.fileno()
            if descriptor_or_none is not None:
                poll.register(descriptor_or_none, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)

    def tick(self, now: float) -> float:
        """Do all that can be done now, without waiting.

        Returns:
            Seconds until the next turn is wanted, if nothing happens before.
        """
        self._drain_wakeups()
        if self._has_inbox_news and now >= self._news_at:
            self._has_inbox_news, self._news_at = False, now + NEWS_SECONDS
            self._desk.wake()
        self.pool.start_missing(now)
        self._receive(now)
        self._intake_clerk.receive()
        self._outbox_clerk.receive()
        self._count_recorded(now)
        if self.is_recovered and self._takes_drops and not self.is_draining:
            self._desk.turn(now)
        self._show(now)
        self._keep_house(now)
        if self.is_recovered and not self.is_draining:
            self._activate()
            self._dispatch(now)
        return self._until_next(now)

    def _until_next(self, now: float) -> float:
        wanted = [now + 1.0]
        if self._takes_drops and self.is_recovered and not self.is_draining:  # as `tick` calls it
            wanted.append(max(now, self._desk.next_scan()))
        if self._has_inbox_news:
            wanted.append(max(now, self._news_at))
        # A worker that may start is started in this turn, so what is left of a past time is not waited for.
        coming = (self.pool.next_restart(), self.scheduler.next_due(now))
        wanted += [at for at in coming if at is not None and at > now]
        return min(wanted) - now

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 4096)

    def _note_inbox_news(self) -> None:
        """Have the inbox scanned soon; the watch's thread. A writer makes thousands of events; one scan sees all."""
        if not self._has_inbox_news:
            self._has_inbox_news = True
            self.wake()

    # --- jobs ----------------------------------------------------------------------------------------------------

    def _take_recovery(self, outcome: Done | Failed) -> None:
        if isinstance(outcome, Failed):
            raise InputError(f"the spool at {self.layout.root} cannot be taken up: {outcome.reason}")
        recovery: Recovery = outcome.value
        wanted = [header for header in recovery.jobs if self._only in ("", header.id)]
        self.accepted.extend(wanted)
        self.damaged = recovery.damaged
        for job in recovery.unpublished:
            if self._only in ("", job):
                self._outbox_clerk.ask(partial(self._take_old_published, job), "publish", job, {})
        if self._takes_drops:
            for claim in recovery.claims:
                self._desk.take_claim(claim)
        if wanted:
            logger.info("going on with %d unfinished jobs", len(wanted), extra={"action": "recovered"})
        self.is_recovered = True

    def _take_accepted(self, header: JobHeader) -> None:
        self.accepted.append(header)

    def _unfinished(self) -> tuple[JobHeader, ...]:
        return (*self.accepted, *self._loading.values(), *(job.header for job in self.running.values()))

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is left to do (but to wait for drops)."""
        busy = self.accepted or self.running or self._loading
        return self.is_recovered and not busy and not self._intake_clerk.pending and not self._outbox_clerk.pending

    def _activate(self) -> None:
        """Load accepted jobs as long as there is room among the active ones."""
        while self.accepted and len(self.running) + len(self._loading) < self.settings.spool.active_jobs:
            header = self.accepted.popleft()
            self._loading[header.id] = header
            self._intake_clerk.ask(partial(self._take_loaded, header), "load_job", header.id)

    def _take_loaded(self, header: JobHeader, outcome: Done | Failed) -> None:
        del self._loading[header.id]
        now = monotonic()
        if isinstance(outcome, Failed):
            logger.error("job %s cannot be loaded: %s", header.id, outcome.reason, extra={"action": "load_failed"})
            self.damaged = (*self.damaged, header.id)
            return
        loaded: LoadedJob = outcome.value
        backlog = Backlog(header.id, loaded.replay.done, header.signatures, loaded.column)
        self.running[header.id] = RunningJob.begin(header, backlog, loaded.replay, now)
        self._recorder.open(header.id, loaded.replay.size)
        self.scheduler.add_job(backlog, now)
        self._publish_if_complete(header.id)

    def _publish_if_complete(self, job: str) -> None:
        running = self.running[job]
        if running.counts.done < running.header.requests or running.state is JobState.COMPLETE:
            return
        running.state = JobState.COMPLETE
        self.scheduler.remove_job(job)
        self._recorder.close_job(job)
        self._ask_to_publish(job)

    def _ask_to_publish(self, job: str) -> None:
        facts = {
            item.name: EndpointFacts(
                version=self.figures[item.name].version, gpu=item.gpu, digests=self.figures[item.name].digests
            )
            for item in self.endpoints
        }
        self._outbox_clerk.ask(lambda outcome: self._take_published(job, outcome), "publish", job, facts)

    def _take_published(self, job: str, outcome: Done | Failed) -> None:
        running = self.running[job]
        if isinstance(outcome, Failed):
            running.trouble = f"the answers of {running.header.label} cannot be published: {outcome.reason}"
            logger.error("%s", running.trouble, extra={"action": "publish_failed", "job": job})
            return
        self._signs.end_progress(job)
        del self.running[job]
        counts = running.counts
        published = Published(running.header, outcome.value, counts.responses, counts.failures)
        self.published.append(published)
        logger.info(
            "%s published in %s: %d answered, %d failed, %s of server work",
            running.header.label,
            outcome.value,
            counts.responses,
            counts.failures,
            duration(counts.work_seconds),
            extra={"action": "job_published", "job": job},
        )
        self._desk.wake_held()
        self._observer.on_published(job, outcome.value)

    def _take_old_published(self, job: str, outcome: Done | Failed) -> None:
        if isinstance(outcome, Failed):
            logger.error("job %s cannot be published: %s", job, outcome.reason, extra={"action": "publish_failed"})
            return
        logger.info("job %s published in %s", job, outcome.value, extra={"action": "job_published", "job": job})
        self._observer.on_published(job, outcome.value)

    # --- requests ------------------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        if self._recorder.trouble:  # what cannot be recorded should not be computed
            return
        for lease in self.scheduler.assign(now):
            self.pool.send(lease.endpoint, Ask(lease.ticket, lease.job, lease.ordinal, lease.attempt))

    def _receive(self, now: float) -> None:
        for endpoint in list(self.pool.channels().values()):
            for event in self.pool.receive(endpoint, now):
                if isinstance(event, Lost):
                    self._take_lost(endpoint, now)
                else:
                    self._take_message(event, now)

    def _take_message(self, event: Received, now: float) -> None:
        match event.message:
            case Answered():
                self._take_answer(event.endpoint, event.message, now)
            case Faulted(ticket, line, fault):
                self._take_fault(event.endpoint, ticket, line, fault, now)
            case Probed(probe):
                self._take_probe(event.endpoint, probe, now)
            case _:
                raise TypeError(type(event.message).__name__)

    def _take_answer(self, endpoint: str, answer: Answered, now: float) -> None:
        lease = self.scheduler.answered(answer.ticket, endpoint, now)
        if lease is None:  # late: another attempt has ended this request, or its job is gone
            return
        job = self.running[lease.job]
        figures = self.figures[endpoint]
        figures.answered += 1
        figures.tokens.add(answer.eval_tokens, now)
        job.tokens.add(answer.eval_tokens, now)
        receipt = Receipt(False, answer.cut_short, answer.prompt_tokens, answer.eval_tokens, answer.seconds)
        self._recorder.add(Entry(lease.job, answer.record, receipt))
        self._observer.on_answer(job.header, lease, answer)

    def _take_fault(self, endpoint: str, ticket: int, line: int, fault: Fault, now: float) -> None:
        lease_of = self.scheduler.in_flight_lease(ticket, endpoint)
        job = self.running.get(lease_of.job) if lease_of is not None else None
        limit = job.header.settings.attempts if job is not None else 1
        settled = self.scheduler.faulted(ticket, endpoint, fault, limit, now)
        if settled is None or job is None:
            return
        self.figures[endpoint].faults += 1
        lease, is_final = settled
        logger.log(
            logging.WARNING if is_final else logging.INFO,
            "%s line %d on %s, attempt %d: %s%s",
            job.header.label,
            line,
            endpoint,
            lease.attempt,
            fault.message,
            "" if is_final else "; it is asked again",
            extra={"action": "request_failed" if is_final else "attempt_failed", "job": lease.job},
        )
        if is_final:
            self._record_failure(job, lease.ordinal, line, fault, lease)

    def _record_failure(self, job: RunningJob, ordinal: int, line: int, fault: Fault, lease: Lease | None) -> None:
        number = line or read_place(self.layout.jobs / job.header.id, ordinal).line
        attempts, endpoint = (lease.attempt, lease.endpoint) if lease is not None else (0, "")
        record = failure_record(ordinal, number, fault.kind, fault.message, attempts, endpoint)
        self._recorder.add(Entry(job.header.id, record, Receipt(failed=True)))
        self._observer.on_failure(job.header, lease, number, fault)

    def _take_lost(self, endpoint: str, now: float) -> None:
        self.scheduler.note_probe(endpoint, None, "its worker ended; another one starts", now)
        for lease in self.scheduler.leases(endpoint):
            self._take_fault(endpoint, lease.ticket, 0, worker_lost(), now)

    def _take_probe(self, endpoint: str, probe: Any, now: float) -> None:
        figures = self.figures[endpoint]
        figures.is_probing, figures.probed_at = False, now
        models = None
        if probe.failure is None:
            figures.version, figures.digests = probe.version, probe.digests
            models = frozenset(probe.digests)
        before = self.scheduler.health(endpoint).state
        self.scheduler.note_probe(endpoint, models, probe.failure, now)
        health = self.scheduler.health(endpoint)
        if health.state is not before:
            reason = f": {health.reason}" if health.reason else ""
            extra = {"action": "endpoint_state", "endpoint": endpoint}
            logger.info("endpoint %s is %s%s", endpoint, health.state, reason, extra=extra)

    def _count_recorded(self, now: float) -> None:
        complete = set()
        for entry in self._recorder.recorded():
            job = self.running[entry.job]
            receipt: Receipt = entry.receipt
            counts = job.counts
            counts.failures += receipt.failed
            counts.responses += not receipt.failed
            counts.cut_short += receipt.cut_short
            counts.prompt_tokens += receipt.prompt_tokens
            counts.eval_tokens += receipt.eval_tokens
            counts.work_seconds += receipt.seconds
            job.answers.add(1, now)
            if counts.done >= job.header.requests:
                complete.add(entry.job)
        for name in complete:
            self._publish_if_complete(name)

    # --- now and then --------------------------------------------------------------------------------------------

    def _show(self, now: float) -> None:
        for job in self.running.values():
            if self._takes_drops and now - job.shown_at >= PROGRESS_SECONDS and not job.trouble:
                job.shown_at = now
                try:
                    self._signs.show_progress(job.header, job.report(now))
                except OSError as error:  # a full disk: the job goes on, the sign is stale
                    logger.debug("progress of %s not shown: %s", job.header.id, error.strerror)
        if self._takes_drops:
            try:
                news = self._signs.show_waiting(self._desk.waiting)
            except OSError as error:
                logger.debug("waiting signs not shown: %s", error.strerror)
                return
            for key, why in news:
                name = f"{key.profile}/{key.name}" if key.profile else key.name
                logger.info("%a waits: %s", name, why, extra={"action": "drop_waits"})

    def _keep_house(self, now: float) -> None:
        self._probe(now)
        if now < self._housekeeping_at:
            return
        self._housekeeping_at = now + HOUSEKEEPING_SECONDS
        if self._takes_drops:
            self._watch.ensure()
        for job, ordinal, model in self.scheduler.take_unservable(UNSERVABLE_A_TURN, now):
            self._housekeeping_at = now
            self._record_failure(self.running[job], ordinal, 0, model_missing(model, len(self.endpoints)), None)
        requests = self.settings.requests
        age = requests.load_timeout_seconds + requests.request_timeout_seconds + OVERDUE_GRACE
        for endpoint in self.scheduler.overdue(age, now):
            self.pool.replace(endpoint, now)
            self._take_lost(endpoint, now)
        for name, running in self.running.items():
            if running.trouble and running.state is JobState.COMPLETE:
                running.trouble = ""
                self._ask_to_publish(name)

    def _probe(self, now: float) -> None:
        for item in self.endpoints:
            figures, health = self.figures[item.name], self.scheduler.health(item.name)
            pause = PROBE_IDLE if health.state in (EndpointState.UP, EndpointState.SUSPECT) else PROBE_SOON
            if not figures.is_probing and now - figures.probed_at >= pause and now >= health.retry_at:
                figures.is_probing = True
                self.pool.send(item.name, ProbeNow())

    def cancel_in_flight(self) -> None:
        """Break off what is in flight, so that no server computes for nobody."""
        for endpoint in self.endpoints:
            for lease in self.scheduler.leases(endpoint.name):
                self.pool.send(endpoint.name, Cancel(lease.ticket))
