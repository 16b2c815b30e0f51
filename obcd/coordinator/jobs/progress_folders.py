"""The status folders that the coordinator shows in the outbox: the progress of each job, and why a file waits."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from obcd.coordinator.jobs.running_job import RunningJob, no_obstacle
from obcd.coordinator.view import JobView
from obcd.logs.setup import fault_text
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Key
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox.status_folders import StatusFolders

logger = logging.getLogger(__name__)

#: Seconds between two updates of a job's progress.
PROGRESS_SECONDS = 2.0
#: Seconds between two updates of the waiting files.
LOOK_SECONDS = 0.1
#: The number of errands that may wait for the disk.
MOST_ERRANDS = 1000


class ProgressFolders:
    """Has a thread write the status folders, in order: a slow disk holds up nothing else.

    Only the main thread calls the methods; `now` is in monotonic seconds. A folder that cannot be written is skipped.
    """

    def __init__(self, layout: Layout) -> None:
        self._folders = StatusFolders(layout)
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: The reasons last shown for waiting files, and when they are shown again: a failed write is retried then.
        self._waiting: dict[Key, str] = {}
        self._again_at = self._look_at = 0.0

    def clear(self) -> None:
        """Remove the status folders that an earlier coordinator left."""
        self._do(self._folders.clear)

    def find_partial(self, job: str) -> Path | None:
        """Return a job's progress folder, None while it has none."""
        return self._folders.find_partial(job)

    def end_progress(self, job: str) -> None:
        """Remove a job's progress folder."""
        self._do(partial(self._folders.end_progress, job))

    def show_kept(self, header: JobHeader, view: JobView) -> None:
        """Show a job that is set aside, in place of its progress, with the reason."""
        self._do(partial(self._folders.show_progress, header, view.to_json(), view.trouble))

    def show(
        self,
        jobs: Iterable[RunningJob],
        waiting: Callable[[], Mapping[Key, str]],
        now: float,
        obstacles: Callable[[], Callable[[str], str]],
    ) -> None:
        """Write the status folders that are due.

        Args:
            waiting: Returns why files wait; there may be thousands.
            obstacles: Returns the function that says why no request of a job can be sent at present.
        """
        if self._errands.qsize() > MOST_ERRANDS:  # the disk hangs; the folders are stale anyway
            return
        due = [job for job in jobs if now - job.shown_at >= PROGRESS_SECONDS and not job.trouble]
        obstacle = obstacles() if due else no_obstacle
        for job in due:
            job.shown_at = now
            document = job.view(now, obstacle(job.header.id)).to_json()
            self._do(partial(self._folders.show_progress, job.header, document, job.held))
        if now < self._look_at:
            return
        self._look_at, found = now + LOOK_SECONDS, waiting()
        if found != self._waiting or now >= self._again_at:
            self._waiting, self._again_at = dict(found), now + PROGRESS_SECONDS
            self._do(partial(self._show_waiting, self._waiting))

    def finish(self, seconds: float) -> None:
        """Write the errands that are still queued, for at most so long, and end."""
        if self._thread is not None:
            self._errands.put(None)
            self._thread.join(seconds)
            self._thread = None

    def _do(self, errand: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="status-folders", daemon=True)
            self._thread.start()
        self._errands.put(errand)

    def _work(self) -> None:
        while (errand := self._errands.get()) is not None:
            try:
                errand()
            except Exception as error:  # noqa: BLE001 - without the thread no status folder would be written any more
                logger.debug("a status folder was not shown: %s", fault_text(error), extra={"action": "sign_failed"})

    def _show_waiting(self, waiting: Mapping[Key, str]) -> None:
        for key, why in self._folders.show_waiting(waiting):
            name = ascii(f"{key.profile}/{key.name}" if key.profile else key.name)
            extra = {"action": "drop_waits", "profile": key.profile, "file": name[1:-1]}
            logger.info("%s waits: %s", name, why, extra=extra)
