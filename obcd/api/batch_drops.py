"""Put the file of a batch into the inbox, once, whatever happens meanwhile; and take it out again.

The drop is the one of `obcd submit --once`: its record says after a crash whether it was made. Lines are checked by the
coordinator's clerk, which may crash over them; here only the first one is looked at.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.api.batch_records import BatchRecord, BatchStep
from obcd.clock import wall
from obcd.core.request.json_objects import is_blank_line, parse_object
from obcd.core.request.openai.openai_request import endpoint_of
from obcd.core.request.structure import is_mostly_structure
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import LineError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import ControlVerb, control_name, put_control
from obcd.spool.inbox.drops import Key
from obcd.spool.inbox.names import hidden, marker_of
from obcd.spool.submit.dropping import drop, open_source
from obcd.spool.submit.exactly_once import DropRecord
from obcd.spool.submit.target import find_target
from obcd.users import find_user_name

#: Bytes of a file in which its first line is looked for; a longer one is for the coordinator to judge.
HEAD_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class BatchDrops:
    """Drops batches into one spool.

    Args:
        folder: Where the records of drops that are being made lie.
    """

    layout: Layout
    folder: Path

    def make(self, record: BatchRecord, content: Path | None) -> BatchRecord:
        """Drop the file of a waiting batch unless that was done before; return the batch's next record.

        Args:
            content: The uploaded file; None: it was deleted.

        Raises:
            InputError, AlreadyRunningError: If it cannot be put into the inbox now; nothing was dropped then.
        """
        target = find_target(self.layout.inbox, record.profile, record.name)
        path = self.folder / f"{record.id}.log"
        with DropRecord(path, target.path.parent) as steps:
            if steps.settle():
                return replace(record, step=BatchStep.DROPPED, drop_id=steps.drop_id)
            if record.cancelling_at is not None:
                return record.withdrawn(wall())
            if content is None or not content.is_file():
                return record.failed("input_file_missing", "its file was deleted before it began", wall())
            if fault := find_fault(content, record.endpoint):
                return record.failed("invalid_file", fault[1], wall(), fault[0])
            steps.begin(target)
            target = replace(target, submitter=_submitter(record), is_checked=False)
            with open_source(content) as reader:
                submitted = drop(reader, record.input_file_id, target, LINE_BYTES, steps)
        return replace(record, step=BatchStep.DROPPED, drop_id=submitted.drop_id)

    def forget(self, record: BatchRecord) -> None:
        """Remove the record of a drop; the batch's own record says by now that it was made."""
        disk.remove(self.folder / f"{record.id}.log")

    def withdraw(self, record: BatchRecord) -> BatchRecord:
        """Take the file of a dropped batch out of the inbox, or have its job cancelled; return its next record.

        The file gets its hidden name back, so that a process that was killed here still knows that it took it out and
        not the coordinator. `clear` removes it.

        Raises:
            OSError: If the disk does not allow it.
        """
        path, taken = self._places(record)
        try:
            disk.before("rename", str(taken))
            path.rename(taken)
        except FileNotFoundError:
            if not os.path.lexists(taken):  # the coordinator has claimed it
                file = Key(record.profile, control_name(record.name, ControlVerb.CANCEL))
                put_control(self.layout, file, record.job)
                return record
        with disk.opened(taken, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
            disk.sync_file(descriptor, taken)  # the inbox itself may not be opened and synced
        return record.withdrawn(wall())

    def clear(self, record: BatchRecord) -> None:
        """Remove the rest of a batch that was withdrawn, after its record says so."""
        if record.drop_id and record.cancelling_at is not None and not record.folder:
            path, taken = self._places(record)
            with contextlib.suppress(OSError):
                disk.remove(marker_of(path))
            with contextlib.suppress(OSError):
                disk.remove(taken)

    def _places(self, record: BatchRecord) -> tuple[Path, Path]:
        path = self.layout.inbox / record.profile / record.name
        return path, hidden(path, record.drop_id)


def _submitter(record: BatchRecord) -> str:
    """Return the submitter for the marker: "" where this process's user drops its own batch."""
    return "" if record.user == find_user_name(os.geteuid()) else record.user


def find_fault(content: Path, endpoint: str) -> tuple[int, str] | None:
    """Return the number of the first line of a file and why it cannot begin a batch; None if it can.

    A line beyond `HEAD_BYTES`, or of more than that, is not looked at.
    """
    with disk.open_regular(content) as file:
        head = file.read(HEAD_BYTES)
    *lines, rest = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines += [rest] if len(head) < HEAD_BYTES else []
    for number, line in enumerate(lines, 1):
        if is_blank_line(line):
            continue
        try:
            if is_mostly_structure(line):
                raise LineError("not a request")
            found = endpoint_of(parse_object(line))
        except LineError:
            return number, "the line is not a JSON object: is the file one of JSON lines, in UTF-8?"
        if not found:
            return number, "the line is not that of a batch: it needs custom_id, method, url and body"
        if found != endpoint:
            return number, f"the line's url is not the endpoint of the batch, {endpoint}"
        return None
    return None if rest and len(head) == HEAD_BYTES else (1, "the file has no line with a request")
