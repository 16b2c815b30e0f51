"""Which accepted job is begun next, and which one no more, since it ended coordinator after coordinator.

    accepted ─take─► begun ─► result, or a quiet while ─► acquitted
                       │
                       └ the coordinator dies: counted on disk; twice: a suspect; five times: kept apart

Jobs that run at the same moment are all counted when the coordinator dies. So suspects are begun one at a time, those
that were counted the least first: the innocent are acquitted one after the other, and only the culprit gets to five.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from obcd.clock import monotonic
from obcd.coordinator.clerk import Clerk, Done, Failed
from obcd.coordinator.running import RunningJob
from obcd.coordinator.signboard import Signboard
from obcd.spool import quarantine
from obcd.spool.job import JobHeader

logger = logging.getLogger(__name__)

#: Seconds that a coordinator lives with a job before it is acquitted without a result: what dies so late leaves the
#: other jobs time enough.
QUIET_SECONDS = 60.0


def choose(accepted: Sequence[JobHeader], in_vain: Mapping[str, int], *, is_busy: bool) -> int | None:
    """Return which of the accepted jobs is begun next, None when only suspects are left and one is on trial. Pure.

    Args:
        in_vain: `{job: how often it was begun in vain}`.
        is_busy: Whether a suspect is on trial.
    """
    best, least = None, 0
    for number, header in enumerate(accepted):
        times = in_vain.get(header.id, 0)
        if times < quarantine.SUSPECT:
            return number
        if not is_busy and (best is None or times < least):
            best, least = number, times
    return best


class Quarantine:
    """Main thread only; what is done on disk is the clerk's, but for `acquit_all`.

    Args:
        jobs: The folder of all jobs.
        clerk: Who changes the files.
        signs: Where a job that is kept apart is shown.
        counts: Whether beginnings are counted; who runs one job in the foreground sees what becomes of it.
    """

    def __init__(self, jobs: Path, clerk: Clerk, signs: Signboard, *, counts: bool = True) -> None:
        self._jobs = jobs
        self._clerk = clerk
        self._signs = signs
        self._call = "begin_job" if counts else "load_job"
        self._in_vain: dict[str, int] = {}
        #: {job that was begun and is not acquitted: (when, its results then; -1 while it is read)}
        self._begun: dict[str, tuple[float, int]] = {}
        #: The jobs that are kept apart.
        self.kept: dict[str, JobHeader] = {}

    def take_over(self, kept: Collection[JobHeader], in_vain: Mapping[str, int]) -> None:
        """Begin with what recovery found."""
        self._in_vain.update(in_vain)
        for header in kept:
            self._keep(header)

    def take(self, accepted: deque[JobHeader], running: Mapping[str, RunningJob]) -> JobHeader | None:
        """Take the job to begin next out of the accepted ones; None when that has to wait."""
        now = monotonic()
        self.turn(running, now)
        is_busy = any(self._in_vain.get(job, 0) >= quarantine.SUSPECT for job in self._begun)
        number = choose(accepted, self._in_vain, is_busy=is_busy)
        if number is None:
            return None
        header = accepted[number]
        del accepted[number]
        self._begun[header.id] = (now, -1)
        return header

    def begin(self, header: JobHeader, then: Callable[[Done | Failed], None]) -> None:
        """Have a job read, and that counted."""
        self._clerk.ask(then, self._call, header.id)

    def keeps(self, header: JobHeader, outcome: Done | Failed) -> bool:
        """Take note of a job that was read; True when it is kept apart instead of run."""
        if isinstance(outcome, Failed):
            self._begun.pop(header.id, None)
            return False
        if outcome.value is not None:
            return False
        self._begun.pop(header.id, None)
        logger.error("%s", trouble_of(header), extra={"action": "job_quarantined", "job": header.id})
        self._keep(header)
        return True

    def turn(self, running: Mapping[str, RunningJob], now: float) -> None:
        """Acquit who has a new result, and who has been there for a while."""
        for job, (since, results) in list(self._begun.items()):
            item = running.get(job)
            if item is not None and results < 0:
                self._begun[job] = (since, item.counts.done)
            elif results >= 0 and (item is None or item.counts.done > results):  # gone, or the ledger has grown
                self._forget(job)
            elif now - since >= QUIET_SECONDS:
                self._forget(job)
                self._clerk.ask(_ignore, "acquit", job)

    def acquit_all(self) -> None:
        """Acquit all that were begun: the coordinator is told to stop, so none of them ends it."""
        for job in list(self._begun):
            self._forget(job)
            try:
                quarantine.acquit(self._jobs / job)
            except OSError as error:
                extra = {"action": "acquit_failed", "job": job}
                logger.warning("job %s cannot be acquitted: %s", job, error.strerror, extra=extra)

    def release(self, job: str, then: Callable[[JobHeader], None]) -> bool:
        """End a job's quarantine on disk, and call `then` with its header when that is done; False: it is in none."""
        header = self.kept.get(job)
        if header is None:
            return False

        def take_released(outcome: Done | Failed) -> None:
            if isinstance(outcome, Failed):
                extra = {"action": "release_failed", "job": job}
                logger.error("job %s cannot be released: %s", job, outcome.reason, extra=extra)
            elif self.kept.pop(job, None) is not None:
                self._in_vain.pop(job, None)
                self._signs.end_progress(job)
                logger.info(
                    "%s is released and begun again", header.label, extra={"action": "job_released", "job": job}
                )
                then(header)

        self._clerk.ask(take_released, "release", job)
        return True

    def troubles(self) -> list[str]:
        """Return what people have to know of the jobs that are kept apart."""
        return [trouble_of(header) for header in self.kept.values()]

    def _keep(self, header: JobHeader) -> None:
        self.kept[header.id] = header
        self._signs.show_kept(header, trouble_of(header))

    def _forget(self, job: str) -> None:
        self._begun.pop(job, None)
        self._in_vain.pop(job, None)


def trouble_of(header: JobHeader) -> str:
    """Return the sentence about a job that is kept apart."""
    return (
        f"{header.label} is QUARANTINED: the coordinator ended {quarantine.LIMIT} times with this job begun and before "
        f"a new result of it; it is kept in jobs/{header.id}, and the others go on. Look in the log for what ended it, "
        f"then: obcd resume {header.id}"
    )


def _ignore(outcome: Done | Failed) -> None:
    """Take what came of an acquittal: where it failed, the job is only counted once more."""
