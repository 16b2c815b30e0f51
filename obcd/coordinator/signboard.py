"""What the coordinator shows in the outbox besides answers: how far each job is, and why a file waits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from obcd.coordinator.running import RunningJob
from obcd.spool.inbox import Key
from obcd.spool.job import JobHeader
from obcd.spool.layout import Layout
from obcd.spool.outbox import Signs

logger = logging.getLogger(__name__)

#: Seconds between two writings of a job's progress.
PROGRESS_SECONDS = 2.0


class Signboard:
    """Main thread only; `now` is monotonic seconds. A sign that cannot be written holds nothing up."""

    def __init__(self, layout: Layout) -> None:
        self._signs = Signs(layout)

    def clear(self) -> None:
        """Take away what an earlier coordinator left."""
        self._signs.clear()

    def end_progress(self, job: str) -> None:
        """Take a job's progress away."""
        self._signs.end_progress(job)

    def show_kept(self, header: JobHeader, report: Mapping[str, Any]) -> None:
        """Show a job that is kept apart, where its progress would be."""
        self._signs.show_progress(header, report)

    def show(self, jobs: Iterable[RunningJob], waiting: Mapping[Key, str], now: float, outage: str = "") -> None:
        """Show what is due; `outage` says why nothing can be asked at present."""
        for job in jobs:
            if now - job.shown_at >= PROGRESS_SECONDS and not job.trouble:
                job.shown_at = now
                try:
                    self._signs.show_progress(job.header, job.report(now, outage))
                except OSError as error:  # a full disk: the job goes on, the sign is stale
                    logger.debug("progress of %s not shown: %s", job.header.id, error.strerror)
        try:
            news = self._signs.show_waiting(dict(waiting))
        except OSError as error:
            logger.debug("waiting signs not shown: %s", error.strerror)
            return
        for key, why in news:
            name = ascii(f"{key.profile}/{key.name}" if key.profile else key.name)
            extra = {"action": "drop_waits", "profile": key.profile, "file": name[1:-1]}
            logger.info("%s waits: %s", name, why, extra=extra)
