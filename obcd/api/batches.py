"""The batches of all users: made, looked at, cancelled, and carried on by threads.

A batch that was made is never lost: its record is durable before its maker hears of it, and a thread drops its file,
again after a crash. Another thread looks at unfinished batches, so that their end is known even if nobody asks before
the outbox is swept.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.api.batch_drops import BatchDrops
from obcd.api.batch_records import BatchRecord, BatchStep, read_record, write_record
from obcd.api.forms.batch_request import BatchRequest
from obcd.api.forms.identifiers import BATCH, FILE, OUTPUTS, core_of, new_core, split_output
from obcd.api.forms.refusals import invalid, missing, over_quota
from obcd.api.job_state import find_end, find_progress, is_in_inbox
from obcd.api.token_file import ApiUser
from obcd.api.uploads import Uploads, file_object
from obcd.clock import wall
from obcd.errors import ObcdError
from obcd.logs.setup import fault_text
from obcd.spool.folders import disk

logger = logging.getLogger(__name__)

#: Unfinished batches of one user.
MOST_UNFINISHED = 1000
#: A file of more bytes is dropped by a separate thread, so that no small one waits for it.
LARGE_BYTES = 2**24
#: Seconds between two looks at unfinished batches, and at what is to be deleted.
LOOK_SECONDS, SWEEP_SECONDS = 10.0, 3600.0
#: Seconds for which a client's second attempt to make the same batch gets the first one.
AGAIN_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file with the results of a batch."""

    path: Path
    facts: dict[str, object]


class Batches:
    """All batches. Any thread may call it.

    Args:
        folder: `root/api`.
        profile: The profile of new batches, "" for none.
        keep_seconds: How long the record of a finished batch is kept.
    """

    def __init__(self, drops: BatchDrops, uploads: Uploads, profile: str, keep_seconds: float) -> None:
        self._drops, self._uploads = drops, uploads
        self._layout = drops.layout
        self._profile, self._keep_seconds = profile, keep_seconds
        #: Held while a record is read, changed and written; never while a file is copied.
        self._lock = threading.RLock()
        #: {(user, id of a batch that is not over)}
        self._unfinished: set[tuple[int, str]] = set()
        self._queues: dict[bool, queue.SimpleQueue[tuple[int, str] | None]] = {
            is_large: queue.SimpleQueue() for is_large in (False, True)
        }
        #: Batches that are in a queue, or being dropped.
        self._queued: set[tuple[int, str]] = set()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    # --- start and stop ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Find the unfinished batches of before.

        Raises:
            OSError: If the disk does not allow it.
        """
        disk.make_folder(self._drops.folder, 0o700)
        for uid in self._uploads.users():
            for name in self._names_of(uid):
                record = read_record(self._folder(uid), name)
                if record is not None and record.is_over:
                    self._drops.clear(record)  # a crash may have come before that
                elif record is not None:
                    self._unfinished.add((uid, name))

    def start(self) -> None:
        """Start the threads."""
        work: list[tuple[str, Callable[[], None]]] = [
            ("look", self._keep_looking),
            ("drop", lambda: self._keep_dropping(self._queues[False])),
            ("drop-large", lambda: self._keep_dropping(self._queues[True])),
        ]
        self._threads = [threading.Thread(target=act, name=name, daemon=True) for name, act in work]
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Ask the threads to end, and wait for them for a while; a drop that is cut is made at the next start."""
        self._stopping.set()
        for waiting in self._queues.values():
            waiting.put(None)
        for thread in self._threads:
            thread.join(seconds)

    # --- what users ask ------------------------------------------------------------------------------------------

    def create(self, account: ApiUser, request: BatchRequest, *, is_repeated: bool) -> dict[str, object]:
        """Make a batch; return OpenAI's batch object.

        Args:
            is_repeated: Whether the client says that it sent this before and got no reply.

        Raises:
            ApiError: If there is no such file, or the user has too many unfinished batches.
            OSError: If the disk does not allow it.
        """
        stored = self._uploads.find(account.uid, request.input_file_id)
        if stored is None:
            raise missing("file", "input_file_id")
        if stored.purpose != "batch":
            raise invalid("the file's purpose is not batch", "input_file_id")
        with self._lock:
            mine = [name for uid, name in self._unfinished if uid == account.uid]
            if is_repeated and (first := self._find_first(account, request)) is not None:
                return self._shown(account, first)
            if len(mine) >= MOST_UNFINISHED:
                raise over_quota(f"you have {MOST_UNFINISHED} unfinished batches: wait for one, or cancel one")
            now = wall()
            name = BATCH + new_core(now)
            record = BatchRecord(
                id=name,
                user=account.name,
                created_at=now,
                endpoint=request.endpoint,
                input_file_id=request.input_file_id,
                metadata=request.metadata,
                name=f"{name}.jsonl",
                profile=self._profile,
                request=request.digest,
                output_seconds=request.output_seconds,
            )
            self._write(account.uid, record)
            self._unfinished.add((account.uid, name))
        self._enqueue(account.uid, record)
        return record.shown()

    def retrieve(self, account: ApiUser, batch: str) -> dict[str, object]:
        """Return OpenAI's batch object.

        Raises:
            ApiError: If this user has no such batch.
        """
        return self._shown(account, self._found(account, batch))

    def cancel(self, account: ApiUser, batch: str) -> dict[str, object]:
        """Cancel a batch; return OpenAI's batch object. To cancel it again changes nothing.

        Raises:
            ApiError: If this user has no such batch, or it is over.
            OSError: If the disk does not allow it; the batch is cancelled later then.
        """
        with self._lock:
            record = self._looked_at(account.uid, self._found(account, batch))
            if record.is_over:
                raise invalid(f"the batch is over: {record.shown()['status']}")
            if record.cancelling_at is None:
                record = replace(record, cancelling_at=wall())
                self._write(account.uid, record)
            record = self._carry_out_cancel(account.uid, record)
        return self._shown(account, record)

    def page(self, account: ApiUser, after: str | None, limit: int) -> tuple[list[dict[str, object]], bool]:
        """Return OpenAI's batch objects, the newest first, and whether there are more.

        Args:
            after: The id of the batch before the first one of the page; None: from the newest on.

        Raises:
            ApiError: If this user has no such batch.
        """
        names = sorted(self._names_of(account.uid), reverse=True)
        if after is not None:
            if after not in names:
                raise missing("batch", "after")
            names = names[names.index(after) + 1 :]
        found = [read_record(self._folder(account.uid), name) for name in names[:limit]]
        return [self._shown(account, record) for record in found if record is not None], len(names) > limit

    # --- the files of finished batches ---------------------------------------------------------------------------

    def find_output(self, account: ApiUser, file: str) -> OutputFile | None:
        """Return a file with results by its id; None if this user has none of this id, or it is gone."""
        parts = split_output(file)
        record = None if parts is None else read_record(self._folder(account.uid), BATCH + parts[0])
        if parts is None or record is None:
            return None
        return self._output_of(self._looked_at(account.uid, record), parts[1])

    def outputs_of(self, account: ApiUser) -> Iterator[OutputFile]:
        """Yield all files with results that a user has."""
        for name in self._names_of(account.uid):
            record = read_record(self._folder(account.uid), name)
            for end in OUTPUTS:
                output = None if record is None else self._output_of(record, end)
                if output is not None:
                    yield output

    def hide_output(self, account: ApiUser, file: str) -> None:
        """Show a file with results no more; it stays in the outbox as long as other results do.

        Raises:
            ApiError: If this user has no such file.
            OSError: If the disk does not allow it.
        """
        parts = split_output(file)
        with self._lock:
            record = None if parts is None else read_record(self._folder(account.uid), BATCH + parts[0])
            if parts is None or record is None or self._output_of(record, parts[1]) is None:
                raise missing("file")
            self._write(account.uid, replace(record, hidden=(*record.hidden, parts[1])))

    def _output_of(self, record: BatchRecord, end: str) -> OutputFile | None:
        if not record.folder or end in record.hidden:
            return None
        path = Path(record.folder) / OUTPUTS[end]
        try:
            status = path.stat()
        except OSError:
            return None
        expires = None if record.output_seconds is None else status.st_mtime + record.output_seconds
        if not status.st_size or (expires is not None and expires < wall()):
            return None
        file, name = f"{FILE}{record.core}{end}", f"{record.id}{end.replace('-', '_')}.jsonl"
        facts = file_object(file, name, "batch_output", status.st_size, status.st_mtime, expires_at=expires)
        return OutputFile(path, facts)

    # --- records -------------------------------------------------------------------------------------------------

    def _folder(self, uid: int) -> Path:
        return self._uploads.folder_of(uid, "batches")

    def _names_of(self, uid: int) -> list[str]:
        names = (name.removesuffix(".json") for name in os.listdir(self._folder(uid)) if name.endswith(".json"))
        return [name for name in names if core_of(name, BATCH)]

    def _found(self, account: ApiUser, batch: str) -> BatchRecord:
        record = read_record(self._folder(account.uid), batch) if core_of(batch, BATCH) else None
        if record is None:
            raise missing("batch")
        return record

    def _find_first(self, account: ApiUser, request: BatchRequest) -> BatchRecord | None:
        """Return the batch that an earlier attempt of a client to send this has made; None if none has."""
        names = sorted(self._names_of(account.uid), reverse=True)[:100]
        records = (read_record(self._folder(account.uid), name) for name in names)
        since, digest = wall() - AGAIN_SECONDS, request.digest
        return next((item for item in records if item and item.request == digest and item.created_at > since), None)

    def _write(self, uid: int, record: BatchRecord) -> None:
        write_record(self._folder(uid), record)
        if record.is_over:
            self._unfinished.discard((uid, record.id))

    def _shown(self, account: ApiUser, record: BatchRecord) -> dict[str, object]:
        """Return OpenAI's batch object as of now."""
        record = self._looked_at(account.uid, record)
        if record.step != BatchStep.DROPPED:
            return self._without_hidden(record.shown(), record)
        progress = find_progress(self._layout, record, account.uid)
        if progress is not None:
            return record.shown(progress[1])
        if is_in_inbox(self._layout, record):
            return record.shown()
        return record.shown({**record.shown(), "status": "in_progress"})

    @staticmethod
    def _without_hidden(document: dict[str, object], record: BatchRecord) -> dict[str, object]:
        keys = {"-output": "output_file_id", "-errors": "error_file_id"}
        return {**document, **{keys[end]: None for end in record.hidden}}

    def _looked_at(self, uid: int, record: BatchRecord) -> BatchRecord:
        """Return a record after a look at its job; what is new there is written."""
        if record.step != BatchStep.DROPPED:
            return record
        ended = find_end(self._layout, record, uid)
        if ended is None and not record.job:
            progress = find_progress(self._layout, record, uid)
            ended = replace(record, job=progress[0]) if progress is not None else None
        if ended is None:
            return record
        with self._lock:
            newest = read_record(self._folder(uid), record.id)
            if newest is None or newest.is_over:
                return newest or record
            ended = replace(ended, cancelling_at=newest.cancelling_at, hidden=newest.hidden)
            self._write(uid, ended)
        return ended

    # --- threads -------------------------------------------------------------------------------------------------

    def _enqueue(self, uid: int, record: BatchRecord) -> None:
        with self._lock:
            if (uid, record.id) in self._queued:
                return
            self._queued.add((uid, record.id))
        stored = self._uploads.find(uid, record.input_file_id)
        self._queues[stored is not None and stored.size > LARGE_BYTES].put((uid, record.id))

    def _keep_dropping(self, waiting: queue.SimpleQueue[tuple[int, str] | None]) -> None:
        while (item := waiting.get()) is not None and not self._stopping.is_set():
            try:
                self.drop(*item)
            except (ObcdError, OSError) as error:  # the next look puts it into the queue again
                text = str(error) if isinstance(error, ObcdError) else error.strerror
                logger.warning("batch %s waits: %s", item[1], text, extra={"action": "batch_waits"})
            except Exception as error:  # noqa: BLE001 - without the thread no batch would begin any more
                logger.error("batch %s: %s", item[1], fault_text(error), extra={"action": "batch_waits"})  # noqa: TRY400
            finally:
                self._queued.discard(item)

    def drop(self, uid: int, batch: str) -> None:
        """Drop the file of a waiting batch.

        Raises:
            ObcdError, OSError: If it cannot be dropped now.
        """
        record = read_record(self._folder(uid), batch)
        if record is None or record.step != BatchStep.WAITING:
            return
        stored = self._uploads.find(uid, record.input_file_id)
        content = None if stored is None else self._uploads.content_of(uid, stored.id)
        outcome = self._drops.make(record, content)
        with self._lock:
            newest = read_record(self._folder(uid), batch) or record
            outcome = replace(outcome, cancelling_at=newest.cancelling_at)
            self._write(uid, outcome)
            self._drops.forget(record)
            if outcome.cancelling_at is not None:
                self._carry_out_cancel(uid, outcome)

    def _carry_out_cancel(self, uid: int, record: BatchRecord) -> BatchRecord:
        """Cancel what there is of a batch that its user cancelled; return its record."""
        if record.step == BatchStep.DROPPED:
            record = self._drops.withdraw(record)
            if record.is_over:
                self._write(uid, record)
                self._drops.clear(record)
        elif record.step == BatchStep.WAITING:
            self._enqueue(uid, record)
        return record

    def _keep_looking(self) -> None:
        swept = 0.0
        cancelled: set[str] = set()
        while not self._stopping.is_set():
            for uid, name in sorted(self._unfinished):
                try:
                    self._carry_on(uid, name, cancelled)
                except Exception as error:  # noqa: BLE001 - without the thread no end would be seen any more
                    logger.warning("batch %s: %s", name, fault_text(error), extra={"action": "batch_look_failed"})
            if wall() - swept > SWEEP_SECONDS:
                swept = wall()
                self._sweep(swept)
            self._stopping.wait(LOOK_SECONDS)

    def _carry_on(self, uid: int, name: str, cancelled: set[str]) -> None:
        """Do what a crash or a full disk has left undone for a batch, and see whether it is over.

        Args:
            cancelled: Batches whose cancelling was carried out by this process.
        """
        record = read_record(self._folder(uid), name)
        if record is None:
            self._unfinished.discard((uid, name))
        elif record.step == BatchStep.WAITING:
            self._enqueue(uid, record)
        else:
            record = self._looked_at(uid, record)
            if record.cancelling_at is not None and not record.is_over and name not in cancelled:
                cancelled.add(name)
                with self._lock:
                    self._carry_out_cancel(uid, record)

    def _sweep(self, now: float) -> None:
        """Delete the files and the records of batches whose time is over."""
        try:
            self._uploads.sweep(now)
            for uid in self._uploads.users():
                for name in self._names_of(uid):
                    record = read_record(self._folder(uid), name)
                    if record is not None and record.is_over and record.created_at + self._keep_seconds < now:
                        disk.remove(self._folder(uid) / f"{name}.json")
        except OSError as error:
            logger.warning("old files are not deleted: %s", error.strerror, extra={"action": "sweep_failed"})
