"""The files that users uploaded: each is a folder that appears whole, or not at all.

    root/api/incoming/<random>/content ─sync, file.json, rename─► root/api/users/<uid>/files/<id>/{content, file.json}

What a crash leaves in `incoming/` is removed at the next start. A file is deleted by a rename back into `incoming/`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from obcd.api.forms.identifiers import FILE, core_of, new_core
from obcd.api.forms.refusals import over_quota, too_large, unavailable
from obcd.clock import wall
from obcd.core.documents import Document
from obcd.spool.folders import disk
from obcd.spool.folders.disk_space import find_shortage, read_space, shown_size

CONTENT, FACTS = "content", "file.json"
#: What a file counts at the least against its user's quota: many small ones take space as well.
LEAST_BYTES = 16384
#: Bytes between two looks at the free space while a file comes in.
ROOM_BYTES = 2**25


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile(Document):
    """A file that a user uploaded.

    Attributes:
        created_at, expires_at: Unix seconds.
        size: Bytes.
    """

    id: str
    filename: str
    purpose: str
    size: int
    created_at: float
    expires_at: float

    def shown(self) -> dict[str, object]:
        """Return OpenAI's file object."""
        return file_object(
            self.id, self.filename, self.purpose, self.size, self.created_at, expires_at=self.expires_at
        )  # fmt: skip


def file_object(
    file: str, filename: str, purpose: str, size: int, created_at: float, *, expires_at: float | None = None
) -> dict[str, object]:
    """Return OpenAI's file object (openai.types.FileObject)."""
    return {
        "id": file,
        "object": "file",
        "bytes": size,
        "created_at": int(created_at),
        "expires_at": None if expires_at is None else int(expires_at),
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Limits of uploads, in bytes and seconds.

    Attributes:
        file_bytes, user_bytes: Of one file, and of all files of one user.
        min_free_bytes: What must stay free on the disk; None: as `disk_space` decides.
        keep_seconds: How long a file is kept.
    """

    file_bytes: int
    user_bytes: int
    min_free_bytes: int | None
    keep_seconds: float


@dataclass(slots=True)
class IncomingFile:
    """A file that comes in. Only one thread at a time may call it."""

    folder: Path
    uid: int
    reserved: int
    file: IO[bytes]
    size: int = 0
    checked: int = field(default=0)


class Uploads:
    """The uploaded files of all users. Any thread may call it.

    Args:
        folder: `root/api`.
        root: Of the spool, for sentences about its filesystem.
    """

    def __init__(self, folder: Path, root: Path, limits: UploadLimits) -> None:
        self._incoming = folder / "incoming"
        self._users = folder / "users"
        self._root = root
        self.limits = limits
        self._lock = threading.Lock()
        #: {user: bytes of their files}, read from the disk at the first use.
        self._used: dict[int, int] = {}
        #: {user: bytes of what comes in}
        self._coming: Counter[int] = Counter()

    def open(self) -> None:
        """Make the folders, and remove what a crash left.

        Raises:
            OSError: If the disk does not allow it.
        """
        for folder in (self._incoming, self._users):
            disk.make_folder(folder, 0o700)
        for path in self._incoming.iterdir():
            disk.remove_tree(path)

    def users(self) -> list[int]:
        """Return the users who have a folder."""
        return [int(name) for name in os.listdir(self._users) if name.isdecimal()]

    def folder_of(self, uid: int, kind: str) -> Path:
        """Return the folder of a user's things of one kind, made if it is missing."""
        for folder in (self._users / str(uid), self._users / str(uid) / kind):
            if not folder.is_dir():
                disk.make_folder(folder, 0o700)
        return self._users / str(uid) / kind

    # --- coming in -------------------------------------------------------------------------------------------------

    def begin(self, uid: int, announced: int = 0) -> IncomingFile:
        """Begin to take a file.

        Args:
            announced: Bytes that its sender announced; 0 if they are not known.

        Raises:
            ApiError: If it cannot be taken.
            OSError: If the disk does not allow it.
        """
        self._check_size(announced)
        self._reserve(uid, max(announced, LEAST_BYTES))
        try:
            self._check_room(announced)
            folder = self._incoming / secrets.token_hex(8)
            disk.make_folder(folder, 0o700)
            file = open(folder / CONTENT, "xb", buffering=0, opener=_open_closed)  # noqa: SIM115 - closed in `commit`
        except BaseException:
            self._release(uid, max(announced, LEAST_BYTES))
            raise
        return IncomingFile(folder, uid, max(announced, LEAST_BYTES), file)

    def write(self, coming: IncomingFile, block: bytes) -> None:
        """Append to a file that comes in.

        Raises:
            ApiError: If it is too large, or its user's files are.
            OSError: If the disk does not allow it.
        """
        size = coming.size + len(block)
        self._check_size(size)
        if size > coming.reserved:
            more = max(size - coming.reserved, min(ROOM_BYTES, self.limits.user_bytes // 16))
            self._reserve(coming.uid, more)
            coming.reserved += more
        if size - coming.checked > ROOM_BYTES:
            self._check_room(0)
            coming.checked = size
        view = memoryview(block)
        while view:
            view = view[coming.file.write(view) :]
        coming.size = size

    def commit(self, coming: IncomingFile, filename: str, purpose: str, seconds: float | None = None) -> StoredFile:
        """Make a file that came in whole one of its user's files; it is durable then.

        Args:
            seconds: How long it is kept, if that is less than for all.

        Raises:
            OSError: If the disk does not allow it.
        """
        now, keep = wall(), self.limits.keep_seconds
        stored = StoredFile(
            id=FILE + new_core(now),
            filename=filename,
            purpose=purpose,
            size=coming.size,
            created_at=now,
            expires_at=now + min(keep, keep if seconds is None else seconds),
        )
        disk.sync_file(coming.file.fileno(), coming.folder / CONTENT)
        disk.write_json(coming.folder / FACTS, stored.to_json(), 0o600)
        self._count(coming.uid)
        disk.rename(coming.folder, self.folder_of(coming.uid, "files") / stored.id)
        coming.file.close()
        with self._lock:
            self._used[coming.uid] += max(coming.size, LEAST_BYTES)
        self._release(coming.uid, coming.reserved)
        return stored

    def give_up(self, coming: IncomingFile) -> None:
        """Remove a file that did not come in whole; does nothing after `commit`."""
        if coming.file.closed:
            return
        coming.file.close()
        self._release(coming.uid, coming.reserved)
        with contextlib.suppress(OSError):
            disk.remove_tree(coming.folder)

    def _check_size(self, size: int) -> None:
        if size > self.limits.file_bytes:
            raise too_large(
                f"a file may have {shown_size(self.limits.file_bytes)}: split it, or ask for a higher limit"
            )

    def _check_room(self, owed: int) -> None:
        shortage = find_shortage(
            self._root, read_space(self._incoming), self.limits.min_free_bytes, is_short=False, owed=owed
        )
        if shortage:
            raise unavailable("the disk of this service is almost full: try again later")

    def _reserve(self, uid: int, count: int) -> None:
        used = self._count(uid)
        with self._lock:
            if used + self._coming[uid] + count > self.limits.user_bytes:
                raise over_quota(
                    f"your files would take more than {shown_size(self.limits.user_bytes)}: delete some that you do "
                    "not need (DELETE /v1/files/ID)"
                )
            self._coming[uid] += count

    def _release(self, uid: int, count: int) -> None:
        with self._lock:
            self._coming[uid] -= count

    def _count(self, uid: int) -> int:
        """Return the bytes of a user's files."""
        if uid not in self._used:
            found = sum(max(stored.size, LEAST_BYTES) for stored in self.all_of(uid))
            with self._lock:
                self._used.setdefault(uid, found)
        return self._used[uid]

    # --- what is there ---------------------------------------------------------------------------------------------

    def find(self, uid: int, file: str) -> StoredFile | None:
        """Return one of a user's files; None if there is none of this id."""
        return self._read(self.folder_of(uid, "files") / file) if core_of(file, FILE) else None

    def names_of(self, uid: int) -> list[str]:
        """Return the ids of a user's files."""
        return [name for name in os.listdir(self.folder_of(uid, "files")) if core_of(name, FILE)]

    def all_of(self, uid: int) -> Iterator[StoredFile]:
        """Yield a user's files."""
        for name in self.names_of(uid):
            stored = self.find(uid, name)
            if stored is not None:
                yield stored

    def content_of(self, uid: int, file: str) -> Path:
        """Return where the content of a user's file is."""
        return self.folder_of(uid, "files") / file / CONTENT

    def delete(self, uid: int, stored: StoredFile) -> None:
        """Delete a user's file; one that was deleted meanwhile is not an error.

        Raises:
            OSError: If the disk does not allow it.
        """
        used, hidden = self._count(uid), self._incoming / secrets.token_hex(8)
        try:
            disk.rename(self.folder_of(uid, "files") / stored.id, hidden)
        except FileNotFoundError:
            return
        with self._lock:
            self._used[uid] = max(0, used - max(stored.size, LEAST_BYTES))
        disk.remove_tree(hidden)

    def sweep(self, now: float) -> None:
        """Delete the files whose time is over.

        Raises:
            OSError: If the disk does not allow it.
        """
        for uid in self.users():
            for stored in self.all_of(uid):
                if stored.expires_at < now:
                    self.delete(uid, stored)

    @staticmethod
    def _read(folder: Path) -> StoredFile | None:
        try:
            return StoredFile.from_json(disk.read_json(folder / FACTS))
        except (OSError, ValueError):
            return None


def _open_closed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
