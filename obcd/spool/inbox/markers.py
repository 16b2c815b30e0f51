"""The marker beside a drop, `notes.jsonl.done`: what its submitter says about it, read as untrusted input."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from obcd.errors import ObcdError
from obcd.spool.folders import disk
from obcd.text import printable

#: Maximum size of a marker, a small JSON object.
MAX_MARKER_BYTES = 4096
#: Seconds before a marker without its file is removed.
ORPHAN_SECONDS = 3600.0

#: What becomes of the published folder of a trial: it is kept, or removed soon.
KEEP, REMOVE = TRIALS = ("keep", "remove")

#: The form of a drop id that `obcd submit` writes into a marker.
DROP_ID = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Marker:
    """The content of `name.jsonl.done`; fields are empty if it does not have them.

    Example: `{"sha256": "…", "bytes": 8123, "lines": 30, "drop_id": "…", "parent": "<job>"}`; an empty file is a valid
    marker. `parent` is the job whose failed lines these are (`obcd retry`); `submitter` is the user for whom the API
    dropped it (see `submitters`). `trial` is `keep` or `remove` for a few lines that are tried (`obcd try`),
    and `by` is when the lines should be answered, e.g. `2026-12-02T06:00+01:00`, `tomorrow 06:00`.
    """

    sha256: str = ""
    size: int | None = None
    lines: int | None = None
    drop_id: str = ""
    parent: str = ""
    submitter: str = ""
    trial: str = ""
    by: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> Marker:
        """Parse a marker; a key with an invalid value counts as missing.

        Raises:
            ValueError: If it is neither empty nor a JSON object, or is nested too deeply.
        """
        try:
            document: object = json.loads(raw) if raw.strip() else {}
            return cls._of(document)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def encode(self) -> bytes:
        """Return the content of the file; what is not known is left out."""
        known = {"lines": self.lines} if self.lines is not None else {}
        words = {"parent": self.parent, "submitter": self.submitter, "trial": self.trial, "by": self.by}
        document = {
            **{"sha256": self.sha256, "bytes": self.size, **known, "drop_id": self.drop_id},
            **{key: text for key, text in words.items() if text},
        }
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def _of(cls, document: object) -> Marker:
        if not isinstance(document, dict):
            raise ValueError("not an object")
        size, lines = document.get("bytes"), document.get("lines")
        return cls(
            sha256=printable(str(document.get("sha256", "")))[:64],
            size=size if isinstance(size, int) else None,
            lines=lines if isinstance(lines, int) else None,
            drop_id=printable(str(document.get("drop_id", "")))[:64],
            parent=printable(str(document.get("parent", "")))[:64],
            submitter=printable(str(document.get("submitter", "")))[:256],
            trial=trial if (trial := document.get("trial")) in TRIALS else "",
            by=printable(str(document.get("by", "")))[:64],
        )


class OtherOwnerError(ObcdError, OSError):
    """A marker belongs to a user who may not write one for the drop."""


def read_marker(path: Path, owner: int) -> Marker:
    """Read a drop's marker; it counts if it belongs to the owner of the drop, to root or to the daemon's user.

    Everybody may write to a shared inbox: another user's marker could get a file accepted that is still being written.

    Raises:
        OtherOwnerError: If it belongs to another user.
        OSError: If it cannot be read.
        ValueError: If it is not a valid marker.
    """
    if path.lstat().st_uid not in (owner, 0, os.geteuid()):
        raise OtherOwnerError(errno.EPERM, os.strerror(errno.EPERM), str(path))
    return Marker.parse(read_small(path, (owner, 0, os.geteuid())))


def read_small(path: Path, owners: Collection[int] = ()) -> bytes:
    """Read a small regular file without following a link or blocking on a FIFO.

    Args:
        owners: The allowed owners; (): any.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a small regular file, or belongs to another user.
    """
    with disk.open_regular(path, os.O_NOFOLLOW) as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_MARKER_BYTES:
            raise ValueError("not a small file")
        if owners and status.st_uid not in owners:  # replaced after it was checked
            raise ValueError("another user's file")
        return file.read(MAX_MARKER_BYTES)
