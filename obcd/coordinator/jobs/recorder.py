"""The thread that writes ledgers: results are queued, and returned as recorded when they are on disk.

It is a thread because a sync can take seconds while another process writes a gigabyte, and the main loop must not wait
for it. While one sync is under way the next group gathers, so a slower disk gets larger groups.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from obcd.coordinator.disk_watch import DiskWatch
from obcd.coordinator.loop_waits import Waker
from obcd.core.answer.counts import Counts
from obcd.spool.job.ledger import LedgerWriter

#: Seconds to wait for more results between write and sync, and before a failed write is retried.
GATHER_SECONDS, RETRY_SECONDS = 0.025, 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One result to be written: its record, and what it adds to counts once it is on disk.

    Attributes:
        counts: Its part of the counts of its job.
        model: The canonical name of its model, "" if it has none.
        failure: Its class, if it is a failure; else "".
    """

    job: str
    record: bytes
    counts: Counts
    model: str = ""
    failure: str = ""


class Recorder:
    """Owns the open ledgers. `open`, `add`, `hurry`, `close_job`, `recorded`, `run_later` are the main thread's.

    Args:
        waker: Woken by the thread when results were recorded, or could not be.
        disk_watch: Notified by the thread of writes that the disk refuses.
    """

    def __init__(self, jobs: Path, waker: Waker, disk_watch: DiskWatch) -> None:
        self._jobs = jobs
        self._waker = waker
        self._disk_watch = disk_watch
        self._lock = threading.Lock()
        self._news, self._hurry = threading.Event(), threading.Event()
        self._entries: list[Entry] = []
        self._sizes: dict[str, int] = {}
        self._writers: dict[str, LedgerWriter] = {}
        self._closing: set[str] = set()
        self._recorded: deque[Entry] = deque()
        self._errands: deque[Callable[[], object]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def open(self, job: str, size: int) -> None:
        """Open a job whose ledger's valid part is `size` bytes long."""
        with self._lock:
            self._sizes[job] = size

    def add(self, *entries: Entry) -> None:
        """Queue results; they are written together."""
        self._hurry.clear()
        with self._lock:
            self._entries.extend(entries)
        self._news.set()

    def hurry(self) -> None:
        """Do not wait for more results until the next `add`: no request is in flight."""
        self._hurry.set()

    def recorded(self) -> list[Entry]:
        """Return the results that reached the disk after the last call."""
        entries = []
        while self._recorded:
            entries.append(self._recorded.popleft())
        return entries

    def run_later(self, errand: Callable[[], object]) -> None:
        """Have the thread do something else that waits for the disk, after the results; it raises nothing."""
        self._errands.append(errand)
        self._news.set()

    def close_job(self, job: str) -> None:
        """Close a job's ledger; all its results are recorded."""
        with self._lock:
            self._closing.add(job)
        self._news.set()

    def forget(self, job: str) -> None:
        """Drop a job whose folder is gone, with the results queued for it."""
        with self._lock:
            self._entries = [entry for entry in self._entries if entry.job != job]
            self._closing.add(job)
        self._news.set()

    def holds(self, job: str) -> bool:
        """Return whether results of a job are not on disk yet, or have not been returned by `recorded`."""
        with self._lock:
            return any(entry.job == job for entry in (*self._entries, *self._recorded))

    @property
    def pending(self) -> int:
        """The number of results that are not on disk yet."""
        return len(self._entries)

    def stop(self, seconds: float) -> None:
        """Record the queued results, for at most `seconds`, and end the thread."""
        self._stopping = True
        self._news.set()
        self._hurry.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            for writer in self._writers.values():
                writer.close()

    def _work(self) -> None:
        while self._entries or self._errands or not self._stopping:
            self._news.wait()
            self._news.clear()
            self._close_finished()
            while self._entries and not self._record():
                threading.Event().wait(RETRY_SECONDS)
                if self._stopping:
                    return
            self._disk_watch.relieve()  # all results are recorded, or dropped with their job
            while self._errands:
                self._errands.popleft()()

    def _record(self) -> bool:
        """Record the queued results; return False if the disk refused.

        They are written at once, so that a killed coordinator has lost nothing that it had received; after a short wait
        for more results, one sync covers all of them.
        """
        groups = self._write_news({})
        if groups is not None and not self._stopping:
            self._hurry.wait(GATHER_SECONDS)
            groups = self._write_news(groups)
        if groups is None:
            return False
        for job, group in groups.items():
            try:
                self._writers[job].sync()
            except OSError as error:
                self._give_up(error)
                return False
            self._sizes[job] = self._writers[job].size
            self._finish(group)
        return True

    def _write_news(self, written: dict[str, list[Entry]]) -> dict[str, list[Entry]] | None:
        """Write the results that are queued and not written yet.

        Returns:
            All written results by job; None if the disk refused: then all of them are written once more, because
            every writer without its sync is discarded.
        """
        known = {id(entry) for group in written.values() for entry in group}
        with self._lock:
            entries = [entry for entry in self._entries if id(entry) not in known]
        news: dict[str, list[Entry]] = {}
        for entry in entries:
            news.setdefault(entry.job, []).append(entry)
        for job, group in news.items():
            try:
                self._writer(job).write([entry.record for entry in group])
            except OSError as error:
                self._give_up(error)
                return None
            written.setdefault(job, []).extend(group)
        return written

    def _writer(self, job: str) -> LedgerWriter:
        if job not in self._writers:
            self._writers[job] = LedgerWriter(self._jobs / job, self._sizes[job])
        return self._writers[job]

    def _finish(self, group: list[Entry]) -> None:
        done = set(map(id, group))
        with self._lock:
            self._entries = [entry for entry in self._entries if id(entry) not in done]
        self._recorded.extend(group)
        if not self._entries:  # otherwise the next results wake the loop themselves
            self._waker.wake()

    def _give_up(self, error: OSError) -> None:
        for writer in self._writers.values():  # records written without a sync are cut off and written once more
            writer.close()
        self._writers.clear()
        self._disk_watch.refuse(error)
        self._waker.wake()

    def _close_finished(self) -> None:
        with self._lock:
            closing, self._closing = self._closing, set()
        for job in closing:
            writer = self._writers.pop(job, None)
            if writer is not None:
                writer.close()
            self._sizes.pop(job, None)
