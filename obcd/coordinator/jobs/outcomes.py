"""What came of requests: responses and failures go to the recorder, and count when they are on disk."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.endpoints.receiving import AttemptFailed, RequestAnswered, RequestEvent
from obcd.coordinator.history.minutes import HistoryWriter
from obcd.coordinator.jobs.job_lifecycle import Jobs
from obcd.coordinator.jobs.recorder import Entry, Recorder
from obcd.coordinator.jobs.running_job import RunningJob
from obcd.coordinator.loop_waits import TickPacing
from obcd.coordinator.metering.counters import CounterSet
from obcd.coordinator.observer import Observer
from obcd.core.answer.counts import Counts
from obcd.core.answer.record_codec import encode
from obcd.core.endpoint.faults import Fault, Remedy, model_missing, weights_missing
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.missing_models import MissingModel
from obcd.core.scheduling.scheduler import Scheduler
from obcd.spool.job.job_folder import read_place

logger = logging.getLogger(__name__)

#: The most failures because of a missing model that are recorded in one tick.
UNSERVABLE_A_TURN = 500


@dataclass(slots=True)
class Outcomes:
    """Takes the outcomes of attempts to everybody who has to know: recorder, job, counters, history, observer.

    Attributes:
        folder: Where the jobs' folders lie.
        pacing: Learns how long requests take.
        observer: Notified of results.
    """

    folder: Path
    scheduler: Scheduler
    endpoints: Endpoints
    jobs: Jobs
    recorder: Recorder
    pacing: TickPacing
    counters: CounterSet
    history: HistoryWriter
    observer: Observer

    def record(self, events: Iterable[RequestEvent], now: float) -> None:
        """Record responses and failures of requests."""
        entries: list[Entry] = []  # those of a group are written at once
        for event in events:
            match event:
                case RequestAnswered():
                    entries.append(self._on_answered(event, now))
                case AttemptFailed():
                    self._on_failed(event, now)
        if entries:
            self.recorder.add(*entries)

    def count_recorded(self, now: float) -> None:
        """Count the results that have reached the disk, and end the jobs that are complete with them."""
        complete = set()
        for entry in self.recorder.recorded():
            job = self.jobs.running.get(entry.job)
            if job is None:  # abandoned meanwhile
                continue
            job.on_recorded(entry, now)
            self.counters.on_recorded(entry.job, entry.counts, entry.model, entry.failure)
            self.history.on_recorded(entry.job, entry.counts)
            if job.counts.done >= job.header.requests:
                complete.add(entry.job)
        self.jobs.end_if_complete(*complete)

    def fail_unservable(self, now: float) -> bool:
        """Record requests as failures that have waited long enough for a model that no endpoint has.

        Returns:
            Whether there were any; more may follow.
        """
        coming = self.endpoints.fetcher.coming()
        unserved = self.scheduler.take_unservable(UNSERVABLE_A_TURN, now, coming)
        for job, ordinal, missing in unserved:
            line = self._line_of(job, ordinal)
            self._record_failure(self.jobs.running[job], ordinal, line, self._fault_of(missing), None)
        return bool(unserved)

    def _on_answered(self, event: RequestAnswered, now: float) -> Entry:
        lease, answer = event.lease, event.answer
        job = self.jobs.running[lease.job]
        job.note_work(lease.ordinal, now - lease.sent_at if answer.span is not None else None)
        if answer.span is not None:
            job.tokens.add(answer.counts.eval_tokens, now)
            if answer.counts.grouped == 0 or answer.counts.seconds:  # the first of a group has the seconds of its call
                self.pacing.on_answer(answer.counts.seconds)
            self.counters.on_attempt()
        self.observer.on_answer(job.header, lease, answer)
        return job.entry(lease.ordinal, answer.record, answer.counts, lease.signature)

    def _on_failed(self, event: AttemptFailed, now: float) -> None:
        lease, fault, is_final = event.lease, event.fault, event.is_final
        job = self.jobs.running[lease.job]
        job.work.note_lost(now - lease.sent_at)
        line = event.line or self._line_of(lease.job, lease.ordinal)
        logger.log(
            logging.WARNING if is_final else logging.INFO,
            "%s line %d on %s, attempt %d: %s%s",
            job.header.label,
            line,
            lease.endpoint,
            lease.attempt,
            fault.message,
            "" if is_final else "; it is sent again",
            extra={"action": "request_failed" if is_final else "attempt_failed", "job": lease.job, "line": line}
            | {"endpoint": lease.endpoint, "fault": fault.kind},
        )
        self.counters.on_attempt("" if is_final else fault.kind)
        if is_final:
            self._record_failure(job, lease.ordinal, line, fault, lease)
            if fault.is_refusal:
                self.jobs.on_refused(lease.job, lease.ordinal, lease.endpoint)

    def _line_of(self, job: str, ordinal: int) -> int:
        """Return a request's line number; 0 when it cannot be read in the job's folder."""
        try:
            return read_place(self.folder / job, ordinal).line
        except (OSError, ValueError, struct.error):
            return 0

    def _fault_of(self, missing: MissingModel) -> Fault:
        if missing.digest:
            return weights_missing(missing.model, missing.digest)
        return model_missing(missing.model, len(self.endpoints.members), self.endpoints.open_url)

    def _record_failure(self, job: RunningJob, ordinal: int, line: int, fault: Fault, lease: Lease | None) -> None:
        attempts, endpoint = (lease.attempt, lease.endpoint) if lease is not None else (0, "")
        if lease is not None and fault.remedy is Remedy.NEVER and not (fault.costs_attempt or fault.reached_model):
            attempts -= 1  # refused before it was sent
        failure = fault.failure(ordinal, line, attempts, endpoint)
        job.note_work(ordinal, None)
        signature = lease.signature if lease is not None else 0
        self.recorder.add(job.entry(ordinal, encode(failure), Counts.of(failure), signature, fault.kind))
        self.observer.on_failure(job.header, lease, line, fault)
