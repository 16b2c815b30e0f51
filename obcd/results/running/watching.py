"""Read the answers of a running job as they are recorded, and to the end if it is published meanwhile.

    the daemon's user, root    LedgerWatch    jobs/<id>/ledger.log
    a submitter                PreviewWatch   outbox/notes.partial/responses.jsonl, while inbox/notes.jsonl.show exists

A watch is read again and again until it is over, and yields each answer once, in the order of the records.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from obcd.clock import monotonic
from obcd.coordinator.view import View
from obcd.core.answer.openai.openai_response import is_openai_line, to_record
from obcd.core.answer.outcomes import Response
from obcd.core.answer.record_codec import to_ascii
from obcd.core.tables.file_format import stem_of
from obcd.errors import InputError
from obcd.results.reading.answers import MAX_RECORD_BYTES, Answer, read_answers
from obcd.results.reading.sources import PublishedFolder
from obcd.results.running.finding import NamedJob, Stage, find_published, read_progress
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import ControlVerb, control_name, put_control, take_back
from obcd.spool.inbox.drops import Key
from obcd.spool.outbox.output_lines import own_document
from obcd.spool.outbox.preview import ERRORS, RESPONSES
from obcd.spool.outbox.recorded_lines import RecordedLines
from obcd.text import printable
from obcd.text_files import LeftOut, bounded_lines

#: Seconds between two looks for a published folder, and after which a `.show` file that is not obeyed is given up.
PUBLISHED_SECONDS, REFUSED_SECONDS = 1.0, 3.0


class JobWatch(Protocol):
    """A job that is watched; a context manager.

    Attributes:
        answered, failed: Lines that were read: with a response, and with a failure.
        is_over: Whether nothing more comes.
        is_immediate: Whether one `read` yields all that was recorded before it.
    """

    is_immediate: ClassVar[bool]
    answered: int
    failed: int
    is_over: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...

    def read(self, view: View | None) -> Iterator[Answer | LeftOut]:
        """Yield the answers that have come after the last call.

        Args:
            view: The coordinator's state now; None if it does not run, or this user may not read its state.

        Raises:
            InputError: If the job cannot be shown to this user.
        """


class LedgerWatch:
    """Reads the ledger; only the daemon's user and root may.

    Raises:
        OSError: If the job's folder is gone, or closed to this user.
    """

    is_immediate: ClassVar[bool] = True

    def __init__(self, layout: Layout, found: NamedJob) -> None:
        self._found = found
        self._lines = RecordedLines(layout.jobs / found.job)
        self.answered = self.failed = 0
        self.is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def read(self, view: View | None) -> Iterator[Answer | LeftOut]:
        """See `JobWatch.read`."""
        is_removed = self._lines.is_removed  # first: nothing is added after that
        for result, request, _ in self._lines.read(None if is_removed else self._recorded(view)):
            if isinstance(result, Response) and request is not None:
                self.answered += 1
                yield _answer(self._found, result.line, json.loads(to_ascii(own_document(result, request))))
            else:
                self.failed += 1
        self.is_over = is_removed

    def _recorded(self, view: View | None) -> int | None:
        """Return how many results may be shown: those that the coordinator counts, all if none runs."""
        if view is None:
            return None
        job = view.find_job(self._found.job)
        return job.done if job is not None else self._lines.done


class PreviewWatch:
    """Has the coordinator show the job, by a control file that this places and removes, and reads the preview."""

    is_immediate: ClassVar[bool] = False

    def __init__(self, layout: Layout, found: NamedJob) -> None:
        self._layout = layout
        self._found = found
        self._file = Key(found.key.profile, control_name(found.key.name, ControlVerb.SHOW))
        self._has_placed = False
        self._placed_at = self._look_at = 0.0
        self._offsets = dict.fromkeys((RESPONSES, ERRORS), 0)
        #: The lines that were read.
        self._seen: set[int] = set()
        self.answered = self.failed = 0
        self.is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._has_placed:
            with contextlib.suppress(OSError):
                take_back(self._layout, self._file)

    def read(self, view: View | None) -> Iterator[Answer | LeftOut]:
        """See `JobWatch.read`."""
        now = monotonic()
        progress = read_progress(self._layout, self._found)
        if progress is not None:
            folder, _ = progress
            self._place(now)
            yield from self._read_preview(folder)
            self._check_obeyed(view, folder, now)
        elif now >= self._look_at:
            self._look_at = now + PUBLISHED_SECONDS
            ended = find_published(self._layout, view, self._found)
            if ended is not None:
                self.is_over = True
                yield from self._read_published(ended)

    def _place(self, now: float) -> None:
        """Put the control file there unless there is one, of this user or of another."""
        path = self._layout.inbox / self._file.profile / self._file.name
        if os.path.lexists(path) or now < self._look_at:
            return
        self._look_at = now + PUBLISHED_SECONDS
        try:
            put_control(self._layout, self._file, self._found.job)
        except OSError as error:
            raise InputError(f"{path} cannot be made: {error.strerror}") from None
        self._has_placed, self._placed_at = True, self._placed_at or now

    def _check_obeyed(self, view: View | None, folder: Path, now: float) -> None:
        if self._placed_at and now - self._placed_at > REFUSED_SECONDS and not (folder / RESPONSES).exists():
            label = printable(f"{self._file.profile}/{self._file.name}" if self._file.profile else self._file.name)
            why = next((item.why for item in (view.waiting if view else ()) if item.file == label), "")
            if why:
                raise InputError(f"{self._found.label}: {why}")

    def _read_preview(self, folder: Path) -> Iterator[Answer]:
        for record in self._new_lines(folder / RESPONSES):
            yield self._answer(record)
        self.failed += sum(1 for _ in self._new_lines(folder / ERRORS))

    def _new_lines(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yield the lines of a preview that are whole and were not read; one that is made again has the same bytes."""
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            file.seek(self._offsets[path.name])
            for raw in bounded_lines(file, MAX_RECORD_BYTES):
                if not raw.endswith(b"\n"):
                    return
                self._offsets[path.name] += len(raw)
                yield json.loads(raw)

    def _read_published(self, ended: NamedJob) -> Iterator[Answer | LeftOut]:
        if ended.stage is Stage.REJECTED:
            raise InputError(f"{ended.label} was rejected: {ended.why}; see {ended.folder}")
        assert ended.folder is not None
        for item in read_answers(PublishedFolder(ended.folder, self._found.label)):
            if isinstance(item, LeftOut):
                yield item
            elif item.line not in self._seen:
                yield self._answer(dict(item.record))
        with contextlib.suppress(OSError), open(ended.folder / ERRORS, "rb") as file:
            self.failed = sum(1 for _ in bounded_lines(file, MAX_RECORD_BYTES))

    def _answer(self, record: dict[str, Any]) -> Answer:
        own: dict[str, Any] = to_record(record) if is_openai_line(record) else record
        self._seen.add(own["line"])
        self.answered += 1
        return _answer(self._found, own["line"], own)


def watch(layout: Layout, found: NamedJob) -> JobWatch:
    """Return the watch of a job that is not published, as this user may read it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # closed to this user, or being published
        return LedgerWatch(layout, found)
    return PreviewWatch(layout, found)


def _answer(found: NamedJob, line: int, record: dict[str, Any]) -> Answer:
    file = f"{printable(stem_of(found.key.name))}/{RESPONSES}"
    return Answer(place=f"{found.label} line {line}", file=file, line=line, record=record)
