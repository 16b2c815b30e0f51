"""Previews of a running job: its outputs so far, in its progress folder, while `notes.jsonl.show` is in the inbox.

outbox/notes.partial/   responses.jsonl, errors.jsonl: lines in the order in which their results were recorded

A clerk appends to them. They are worthless after the job: publication writes the outputs from the ledger, and removes
the folder. The size of a preview says where to go on, because the same ledger makes the same bytes: after a kill at any
moment the next clerk continues in the middle of a line.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

from obcd.core.answer.outcomes import Failure, Response
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox.output_lines import published_failure, published_response
from obcd.spool.outbox.publish_rename import FILE_MODE
from obcd.spool.outbox.recorded_lines import RecordedLine, RecordedLines

#: The files of a preview.
RESPONSES, ERRORS = "responses.jsonl", "errors.jsonl"
PREVIEWS = (RESPONSES, ERRORS)
#: Bytes of both files, after which the clerk adds no more: a preview is a second copy of what the ledger holds.
MOST_BYTES = 2**28
#: Bytes of lines that one call adds at most, so that several previews grow in turn.
CALL_BYTES = 4 * 2**20
#: The number of jobs whose files a clerk keeps open.
MOST_OPEN = 16


class _Preview:
    """One preview as far as this process knows it: the job's lines, and how many bytes they made of each file."""

    def __init__(self, folder: Path) -> None:
        self.lines = RecordedLines(folder)
        self.made = dict.fromkeys(PREVIEWS, 0)


#: {job's folder: its preview}, the one that was extended last at the end. It may be lost: then it is made again.
_open: OrderedDict[Path, _Preview] = OrderedDict()


def extend(layout: Layout, job: str, uid: int, partial: Path, done: int) -> bool:
    """Add results to the preview of a job; safe to repeat after a crash at any moment.

    Args:
        uid: The submitter.
        partial: The job's progress folder, which exists.
        done: The number of requests whose results are recorded.

    Returns:
        Whether the preview holds all of them, or is as large as it may become.

    Raises:
        OSError: If the progress folder or the job's folder is gone, or a disk operation fails.
    """
    folder = layout.jobs / job
    with _opened(partial, uid if layout.per_user else None) as files:
        sizes = {name: os.fstat(descriptor).st_size for name, descriptor in files.items()}
        if sum(sizes.values()) >= MOST_BYTES:
            return True
        preview, added = _find(folder, sizes), 0
        for line in preview.lines.read(done):
            name, raw = _rendered(preview, line)
            start, preview.made[name] = preview.made[name], preview.made[name] + len(raw)
            new = raw[max(0, sizes[name] - start) :]
            while new:  # a full disk gives a short write first, then ENOSPC
                written = os.write(files[name], new)
                sizes[name] += written
                new = new[written:]
            added += len(raw)
            if sum(sizes.values()) >= MOST_BYTES:
                return True
            if added >= CALL_BYTES:
                return False
    return True


def forget(layout: Layout, job: str, partial: Path | None) -> None:
    """Close the files of a job, and remove its preview; a missing one is not an error.

    Args:
        partial: Its progress folder; None if that is removed in any case.

    Raises:
        OSError: If the preview cannot be removed.
    """
    _open.pop(layout.jobs / job, None)
    if partial is not None:
        for name in PREVIEWS:
            (partial / name).unlink(missing_ok=True)


def _find(folder: Path, sizes: Mapping[str, int]) -> _Preview:
    """Return the preview of a job's folder, from its beginning if the files hold less than it made."""
    preview = _open.pop(folder, None)
    if preview is None or any(sizes[name] < preview.made[name] for name in PREVIEWS):
        preview = _Preview(folder)
    _open[folder] = preview
    while len(_open) > MOST_OPEN:
        _open.popitem(last=False)
    return preview


def _rendered(preview: _Preview, line: RecordedLine) -> tuple[str, bytes]:
    result, request, own = line
    if isinstance(result, Response) and request is not None:
        return RESPONSES, published_response(result, request, preview.lines.header)
    assert isinstance(result, Failure)
    return ERRORS, published_failure(result, own, preview.lines.header)


@contextlib.contextmanager
def _opened(partial: Path, uid: int | None) -> Iterator[dict[str, int]]:
    """Yield `{name: descriptor}` of the files of a preview, with the rights that the published folder will have."""
    with contextlib.ExitStack() as stack:
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        files = {}
        for name in PREVIEWS:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            files[name] = os.open(name, flags, 0o600, dir_fd=descriptor)
            stack.callback(os.close, files[name])
            if uid is not None:
                acl.open_file(files[name], uid)
            else:
                os.fchmod(files[name], FILE_MODE)
        yield files
