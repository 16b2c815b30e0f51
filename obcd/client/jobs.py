"""A submitted job: wait for it, read its results, retry what failed, cancel it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obcd.client.orders.controlling import ControlledJob, control_job
from obcd.client.orders.retrying import retry_once
from obcd.client.place import DropPlace, SpoolPlace
from obcd.client.records import (
    PUBLISHED,
    REJECTED,
    REMOVED,
    WAITING,
    JobAnswer,
    JobFailure,
    JobStatus,
    parsed_value,
    warn,
)
from obcd.client.tables.answer_shape import AnswerShape
from obcd.client.tables.answer_table import answer_columns
from obcd.client.tables.frames import to_frame
from obcd.client.watching.job_view import find_job, find_view
from obcd.client.watching.progress import find_progress_view
from obcd.clock import monotonic
from obcd.coordinator.view import DaemonState, JobView
from obcd.core.answer.fault_kinds import FaultKind
from obcd.errors import InputError, JobRejected, NotFinished, ResultRemoved, TimedOutError
from obcd.results.merging.column_kinds import schema_kinds
from obcd.results.reading.answers import Answer, FailedLine, read_schema
from obcd.results.reading.sources import PublishedFolder
from obcd.results.reading.with_retries import Retries, read_whole
from obcd.spool.folders.status_file import is_running
from obcd.spool.inbox.control import ControlVerb
from obcd.spool.inbox.drops import Key
from obcd.spool.submit.by_content import note_published, was_published
from obcd.spool.submit.exactly_once import find_state_folder
from obcd.spool.submit.target import Target
from obcd.text import printable

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

#: Seconds between two looks at the outbox: at first, and at most; each wait is a quarter longer than the one before.
FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.05, 0.5
#: Seconds of a wait without any sign of a coordinator after which a warning says so.
SILENT_SECONDS = 10.0
#: The commands that start a coordinator.
START = "obcd up, or systemctl start obcd-coordinator"
#: Seconds without any sign of a drop, while a coordinator is ready, after which it counts as removed. Accepting a file
#: of gigabytes takes minutes, in which only the clerk has it.
NO_SIGN_SECONDS = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A job, as `submit`, `batch` and `attach` return it. Any thread; it holds no file and no connection.

    Attributes:
        key: The key under which it was submitted.
        profile: Its profile, "" for the top level of the configuration.
        shape: The form of its answers.
        index: The index of the pandas table whose rows these are; None otherwise.
        place: Where it is.
        spool: The spool of its daemon; None for a job of `batch`, which is finished.
    """

    key: str
    profile: str
    place: DropPlace
    shape: AnswerShape = field(default_factory=AnswerShape)
    index: Any = None
    spool: SpoolPlace | None = None

    def __repr__(self) -> str:
        status = self.status
        count = f", {status.done}/{status.total}" if status.total else ""
        return f"<obcd job '{printable(self.key)}': {status.state}{count}>"

    @property
    def status(self) -> JobStatus:
        """The state of the job now."""
        found = self.place.find_published()
        if found is None:
            view = self._view()
            return JobStatus(state=REMOVED) if view is None and self._is_removed() else _running_status(view)
        folder, manifest = found
        if "rejected" in manifest:
            return JobStatus(state=REJECTED, why=str(manifest["rejected"]), folder=folder)
        self._note_published(folder)
        counts = manifest.get("repeats") or manifest["counts"]
        done, failed = counts["responses"] + counts["failures"], counts["failures"]
        return JobStatus(state=PUBLISHED, done=done, total=done, failed=failed, folder=folder)

    @property
    def folder(self) -> Path:
        """The folder with its results, in the outbox.

        Raises:
            NotFinished: If it is not published yet.
            JobRejected: If it never became a job.
            ResultRemoved: If it was removed from the outbox.
        """
        status = self.status
        if status.state == REMOVED:
            raise ResultRemoved(
                f"the result of '{printable(self.key)}' was removed from {printable(str(self.place.layout.outbox))}: "
                "submit it with again=True to send the requests again"
            )
        if status.folder is None:
            at = f" ({status.done} of {status.total} rows)" if status.total else ""
            raise NotFinished(f"'{printable(self.key)}' is not finished yet{at}: job.wait() waits for it")
        if status.state == REJECTED:
            raise JobRejected(
                f"'{printable(self.key)}' was rejected: {status.why}; see {printable(str(status.folder))}, and give "
                "again=True to submit it again"
            )
        return self._answered_folder(status.folder)

    def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> Job:
        """Wait until the job is finished; an interrupt ends the wait and not the job.

        Args:
            timeout: Seconds; None: no limit.
            progress: Whether to show a bar in a notebook or on a terminal, and lines elsewhere; None: not elsewhere.

        Returns:
            The job itself.

        Raises:
            TimedOutError: When the time is over; the job continues.
            JobRejected: If it never became a job.
            ResultRemoved: If it is neither in the inbox, nor running, nor in the outbox.
        """
        deadline = None if timeout is None else monotonic() + timeout
        pause, unseen = FIRST_LOOK_SECONDS, monotonic()
        silent_until = unseen + SILENT_SECONDS
        with find_progress_view(self.key, 0, wanted=progress) as shown:
            while self.place.find_published() is None:
                view = self._view()
                if view is None and self._is_removed():
                    break
                now = monotonic()
                unseen = now if view is not None or not self._is_missing() else unseen
                if now - unseen > NO_SIGN_SECONDS:
                    raise ResultRemoved(
                        f"'{printable(self.key)}' is neither in the inbox, nor running, nor in the outbox: somebody "
                        "removed it; give again=True to send the requests again"
                    )
                if view is None and now >= silent_until and not is_running(self.place.layout):
                    silent_until = float("inf")
                    self._warn_of_silence()
                if deadline is not None and now >= deadline:
                    raise TimedOutError(self._not_yet(view))
                shown.show(view)
                time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - now)))
                pause = min(LOOK_SECONDS, 1.25 * pause)
        _ = self.folder
        return self

    def results(self) -> Iterator[JobAnswer]:
        """Yield the answers in the order of the rows, those of retries included; rows without one are in `failures`.

        Raises:
            NotFinished, JobRejected: As `folder`.
        """
        return (item for item in self.records() if isinstance(item, JobAnswer))

    def failures(self) -> list[JobFailure]:
        """Return the rows that have no answer, in order.

        Raises:
            NotFinished, JobRejected: As `folder`.
        """
        return [item for item in self.records() if isinstance(item, JobFailure)]

    def records(self) -> Iterator[JobAnswer | JobFailure]:
        """Yield an answer or a failure for each row, in order; memory holds one at a time.

        Raises:
            NotFinished, JobRejected: As `folder`.
        """
        return self._records(self.folder)

    def _records(self, folder: Path) -> Iterator[JobAnswer | JobFailure]:
        for item in read_whole(PublishedFolder(folder, printable(folder.name)), Retries()):
            if not isinstance(item, Answer):
                yield JobFailure.of(item)
                continue
            try:
                value = self.shape.value_of(parsed_value(item))
            except ValueError as error:
                line = item.line or 1
                failed = FailedLine(
                    item.place, "its class refuses it", line=line, id=item.request_id, record=item.record
                )
                refused = {**item.record, "class": FaultKind.INVALID_ANSWER, "message": str(error)}
                yield JobFailure.of(FailedLine(failed.place, failed.reason, line=line, id=failed.id, record=refused))
            else:
                yield JobAnswer.of(item, value)

    @property
    def answer_shape(self) -> AnswerShape:
        """The form of its answers: what was given as `schema`, else the schema of its profile."""
        if self.shape.format is not None:
            return self.shape
        schema = read_schema(PublishedFolder(self.folder, ""))
        return AnswerShape(schema, schema_kinds(schema)) if schema else self.shape

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with a row for each row that was submitted, in order, and with the index of that table.

        Its columns: `id`; the fields that were kept; `response`, or a column for each property of the schema, or
        `value` with the objects of a class; `error` (class and message, missing where there is an answer); `model`,
        `seconds`, `prompt_tokens`, `eval_tokens`. Columns have pandas' nullable types.

        Raises:
            NotFinished, JobRejected: As `folder`.
            UsageError: If pandas is not installed.
        """
        columns = answer_columns(self.records(), self.answer_shape)
        count = len(columns["id"].values)
        index = self.index if self.index is not None and len(self.index) == count else None
        return to_frame("pandas", columns, index)  # type: ignore[no-any-return, unused-ignore]

    def to_polars(self) -> polars.DataFrame:
        """Return the table of `to_pandas` in polars."""
        return to_frame("polars", answer_columns(self.records(), self.answer_shape))  # type: ignore[no-any-return, unused-ignore]

    def to_arrow(self) -> pyarrow.Table:
        """Return the table of `to_pandas` in Arrow."""
        return to_frame("pyarrow", answer_columns(self.records(), self.answer_shape))  # type: ignore[no-any-return, unused-ignore]

    def retry(self) -> Job:
        """Submit the rows that failed once more, and return that job; wait for it before reading `results` again.

        The results of this job then include its answers. The rows are submitted once, however often this is called; a
        job whose retry failed too is retried by that retry's own `retry`.

        Returns:
            The job of the retry; this job itself if nothing failed.

        Raises:
            NotFinished, JobRejected: As `folder`.
            InputError: If the rows cannot be submitted.
        """
        folder = self.folder
        if self.spool is None:
            raise InputError("a job of obcd.batch is retried by obcd.batch(job.folder / 'retry.jsonl')")
        known = retry_once(self.spool.layout, self.spool.settings, folder, find_state_folder())
        if known is None:
            return self
        place = DropPlace(layout=self.place.layout, name=known.name, profile=self.profile, drop_id=known.drop_id)
        return Job(key=f"{self.key}.retry", profile=self.profile, place=place, shape=self.shape, spool=self.spool)

    def cancel(self, timeout: float = 30.0) -> None:
        """End the job now: it is published with the answers that are there, and `retry` sends the rest.

        Args:
            timeout: Seconds to wait until the coordinator has ended it; without a coordinator nothing is waited for.

        Raises:
            InputError: If it is finished, or belongs to another user.
            TimedOutError: If the coordinator did not end it in time; it will.
        """
        if self.place.find_published() is not None:
            raise InputError(f"'{printable(self.key)}' is finished: there is nothing to cancel")
        view = self._view()
        job = ControlledJob(Key(self.profile, self.place.name), view.job if view is not None else "")
        control_job(self.place.layout, job, ControlVerb.CANCEL, 0, timeout)

    def _view(self) -> JobView | None:
        place = self.place
        return find_job(place.layout, place.drop_id, place.name, place.profile)

    def _is_removed(self) -> bool:
        """Return whether the result was there once, and is not any more."""
        place = self.place
        if self.spool is None or not place.drop_id:
            return False
        target = Target(place.layout.inbox / self.profile / place.name, self.profile)
        with contextlib.suppress(InputError):
            is_recorded = was_published(place.layout, target, find_state_folder(), place.drop_id)
            return is_recorded and place.find_published() is None  # it may have been published since the last look
        return False

    def _is_missing(self) -> bool:
        """Return whether a ready coordinator has no sign of the drop; whatever cannot be seen counts as a sign."""
        layout = self.place.layout
        view = find_view(layout) if is_running(layout) else None
        if view is None or view.state != DaemonState.READY:
            return False
        key = (self.profile, self.place.name)
        return all((job.profile, job.name) != key for job in view.all_jobs) and not self._lies_in_inbox()

    def _lies_in_inbox(self) -> bool:
        try:
            (self.place.layout.inbox / self.profile / self.place.name).lstat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def _warn_of_silence(self) -> None:
        root = printable(str(self.place.layout.root))
        text = f"no coordinator is seen on {root}: '{printable(self.key)}' waits for one ({START})"
        warn(text)

    def _not_yet(self, view: JobView | None) -> str:
        name = f"'{printable(self.key)}'"
        if view is None and not is_running(self.place.layout):
            return f"{name} is not finished yet: no coordinator runs ({START})"
        at = f" ({view.done} of {view.total} rows)" if view is not None else ""
        why = f": {printable(view.trouble)}" if view is not None and view.trouble else ""
        return f"{name} is not finished yet{at}{why}; the job continues"

    def _note_published(self, folder: Path) -> None:
        """Record that the result was there, so that a later submit knows that it was removed."""
        if self.spool is not None and self.place.drop_id:
            target = Target(self.place.layout.inbox / self.profile / self.place.name, self.profile)
            with contextlib.suppress(InputError):
                note_published(self.place.layout, target, find_state_folder(), self.place.drop_id, folder)

    def _answered_folder(self, folder: Path) -> Path:
        """Return the folder with the results; for a file that was answered before (`repeat`) that of the earlier."""
        found = self.place.find_published()
        earlier = found[1].get("repeats") if found is not None else None
        if not earlier:
            return folder
        answered = self.place.layout.outbox / str(earlier["folder"])
        if not answered.is_dir():
            raise ResultRemoved(
                f"'{printable(self.key)}' was answered before, as job {printable(str(earlier['job']))}, and that "
                f"result was removed from {printable(str(self.place.layout.outbox))}"
            )
        return answered


def _running_status(view: JobView | None) -> JobStatus:
    if view is None:
        return JobStatus(state=WAITING)
    return JobStatus(
        state=view.state,
        done=view.done,
        total=view.total,
        failed=view.failed,
        tokens_per_second=view.tokens_per_second,
        eta_seconds=view.eta_seconds,
        why=view.trouble,
    )
