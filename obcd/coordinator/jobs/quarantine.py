"""Which job is begun no more, since it ended coordinator after coordinator, and which ones are suspected of it.

    accepted ──────► begun ─► result, or a quiet while ─► acquitted
                       │
                       └ the coordinator dies: counted on disk; twice: a suspect; five times: kept apart

Jobs that run at the same moment are all counted when the coordinator dies. So suspects are begun one at a time, those
that were counted the least first: the innocent are acquitted one after the other, and only the culprit gets to five.
Suspects keep their place among the others, or there would always be another one before them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from obcd.clock import monotonic
from obcd.coordinator.clerk.clerk_pair import ClerkPair, is_large_job
from obcd.coordinator.clerk.clerk_process import CallDone, CallFailed
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.running_job import RunningJob, idle_view
from obcd.coordinator.view import JobState, JobView
from obcd.spool.job import crash_count
from obcd.spool.job.job_folder import JobHeader

logger = logging.getLogger(__name__)

#: Seconds that a coordinator lives with a job before it is acquitted without a result: what dies so late leaves the
#: other jobs time enough.
QUIET_SECONDS = 60.0
#: Seconds after which a job that the disk did not let us read is tried again.
DISK_SECONDS = 10.0


class Quarantine:
    """Main thread only; what is done on disk is the clerk's, but for `acquit_all`.

    Args:
        back: Called with a job that may be begun again.
        jobs: The folder of all jobs.
        clerks: Who change the files.
        signs: Where a job that is kept apart is shown.
        counts: Whether beginnings are counted; who runs one job in the foreground sees what becomes of it.
    """

    def __init__(
        self,
        back: Callable[[JobHeader], None],
        jobs: Path,
        clerks: ClerkPair,
        signs: ProgressFolders,
        *,
        counts: bool = True,
    ) -> None:
        self._back = back
        self._jobs = jobs
        self._clerks = clerks
        self._signs = signs
        self._counts = counts
        self._in_vain: dict[str, int] = {}
        #: {job that was begun and is not acquitted: (when, its results then; -1 while it is read)}
        self._begun: dict[str, tuple[float, int]] = {}
        #: {job that the disk did not let us read: (when it is tried again, the sentence about it, its header)}
        self._later: dict[str, tuple[float, str, JobHeader]] = {}
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
        """Tell whether a suspect was begun and is not acquitted yet."""
        return any(map(self.suspicion, self._begun))

    def begin(self, header: JobHeader, then: Callable[[CallDone | CallFailed], None]) -> None:
        """Have a job read, and that counted."""
        self._begun[header.id] = (monotonic(), -1)
        name = "begin_job" if self._counts else "load_job"
        self._clerks.ask(then, name, header.id, is_large=is_large_job(header))

    def keeps(self, header: JobHeader, outcome: CallDone | CallFailed) -> bool:
        """Take note of what came of reading a job; True when it is not run now, and all is said and done about that."""
        if isinstance(outcome, CallDone) and outcome.value is not None:
            self._begun[header.id] = (monotonic(), outcome.value.replay.counts.done)
            return False
        self._begun.pop(header.id, None)
        if not self._counts:  # somebody watches, and is told by an error; no sign is put into his folder
            return False
        if isinstance(outcome, CallDone):
            self._keep(header, _blame(header))
            logger.error("%s", _blame(header), extra={"action": "job_quarantined", "job": header.id})
            return True
        if outcome.is_disk:
            why = f"{header.label} cannot be read: {outcome.reason}; obcd tries again by itself"
            logger.error("%s", why, extra={"action": "load_failed", "job": header.id})
            self._later[header.id] = (monotonic() + DISK_SECONDS, why, header)
            return True
        self._keep(
            header, f"{header.label} cannot be run: {outcome.reason}; it is kept in jobs/{header.id}: look at it"
        )
        return False

    def tick(self, running: Mapping[str, RunningJob], now: float) -> None:
        """Acquit who has a new result, and who has been there for a while; let in again who waited for the disk."""
        for job in [job for job, (due, _, _) in self._later.items() if due <= now]:
            self._back(self._later.pop(job)[2])
        for job, (since, results) in list(self._begun.items()):
            item = running.get(job)
            if results >= 0 and (item is None or item.counts.done > results):  # gone, or the ledger has grown
                self._forget(job)
            elif now - since >= QUIET_SECONDS:
                self._forget(job)
                self._clerks.ask(_ignore, "acquit", job)

    def acquit_all(self) -> None:
        """Acquit all that were begun: the coordinator is told to stop, so none of them ends it."""
        for job in list(self._begun):
            self._forget(job)
            try:
                crash_count.acquit(self._jobs / job)
            except OSError as error:
                extra = {"action": "acquit_failed", "job": job}
                logger.warning("job %s cannot be acquitted: %s", job, error.strerror, extra=extra)

    def release(self, job: str) -> bool:
        """End a job's quarantine, on disk first, and have it begun again; False when it is in none."""
        if job not in self._kept:
            return False
        self._clerks.ask(partial(self._on_released, job), "release", job)
        return True

    def _on_released(self, job: str, outcome: CallDone | CallFailed) -> None:
        if isinstance(outcome, CallFailed):
            extra = {"action": "release_failed", "job": job}
            logger.error("job %s cannot be released: %s", job, outcome.reason, extra=extra)
        elif job in self._kept:  # asked for once, however often
            header, _ = self._kept.pop(job)
            self._forget(job)
            self._signs.end_progress(job)
            self._back(header)
            logger.info("%s is released and begun again", header.label, extra={"action": "job_released", "job": job})

    def _keep(self, header: JobHeader, trouble: str) -> None:
        self._kept[header.id] = (header, trouble)
        self._signs.show_kept(header, idle_view(header, JobState.QUARANTINED, trouble))

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


def _ignore(outcome: CallDone | CallFailed) -> None:
    """Take what came of an acquittal: where it failed, the job is only counted once more."""
