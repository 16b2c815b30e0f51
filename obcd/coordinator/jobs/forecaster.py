"""Foresees when each job ends, raises the ranks of jobs whose deadlines are in danger, and reports late ones."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.jobs.job_lifecycle import Jobs
from obcd.coordinator.jobs.running_job import RunningJob
from obcd.coordinator.jobs.window_keeper import window_of, windows_of
from obcd.coordinator.view import JobState
from obcd.core.events import EventKind, NotableEvent, job_event_id
from obcd.core.forecasting.deadline_watch import DeadlineWatch, raised_ranks
from obcd.core.forecasting.local_times import describe_moment
from obcd.core.forecasting.queue_forecast import Capacity, Load, forecast
from obcd.spool.job.job_folder import JobHeader

logger = logging.getLogger(__name__)

#: Seconds between two forecasts.
FORECAST_SECONDS = 5.0
#: Most waiting jobs that a forecast looks at one by one (twice that with those that have deadlines), and most
#: submitters whose other jobs count as one: it takes 40 ms then.
MOST_WAITING, MOST_RESTS = 24, 8
#: Answers after which a job's own speed counts, and not that of its profile.
LEAST_ANSWERS = 5


class Forecaster:
    """The forecast of all jobs. Main thread only; `at` is in Unix seconds."""

    def __init__(self, jobs: Jobs, endpoints: Endpoints) -> None:
        self._jobs = jobs
        self._endpoints = endpoints
        self._next = 0.0
        #: {job with a deadline: what is foreseen for it}
        self._watches: dict[str, DeadlineWatch] = {}
        #: {profile: mean seconds of a slot for one request, found last}
        self.paces: dict[str, float] = {}
        self._troubles: dict[str, str] = {}
        self._events: list[NotableEvent] = []
        #: When all jobs end; None while that is not foreseeable.
        self.all_end_at: float | None = None

    def tick(self, now: float, at: float, active_jobs: int) -> None:
        """Look again if it is time.

        Args:
            now: In monotonic seconds.
            active_jobs: How many jobs are active at most.
        """
        if now < self._next:
            return
        self._next = now + FORECAST_SECONDS
        unfinished = {
            header.id: header
            for header in self._jobs.unfinished()
            if header.by and self._jobs.state(header.id) not in (JobState.COMPLETE, JobState.CANCELLED)
        }
        self._watches = {job: self._watches.get(job) or DeadlineWatch(header.by) for job, header in unfinished.items()}
        usual = {load.job: load for load in self._loads(now)}
        capacities = list(self._capacities())
        ends = forecast(list(usual.values()), capacities, at, active_jobs=active_jobs)
        self._troubles.clear()
        if self._watches:
            ends = self._keep_deadlines(unfinished, usual, ends, capacities, at, active_jobs)
        for job, running in self._jobs.running.items():
            running.ends_at, running.deadline = ends.get(job), self._watches.get(job)
        known = [end for end in ends.values() if end is not None]
        self.all_end_at = max(known) if known and len(known) == len(ends) else None

    def _keep_deadlines(
        self,
        headers: Mapping[str, JobHeader],
        usual: Mapping[str, Load],
        ends: dict[str, float | None],
        capacities: list[Capacity],
        at: float,
        active_jobs: int,
    ) -> dict[str, float | None]:
        """Raise ranks, and report what is late; return the ends with the ranks in force."""
        usual_ends = ends
        ranks = raised_ranks(
            (job, header.uid, self._jobs.controls(job).rank, self._watches[job]) for job, header in headers.items()
        )
        if ranks:
            loads = sorted(
                (replace(load, rank=ranks.get(load.job, load.rank)) for load in usual.values()),
                key=lambda load: (not load.is_active, -load.rank.among_own),
            )
            ends = forecast(loads, capacities, at, active_jobs=active_jobs)
        for job, header in headers.items():
            watch = self._watches[job]
            running = self._jobs.running.get(job)
            if watch.look(usual_ends.get(job), ends.get(job), at, running.work.seen if running is not None else 0):
                self._report(header, watch, at)
            if watch.is_late:
                self._troubles[job] = watch.describe(header.label, at)
        self._jobs.raise_ranks(
            raised_ranks(
                (job, header.uid, self._jobs.controls(job).rank, self._watches[job]) for job, header in headers.items()
            )
        )
        self._jobs.foreseen = self._watches
        return ends

    def _report(self, header: JobHeader, watch: DeadlineWatch, at: float) -> None:
        extra = {"action": "deadline_late" if watch.is_late else "deadline_safe", "job": header.id}
        if not watch.is_late:
            logger.info("%s will end before %s after all", header.label, describe_moment(watch.by, at), extra=extra)
            return
        text = watch.describe(header.label, at)
        logger.warning("%s", text, extra=extra)
        late = watch.late_seconds
        self._events.append(
            NotableEvent(
                id=job_event_id(EventKind.DEADLINE, header.id),
                kind=EventKind.DEADLINE,
                at=at,
                text=text,
                profile=header.profile,
                job=header.id,
                uid=header.uid,
                facts={"name": header.name, "by": watch.by, "late_seconds": None if late is None else round(late)},
            )
        )

    @property
    def troubles(self) -> list[str]:
        """Which jobs will miss their deadlines, for people."""
        return list(self._troubles.values())

    def take_events(self) -> list[NotableEvent]:
        """Return what was reported since the last call."""
        events, self._events = self._events, []
        return events

    def _capacities(self) -> Iterator[Capacity]:
        scheduler = self._endpoints.scheduler
        for member in self._endpoints.members:
            slots = scheduler.endpoint(member.name).health.open_slots(scheduler.endpoint(member.name).slots)
            if slots > 0 and member.name not in self._endpoints.leaving:
                yield Capacity(name=member.name, slots=slots, windows=windows_of(member.window))

    def _loads(self, now: float) -> Iterator[Load]:
        """Yield the jobs that are not paused: the active ones, then those that wait; none before speeds are known."""
        running = [job for job in self._jobs.running.values() if job.state is JobState.RUNNING]
        for job in running:
            if job.work.seen >= LEAST_ANSWERS and job.work.mean is not None:
                self.paces[job.header.profile] = job.work.mean
        if not self.paces:
            return
        usual = sum(self.paces.values()) / len(self.paces)
        in_flight = self._in_flight(now)
        for job in running:
            yield self._load_of(job, usual, in_flight)
        yield from self._waiting_loads(usual)

    def _waiting_loads(self, usual: float) -> Iterator[Load]:
        """Yield the jobs in line: the first ones and those with a deadline; of the others, one for each submitter."""
        rest: dict[int, list[float]] = defaultdict(lambda: [0, 0.0])
        left = MOST_WAITING
        for header in self._jobs.accepted.values():
            if self._jobs.is_paused(header.id):
                continue
            each = self.paces.get(header.profile, usual)
            if left > 0 or (header.by and left > -MOST_WAITING):
                left -= 1
                yield Load(
                    job=header.id,
                    submitter=header.uid,
                    rank=self._jobs.controls(header.id).rank,
                    requests=header.requests,
                    seconds=header.requests * each,
                    spread=each / 2,
                    windows=window_of(header),
                    is_active=False,
                )
            else:
                rest[header.uid][0] += header.requests
                rest[header.uid][1] += header.requests * each
        for uid, (requests, seconds) in sorted(rest.items(), key=lambda item: -item[1][1])[:MOST_RESTS]:
            name = f"the rest of {uid}"
            yield Load(job=name, submitter=uid, requests=int(requests), seconds=seconds, is_active=False)

    def _in_flight(self, now: float) -> Mapping[str, list[tuple[int, float]]]:
        """Return `{job: its requests in flight, as in WorkLeft.look_at}`."""
        found: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for member in self._endpoints.members:
            for lease in self._endpoints.scheduler.endpoint(member.name).held:
                if (job := self._jobs.running.get(lease.job)) is not None:
                    found[lease.job].append((job.size_of(lease.ordinal), now - lease.sent_at))
        return found

    def _load_of(self, job: RunningJob, usual: float, in_flight: Mapping[str, list[tuple[int, float]]]) -> Load:
        header, work = job.header, job.work
        work.look_at(in_flight.get(header.id, ()))
        is_known = work.seen >= LEAST_ANSWERS
        each = self.paces.get(header.profile, usual)
        return Load(
            job=header.id,
            submitter=header.uid,
            rank=self._jobs.controls(header.id).rank,
            requests=work.requests,
            seconds=work.seconds if is_known else work.requests * each,
            spread=work.spread(is_longest_first=job.backlog.puts_longest_first) if is_known else each / 2,
            windows=window_of(header),
            sites=self._sites_of(job),
        )

    def _sites_of(self, job: RunningJob) -> frozenset[str] | None:
        """Return the endpoints that have all models of a job; None if all have."""
        models = {signature.model for signature in job.backlog.signatures}
        names = [member.name for member in self._endpoints.members]
        found = frozenset(
            name for name in names if models <= (self._endpoints.scheduler.endpoint(name).digests or {}).keys()
        )
        return None if len(found) == len(names) else found
