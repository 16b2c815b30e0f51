"""Which job is begun no more, since it ended coordinator after coordinator, and which ones are suspected of it.

    accepted ──────► begun ─► result, or a quiet while ─► cleared
                       │
                       └ the coordinator dies: counted on disk; twice: a suspect; five times: kept apart

Jobs that run at the same moment are all counted when the coordinator dies. So suspects are begun one at a time, those
that were counted the least first: the innocent are cleared one after the other, and only the culprit gets to five.
Suspects keep their place among the others, or there would always be another one before them.
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

#: Seconds that a coordinator lives with a job before it is cleared without a result: what dies so late leaves the
#: other jobs time enough.
QUIET_SECONDS = 60.0
#: Seconds after which a job that the disk did not let us read is tried again.
DISK_SECONDS = 10.0


class Quarantine:
    """Main thread only; what is done on disk is the clerk's, except in `clear_all`. `now` is monotonic seconds.

    Args:
        jobs: The folder of all jobs.
        clerks: Who change the files.
        progress_folders: Where a job that is kept apart is shown.
        counts: Whether beginnings are counted; who runs one job in the foreground sees what becomes of it.
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
        #: {job that was begun and is not cleared: (when, its results then; -1 while it is read)}
        self._begun: dict[str, tuple[float, int]] = {}
        #: {job that the disk did not let us read: (when it is tried again, the sentence about it, its header)}
        self._later: dict[str, tuple[float, str, JobHeader]] = {}
        #: Jobs that were released since the last `tick`.
        self._released: list[JobHeader] = []
        #: {job that is kept apart, for good or until the next start: (its header, the sentence about it)}
        self._kept: dict[str, tuple[JobHeader, str]] = {}

    @property
    def kept(self) -> dict[str, JobHeader]:
        """The jobs that are kept apart: QUARANTINED, or damaged beyond being read."""
        return {job: header for job, (header, _) in self._kept.items()}

    @property
    def later(self) -> tuple[JobHeader, ...]:
        """The jobs that wait until the disk can be read."""
        return tuple(header for _, _, header in self._later.values())

    def views(self) -> list[JobView]:
        """Return what is shown of the jobs that are kept apart."""
        return [idle_view(header, JobState.QUARANTINED, trouble) for header, trouble in self._kept.values()]

    def troubles(self, damaged: Iterable[str] = ()) -> list[str]:
        """Return what people have to know; `damaged` are jobs' folders that cannot be read."""
        return [
            *(trouble for _, trouble in self._kept.values()),
            *(trouble for _, trouble, _ in self._later.values()),
            *(
                f"jobs/{job} is damaged and left as it is: drop its input.jsonl again, then remove it"
                for job in damaged
                if job not in self._kept
            ),
        ]

    def take_over(self, kept: Collection[JobHeader], in_vain: Mapping[str, int]) -> None:
        """Begin with what recovery found."""
        self._in_vain.update(in_vain)
        for header in kept:
            self._keep(header, _blame(header))

    def suspicion(self, job: str) -> int:
        """Return how often a job was begun in vain, where that makes it a suspect; else 0."""
        times = self._in_vain.get(job, 0)
        return times if times >= crash_count.SUSPECT else 0

    @property
    def is_on_trial(self) -> bool:
        """Return whether a suspect was begun and is not cleared yet."""
        return any(map(self.suspicion, self._begun))

    def begin(self, header: JobHeader, then: Callable[[LoadedJob | CallFailed | None], None], now: float) -> None:
        """Have a job read, and that counted; `then` is called with what came of it."""
        self._begun[header.id] = (now, -1)
        self._clerks.submit(LoadJob(header, is_counted=self._counts), then)

    def keeps(self, header: JobHeader, outcome: LoadedJob | CallFailed | None, now: float) -> bool:
        """Record what came of reading a job; return whether it is not run now, and all is said and done about that."""
        if isinstance(outcome, LoadedJob):
            self._begun[header.id] = (now, outcome.replay.counts.done)
            return False
        self._begun.pop(header.id, None)
        if not self._counts:  # somebody watches, and gets an error; no status folder is put there
            return False
        if outcome is None:
            self._keep(header, _blame(header))
            logger.error("%s", _blame(header), extra={"action": "job_quarantined", "job": header.id})
            return True
        if outcome.is_disk:
            why = f"{header.label} cannot be read: {outcome.reason}; obcd tries again by itself"
            logger.error("%s", why, extra={"action": "load_failed", "job": header.id})
            self._later[header.id] = (now + DISK_SECONDS, why, header)
            return True
        self._keep(
            header, f"{header.label} cannot be run: {outcome.reason}; it is kept in jobs/{header.id}: look at it"
        )
        return False

    def tick(self, running: Mapping[str, RunningJob], now: float) -> list[JobHeader]:
        """Clear what has a new result, and what has been there for a while.

        Returns:
            The jobs that may be begun again: they were released, or waited for the disk for long enough.
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
        """Clear all that were begun: the coordinator stops in order, so none of them ends it."""
        for job in list(self._begun):
            self._forget(job)
            try:
                crash_count.clear(self._jobs / job)
            except OSError as error:
                extra = {"action": "acquit_failed", "job": job}
                logger.warning("the beginning of job %s stays counted: %s", job, error.strerror, extra=extra)

    def release(self, job: str) -> None:
        """End a job's quarantine, on disk first; a later `tick` returns it. One that is in none is passed over."""
        if job in self._kept:
            self._clerks.submit(Release(job), partial(self._on_released, job))

    def _on_released(self, job: str, outcome: CallFailed | None) -> None:
        if outcome is not None:
            extra = {"action": "release_failed", "job": job}
            logger.error("job %s cannot be released: %s", job, outcome.reason, extra=extra)
        elif job in self._kept:  # asked for once, however often
            header, _ = self._kept.pop(job)
            self._forget(job)
            self._progress_folders.end_progress(job)
            self._released.append(header)
            logger.info("%s is released and begun again", header.label, extra={"action": "job_released", "job": job})

    def _keep(self, header: JobHeader, trouble: str) -> None:
        self._kept[header.id] = (header, trouble)
        self._progress_folders.show_kept(header, idle_view(header, JobState.QUARANTINED, trouble))

    def _forget(self, job: str) -> None:
        self._begun.pop(job, None)
        self._in_vain.pop(job, None)


def _blame(header: JobHeader) -> str:
    """Return the sentence about a job that ended coordinators."""
    return (
        f"{header.label} is QUARANTINED: the coordinator ended {crash_count.LIMIT} times with this job begun and "
        f"before a new result of it; it is kept in jobs/{header.id}, and the others go on. Look in the log for "
        f"what ended it, then: obcd resume {header.id}"
    )


def _ignore(outcome: CallFailed | None) -> None:
    """Take what came of clearing a job: where it failed, the job is only counted once more."""
