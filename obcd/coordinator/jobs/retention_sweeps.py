"""Has the answers deleted that have lain in the outbox for `[spool] keep_days`, now and then."""

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

#: Seconds from the start to the first look at the whole outbox, and between two.
FIRST_SECONDS, SWEEP_SECONDS = 30.0, 3600.0


class Sweeper:
    """Main thread only; `now` is monotonic seconds.

    It has a clerk of its own, for as long as one works: what is published need not wait until thousands are deleted.
    """

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._spool = settings.spool
        self._clerk = Clerk("sweep", layout)
        self._sweep_at: float | None = None
        self._is_trouble_told = False

    def configure(self, settings: Settings) -> None:
        """Keep answers for as long as the configuration says now."""
        if settings.spool.keep_days != self._spool.keep_days:
            self._sweep_at = 0.0
        self._spool = settings.spool

    def tick(self, now: float) -> None:
        """Sweep if it is time, and then also what a crash left hidden, however long answers are kept."""
        if self._sweep_at is None:
            self._sweep_at = now + FIRST_SECONDS
        self._clerk.tick(now)
        self._clerk.replace_stopped()
        if self._clerk.pending:
            return
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._clerk.submit(Sweep(self._spool.kept_since(wall())), self._on_swept)
        else:
            self._clerk.stop()

    def stop(self) -> None:
        """End the clerk; what it was at is hidden, and deleted the next time."""
        self._clerk.stop()

    def _on_swept(self, outcome: Swept | CallFailed) -> None:
        if isinstance(outcome, CallFailed):
            trouble = outcome.reason
        else:
            trouble = outcome.trouble
            for job, folder in outcome.jobs:
                extra = {"action": "job_swept", "job": job}
                logger.info("job %s deleted after its time: %s", job, printable(folder), extra=extra)
            if not outcome.is_done:
                self._sweep_at = 0.0
        if trouble and not self._is_trouble_told:
            text = "not all old answers can be deleted: %s"
            logger.warning(text, printable(trouble), extra={"action": "sweep_failed"})
        self._is_trouble_told = bool(trouble)
