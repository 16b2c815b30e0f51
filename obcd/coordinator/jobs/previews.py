"""Which jobs show their results while they run: a clerk appends what is recorded to a file in the progress folder.

The clerk runs only while a job is shown. Nothing else waits for it, and recorder and ledger have no part in it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from obcd.coordinator.clerk.calls import CallFailed, ExtendPreview, ForgetPreview
from obcd.coordinator.clerk.clerk_process import Clerk
from obcd.coordinator.jobs.progress_folders import ProgressFolders
from obcd.coordinator.jobs.running_job import RunningJob
from obcd.coordinator.view import JobState
from obcd.spool.folders.layout import Layout

logger = logging.getLogger(__name__)

#: Seconds between two calls for one job, and after a call that the disk refused.
SHOW_SECONDS, RETRY_SECONDS = 0.5, 5.0


@dataclass(slots=True)
class _Shown:
    """A job whose results are shown.

    Attributes:
        done: How many requests have their result in the preview.
        due_at: When it may be extended.
        asked: The number that the clerk is adding up to; None while it has no call for this job.
    """

    partial: Path
    done: int = -1
    due_at: float = 0.0
    asked: int | None = None


class Previews:
    """The previews of all jobs. Main thread only; `now` is in monotonic seconds.

    Args:
        running: The running jobs, by id.
    """

    def __init__(self, layout: Layout, running: Mapping[str, RunningJob], folders: ProgressFolders) -> None:
        self._clerk = Clerk("preview", layout)
        self._running = running
        self._folders = folders
        self._wanted: frozenset[str] = frozenset()
        self._shown: dict[str, _Shown] = {}
        #: Jobs whose results cannot be shown, until nobody wants to see them any more.
        self._failed: set[str] = set()
        self._now = 0.0

    def show(self, jobs: frozenset[str]) -> None:
        """Show exactly these jobs, as far as they run."""
        self._wanted = jobs
        self._failed &= jobs

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptor to wait on, if a clerk runs."""
        descriptor = self._clerk.fileno()
        return () if descriptor is None else (descriptor,)

    def next_due(self) -> float | None:
        """Return when the next preview is to be extended; None: not before something happens."""
        due = [shown.due_at for job, shown in self._shown.items() if shown.asked is None and self._has_news(job, shown)]
        return min(due, default=None)

    def tick(self, now: float, readable: Collection[int], *, has_room: bool) -> None:
        """Extend the previews that are due, and remove those that are not wanted any more."""
        self._now = now
        if not (self._wanted or self._shown or self._clerk.pending):
            self._clerk.stop()
            return
        self._clerk.tick(now, readable)
        going = {job for job in self._wanted - self._failed if has_room and self._is_going(job)}
        for job in [job for job in self._shown if job not in going]:
            self._hide(job)
        for job in going:
            self._extend(job)

    def replace_stopped(self) -> None:
        """Replace a clerk that was stopped from outside."""
        self._clerk.replace_stopped()

    def stop(self) -> None:
        """Stop the clerk; the progress folders are removed with the previews in them."""
        self._clerk.stop()

    def _is_going(self, job: str) -> bool:
        running = self._running.get(job)
        return running is not None and running.state is not JobState.COMPLETE

    def _has_news(self, job: str, shown: _Shown) -> bool:
        running = self._running.get(job)
        return running is not None and running.counts.done > shown.done

    def _extend(self, job: str) -> None:
        folder = self._folders.find_partial(job)
        if folder is None:  # the thread of the progress folders has not made it yet
            return
        shown = self._shown.get(job)
        if shown is None or shown.partial != folder:
            shown = self._shown[job] = _Shown(folder)
        if shown.asked is None and self._now >= shown.due_at and self._has_news(job, shown):
            running = self._running[job]
            shown.asked = running.counts.done
            call = ExtendPreview(running.header, folder, running.counts.done)
            self._clerk.submit(call, partial(self._on_extended, job, shown))

    def _on_extended(self, job: str, shown: _Shown, outcome: bool | CallFailed) -> None:
        asked, shown.asked = shown.asked, None
        if not isinstance(outcome, CallFailed):
            shown.due_at = self._now + SHOW_SECONDS if outcome else self._now
            shown.done = asked if outcome and asked is not None else shown.done
            return
        shown.due_at = self._now + RETRY_SECONDS
        extra = {"action": "preview_failed", "job": job}
        if outcome.is_disk:  # e.g. the progress folder was removed, and is made again
            logger.debug("the results of job %s are not shown: %s", job, outcome.reason, extra=extra)
            return
        self._failed.add(job)
        logger.error("the results of job %s cannot be shown before its end: %s", job, outcome.reason, extra=extra)

    def _hide(self, job: str) -> None:
        shown = self._shown.pop(job)
        folder = shown.partial if self._is_going(job) else None
        self._clerk.submit(ForgetPreview(job, folder), partial(self._on_hidden, job))

    def _on_hidden(self, job: str, outcome: CallFailed | None) -> None:
        if outcome is not None:
            extra = {"action": "preview_failed", "job": job}
            logger.debug("the preview of job %s is not removed: %s", job, outcome.reason, extra=extra)
