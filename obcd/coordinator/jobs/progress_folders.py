"""What the coordinator shows in the outbox besides answers: how far each job is, and why a file waits."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from obcd.coordinator.jobs.running_job import RunningJob
from obcd.coordinator.view import JobView
from obcd.logs.setup import fault_text
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Key
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox.status_folders import StatusFolders

logger = logging.getLogger(__name__)

#: Seconds between two writings of a job's progress.
PROGRESS_SECONDS = 2.0
#: Seconds between two looks at what waits.
LOOK_SECONDS = 0.1
#: Errands that may wait for the disk.
MOST_ERRANDS = 1000


class ProgressFolders:
    """Has a thread write the status folders, in order: a disk that takes its time holds nothing else up.

    The rest is the main thread's; `now` is monotonic seconds. A folder that cannot be written is passed over.
    """

    def __init__(self, layout: Layout) -> None:
        self._folders = StatusFolders(layout)
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: What was said of waiting files, and when it is said again: one that could not be shown is tried again.
        self._waiting: dict[Key, str] = {}
        self._again_at = self._look_at = 0.0

    def clear(self) -> None:
        """Take away what an earlier coordinator left."""
        self._do(self._folders.clear)

    def end_progress(self, job: str) -> None:
        """Take a job's progress away."""
        self._do(partial(self._folders.end_progress, job))

    def show_kept(self, header: JobHeader, view: JobView) -> None:
        """Show a job that is kept apart, where its progress would be."""
        self._do(partial(self._folders.show_progress, header, view.to_json()))

    def show(
        self,
        jobs: Iterable[RunningJob],
        waiting: Callable[[], Mapping[Key, str]],
        now: float,
        outage: Callable[[], str],
    ) -> None:
        """Show what is due.

        Args:
            waiting: Returns why files wait, of which there may be thousands.
            outage: Returns why nothing can be asked at present.
        """
        if self._errands.qsize() > MOST_ERRANDS:  # the disk hangs; what is shown is stale anyway
            return
        for job in jobs:
            if now - job.shown_at >= PROGRESS_SECONDS and not job.trouble:
                job.shown_at = now
                self._do(partial(self._folders.show_progress, job.header, job.view(now, outage()).to_json()))
        if now < self._look_at:
            return
        self._look_at, found = now + LOOK_SECONDS, waiting()
        if found != self._waiting or now >= self._again_at:
            self._waiting, self._again_at = dict(found), now + PROGRESS_SECONDS
            self._do(partial(self._show_waiting, self._waiting))

    def finish(self, seconds: float) -> None:
        """Write what is due yet, for at most so long, and end."""
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
            except Exception as error:  # noqa: BLE001 - without the thread nothing would be shown any more
                logger.debug("a status folder was not shown: %s", fault_text(error), extra={"action": "sign_failed"})

    def _show_waiting(self, waiting: Mapping[Key, str]) -> None:
        for key, why in self._folders.show_waiting(waiting):
            name = ascii(f"{key.profile}/{key.name}" if key.profile else key.name)
            extra = {"action": "drop_waits", "profile": key.profile, "file": name[1:-1]}
            logger.info("%s waits: %s", name, why, extra=extra)
