"""Delete results that have been in the outbox for `[spool] keep_days`, at intervals, and those of trials soon."""

from __future__ import annotations

import logging

from obcd.clock import wall
from obcd.config.settings import Settings
from obcd.coordinator.clerk.calls import CallFailed, Sweep
from obcd.coordinator.clerk.clerk_process import Clerk
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox.retention import Swept
from obcd.text import printable

logger = logging.getLogger(__name__)

#: Seconds from the start to the first sweep of the outbox, and between two sweeps.
FIRST_SECONDS, SWEEP_SECONDS = 30.0, 3600.0
#: Seconds for which the folder of a trial is kept, so that a command on another machine can read it.
TRIAL_SECONDS = 300.0


class Sweeper:
    """Deletes old results. Main thread only; `now` is in monotonic seconds.

    It has its own clerk while a sweep is under way, so that no publication waits until thousands of jobs are deleted.
    """

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._spool = settings.spool
        self._clerk = Clerk("sweep", layout)
        self._sweep_at: float | None = None
        self._is_trouble_logged = False

    def configure(self, settings: Settings) -> None:
        """Keep results for as long as the configuration says now."""
        if settings.spool.keep_days != self._spool.keep_days:
            self._sweep_at = 0.0
        self._spool = settings.spool

    def on_trial(self, now: float) -> None:
        """Sweep when the folder of a trial, which was published now, may be deleted."""
        if self._sweep_at is not None:
            self._sweep_at = min(self._sweep_at, now + TRIAL_SECONDS + 1.0)

    def tick(self, now: float) -> None:
        """Sweep if a sweep is due, including hidden folders that a crash left, however long results are kept."""
        if self._sweep_at is None:
            self._sweep_at = now + FIRST_SECONDS
        self._clerk.tick(now)
        self._clerk.replace_stopped()
        if self._clerk.pending:
            return
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._clerk.submit(Sweep(self._spool.kept_since(wall()), wall() - TRIAL_SECONDS), self._on_swept)
        else:
            self._clerk.stop()

    def stop(self) -> None:
        """Stop the clerk; the folder that it was deleting is hidden already, and deleted by the next sweep."""
        self._clerk.stop()

    def _on_swept(self, outcome: Swept | CallFailed) -> None:
        if isinstance(outcome, CallFailed):
            trouble = outcome.reason
        else:
            trouble = outcome.trouble
            for job, folder in outcome.jobs:
                extra = {"action": "job_swept", "job": job}
                logger.info("job %s deleted after keep_days: %s", job, printable(folder), extra=extra)
            for job, folder in outcome.trials:
                extra = {"action": "trial_swept", "job": job}
                logger.info("the trial %s is deleted: %s", job, printable(folder), extra=extra)
            if not outcome.is_done:
                self._sweep_at = 0.0
        if trouble and not self._is_trouble_logged:
            text = "not all old results can be deleted: %s"
            logger.warning(text, printable(trouble), extra={"action": "sweep_failed"})
        self._is_trouble_logged = bool(trouble)
