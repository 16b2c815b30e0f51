"""Quarantine jobs that crash the coordinator repeatedly, and find out which of the suspected jobs does so.

    accepted ──────► started ─► result, or a quiet while ─► cleared
                       │
                       └ the coordinator dies: counted on disk; twice: a suspect; five times: quarantined

All jobs that run when the coordinator dies are counted. So suspects are started one at a time, those with the lowest
count first: the innocent are cleared one after the other, and only the culprit reaches five. Suspects keep their place
among the other jobs, or there would always be another job before them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from obcd.coordinator.clerk.calls import CallFailed, ClearCrashes, LoadJob, Release
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.running_job import RunningJob, idle_view
from obcd.coordinator.view import JobState, JobView
from obcd.spool.intake.recovery import LoadedJob
from obcd.spool.job import crash_count
from obcd.spool.job.job_folder import JobHeader

logger = logging.getLogger(__name__)

#: Seconds that a coordinator runs with a job before the job is cleared without a result: a crash so late leaves enough
#: time for the other jobs.
QUIET_SECONDS = 60.0
#: Seconds after which a job that could not be read from disk is retried.
DISK_SECONDS = 10.0


class Quarantine:
    """Main thread only; the clerk does the work on disk, except in `clear_all`. `now` is in monotonic seconds.

    Args:
        jobs: The folder of all jobs.
        clerks: The clerks that change the files.
        progress_folders: Shows a job that is set aside.
        counts: Whether starts are counted; not in `obcd batch`, whose user sees how the job ends.
    """

    def __init__(
        self,
        jobs: Path,
        clerks: ClerkPair,
        progress_folders: ProgressFolders,
        *,
        counts: bool = True,
    ) -> None:
        self._jobs = jobs
        self._clerks = clerks
        self._progress_folders = progress_folders
        self._counts = counts
        self._in_vain: dict[str, int] = {}
        #: {job that was started and is not cleared: (when, its results then; -1 while it is read)}
        self._begun: dict[str, tuple[float, int]] = {}
        #: {job that could not be read from disk: (when it is retried, the sentence about it, its header)}
        self._later: dict[str, tuple[float, str, JobHeader]] = {}
        #: Jobs that were released after the last `tick`.
        self._released: list[JobHeader] = []
        #: {job that is set aside, for good or until the next start: (its header, the sentence about it)}
        self._kept: dict[str, tuple[JobHeader, str]] = {}

    @property
    def kept(self) -> dict[str, JobHeader]:
        """The jobs that are set aside: QUARANTINED, or too damaged to be read."""
        return {job: header for job, (header, _) in self._kept.items()}

    @property
    def later(self) -> tuple[JobHeader, ...]:
        """The jobs that wait until they can be read from disk."""
        return tuple(header for _, _, header in self._later.values())

    def views(self) -> list[JobView]:
        """Return the views of the jobs that are set aside."""
        return [idle_view(header, JobState.QUARANTINED, trouble) for header, trouble in self._kept.values()]

    def troubles(self, damaged: Iterable[str] = ()) -> list[str]:
        """Return the sentences for people; `damaged` are job folders that cannot be read."""
        return [
            *(trouble for _, trouble in self._kept.values()),
            *(trouble for _, trouble, _ in self._later.values()),
            *(
                f"jobs/{job} is damaged and left as it is: drop its input.jsonl again, then delete the folder"
                for job in damaged
                if job not in self._kept
            ),
        ]

    def take_over(self, kept: Collection[JobHeader], in_vain: Mapping[str, int]) -> None:
        """Start with the findings of recovery."""
        self._in_vain.update(in_vain)
        for header in kept:
            self._keep(header, _blame(header))

    def suspicion(self, job: str) -> int:
        """Return how often a job was started in vain if that makes it a suspect, else 0."""
        times = self._in_vain.get(job, 0)
        return times if times >= crash_count.SUSPECT else 0

    @property
    def is_on_trial(self) -> bool:
        """Return whether a suspect was started and is not cleared yet."""
        return any(map(self.suspicion, self._begun))

    def begin(
        self,
        header: JobHeader,
        then: Callable[[LoadedJob | CallFailed | None], None],
        now: float,
        records: int | None = None,
    ) -> None:
        """Have the clerk read a job and count the start; `then` is called with the outcome.

        Args:
            records: As in `LoadJob`.
        """
        self._begun[header.id] = (now, -1)
        self._clerks.submit(LoadJob(header, is_counted=self._counts, records=records), then)

    def keeps(self, header: JobHeader, outcome: LoadedJob | CallFailed | None, now: float) -> bool:
        """Record the outcome of reading a job; return whether it is not run now, which is then fully dealt with."""
        if isinstance(outcome, LoadedJob):
            self._begun[header.id] = (now, outcome.replay.counts.done)
            return False
        self._begun.pop(header.id, None)
        if not self._counts:  # `obcd batch`: its user gets an error, and no status folder is written
            return False
        if outcome is None:
            self._keep(header, _blame(header))
            logger.error("%s", _blame(header), extra={"action": "job_quarantined", "job": header.id})
            return True
        if outcome.is_disk:
            why = f"{header.label} cannot be read: {outcome.reason}; obcd keeps trying"
            logger.error("%s", why, extra={"action": "load_failed", "job": header.id})
            self._later[header.id] = (now + DISK_SECONDS, why, header)
            return True
        self._keep(
            header, f"{header.label} cannot be run: {outcome.reason}; it is kept in jobs/{header.id}: examine it there"
        )
        return False

    def tick(self, running: Mapping[str, RunningJob], now: float) -> list[JobHeader]:
        """Clear jobs that have a new result or have run for a while.

        Returns:
            The jobs that may be started again: they were released, or have waited for the disk for long enough.
        """
        again, self._released = self._released, []
        for job in [job for job, (due, _, _) in self._later.items() if due <= now]:
            again.append(self._later.pop(job)[2])
        for job, (since, results) in list(self._begun.items()):
            item = running.get(job)
            if results >= 0 and (item is None or item.counts.done > results):  # gone, or the ledger has grown
                self._forget(job)
            elif now - since >= QUIET_SECONDS:
                self._forget(job)
                self._clerks.submit(ClearCrashes(job), _ignore)
        return again

    def clear_all(self) -> None:
        """Clear all started jobs: the coordinator stops in order, so none of them has crashed it."""
        for job in list(self._begun):
            self._forget(job)
            try:
                crash_count.clear(self._jobs / job)
            except OSError as error:
                extra = {"action": "acquit_failed", "job": job}
                logger.warning("the start of job %s stays counted: %s", job, error.strerror, extra=extra)

    def release(self, job: str) -> None:
        """End a job's quarantine, on disk first; a later `tick` returns the job. Any other job is ignored."""
        if job in self._kept:
            self._clerks.submit(Release(job), partial(self._on_released, job))

    def _on_released(self, job: str, outcome: CallFailed | None) -> None:
        if outcome is not None:
            extra = {"action": "release_failed", "job": job}
            logger.error("job %s cannot be released: %s", job, outcome.reason, extra=extra)
        elif job in self._kept:  # once, however often the release was requested
            header, _ = self._kept.pop(job)
            self._forget(job)
            self._progress_folders.end_progress(job)
            self._released.append(header)
            logger.info("%s is released and started again", header.label, extra={"action": "job_released", "job": job})

    def _keep(self, header: JobHeader, trouble: str) -> None:
        self._kept[header.id] = (header, trouble)
        self._progress_folders.show_kept(header, idle_view(header, JobState.QUARANTINED, trouble))

    def _forget(self, job: str) -> None:
        self._begun.pop(job, None)
        self._in_vain.pop(job, None)


def _blame(header: JobHeader) -> str:
    """Return the sentence about a job that crashed the coordinator repeatedly."""
    return (
        f"{header.label} is QUARANTINED: the coordinator died {crash_count.LIMIT} times after this job was started "
        f"and before a new result of it; it is kept in jobs/{header.id}, and the others continue. Look in the log for "
        f"the cause, then: obcd resume {header.id}"
    )


def _ignore(outcome: CallFailed | None) -> None:
    """Ignore the outcome of clearing a job: after a failure the job is only counted once more."""
