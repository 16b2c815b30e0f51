"""A staging folder (`obcd submit --from`): drop every file that settled there once, then move it aside.

    DIR/notes.jsonl ──drop──► inbox/notes.jsonl
         └─move──► DIR/submitted/notes.jsonl           DIR/submitted/.records/: the drops that are not moved yet

A record (see `exactly_once`) exists from before the drop until after the move, by the identity of the file: a crash
between the two does not drop it twice, and a new file of the same name is a new drop. `submitted/` holds the moved
files and the records of files that must not be dropped: in a folder that others may write to, it must belong to this
user.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Set
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.core.request.rows import PLAIN, Reading
from obcd.core.tables.file_format import form_of, stem_of, why_not_taken
from obcd.errors import AlreadyRunningError, InputError
from obcd.spool.folders import disk
from obcd.spool.inbox.names import is_ignored
from obcd.spool.submit.dropping import DropChangedError, Submitted, drop, open_source
from obcd.spool.submit.exactly_once import DropRecord, key_of, locked
from obcd.spool.submit.target import find_target
from obcd.text import printable

MOVED = "submitted"
#: Advice if the record of a file cannot be kept.
ADVICE = "let the same user, who may write to the folder, submit from it each time"


@dataclass(frozen=True, slots=True)
class Left:
    """A file that stays in the staging folder.

    Attributes:
        fault: The sentence for the person who must act; "" if it has only not settled yet.
    """

    name: str
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """A staging folder and the target of its files.

    Attributes:
        settle_seconds: Seconds for which a file must not have changed.
        reading: The settings with which lines are read there.
        accepts: The kinds of files that are accepted there beside JSONL; others stay in the staging folder.
        by: The deadline of all, as in `Target`.
    """

    folder: Path
    inbox: Path
    profile: str
    settle_seconds: float
    max_line_bytes: int
    reading: Reading = PLAIN
    accepts: Set[str] = frozenset()
    by: str = ""

    def submit(self, now: float) -> Generator[Submitted | Left, None, None]:
        """Drop and move the settled files; holds the folder's lock until it is exhausted or closed.

        Args:
            now: Unix seconds.

        Raises:
            AlreadyRunningError: If another submit works on the folder.
            InputError: If the folder cannot be used; nothing was dropped then.
        """
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"cannot submit from {printable(str(self.folder))}: {error.strerror}") from None
        with locked(descriptor, f"another submit --from {printable(str(self.folder))} runs: wait for it"):
            names = self._prepare()
            for name in names:
                try:
                    outcome = self._submit_one(name, now)
                except DropChangedError:
                    outcome = Left(name)
                except (InputError, AlreadyRunningError) as error:  # the lock of one file does not stop the others
                    outcome = Left(name, str(error))
                if outcome is not None:
                    yield outcome

    def _is_drop(self, name: str) -> bool:
        is_called_so = form_of(name) is not None and not is_ignored(name)
        return is_called_so and not why_not_taken(name, self.accepts)

    @property
    def _records(self) -> Path:
        return self.folder / MOVED / ".records"

    def _record(self, name: str) -> DropRecord:
        return DropRecord(self._records / name, self.inbox / self.profile, ADVICE, patience_seconds=0.0)

    def _prepare(self) -> list[str]:
        """Make the folders, finish what a crash interrupted, and list the files that may be dropped."""
        try:
            names = sorted(os.listdir(self.folder))
            for folder in (self.folder / MOVED, self._records):
                _make_closed(folder)
            self._clear_records(names)
        except OSError as error:
            raise InputError(
                f"cannot submit from {printable(str(self.folder))}: {error.strerror} ({printable(str(error.filename))})"
            ) from None
        return [name for name in names if self._is_drop(name)]

    def _clear_records(self, names: list[str]) -> None:
        """Finish what a crash interrupted; remove records of files that are missing."""
        kept = set()
        for name in names:
            with contextlib.suppress(OSError):
                kept.add(_record_name(os.lstat(self.folder / name)))
        for path in sorted(self._records.iterdir()):
            # A record of another user gives an error when its file is dropped, and does not stop other files.
            with contextlib.suppress(InputError, AlreadyRunningError), self._record(path.name) as record:
                if not record.settle() or path.name not in kept:
                    record.remove()

    def _submit_one(self, name: str, now: float) -> Submitted | Left | None:
        """Drop one file and move it; return None if a crash had left only the move to do.

        Raises:
            InputError: If it was not dropped, or cannot be moved.
        """
        path = self.folder / name
        if not path.is_symlink() and not path.exists():  # removed after the folder was listed
            return None
        with open_source(path, os.O_NOFOLLOW) as reader:
            status = os.fstat(reader.fileno())
            # ctime: every write changes it, and neither `cp -p` nor `touch` can set it back.
            if now - status.st_ctime < self.settle_seconds:
                return Left(name)
            target = replace(find_target(self.inbox, self.profile, name, self.reading, self.accepts), by=self.by)
            with self._record(_record_name(status)) as record:
                submitted: Submitted | None = None
                if not record.settle():
                    record.begin(target)
                    try:
                        submitted = drop(reader, str(path), target, self.max_line_bytes, record)
                    except InputError:
                        if not record.settle():
                            record.remove()
                        raise
                self._move(path, status)
                record.remove()
        return submitted

    def _move(self, path: Path, dropped: os.stat_result) -> None:
        """Move a dropped file aside; a new file that got its name meanwhile stays.

        Raises:
            InputError: If it cannot be moved; its record keeps it from being dropped again.
        """
        try:
            if not os.path.samestat(path.lstat(), dropped):
                return
            disk.rename(path, _free(self.folder / MOVED, path.name))
        except FileNotFoundError:  # removed
            return
        except OSError as error:
            raise InputError(
                f"{printable(str(path))} was dropped, but cannot be moved into {MOVED}/: {error.strerror}; "
                "it is not dropped again"
            ) from None


def _make_closed(folder: Path) -> None:
    """Make a folder that only this user may write to.

    Raises:
        InputError: If something else is there, or others may write to it: they could forge records.
        OSError: If it cannot be made.
    """
    disk.make_folder(folder, 0o700)
    status, name = folder.lstat(), printable(str(folder))
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"nothing was dropped: {name} is not a folder: remove it, dropped files are moved there")
    if status.st_uid != os.geteuid():
        raise InputError(
            f"nothing was dropped: {name} belongs to another user (uid {status.st_uid}), and dropped files are moved "
            "there: remove it, or submit as that user"
        )
    if status.st_mode & 0o022:
        raise InputError(f"nothing was dropped: other users may write to {name}: chmod go-w it first")


def _record_name(status: os.stat_result) -> str:
    """Return the name of a file's record, without its ctime, which a rename or chmod changes."""
    regular = stat.S_ISREG(status.st_mode)
    return key_of(str(regular), *map(str, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)))


def _free(folder: Path, name: str) -> Path:
    """Return a free name, e.g. `notes.jsonl`, `notes.2.jsonl`; the folder's lock keeps others from taking it."""
    stem = stem_of(name)
    ending, path, number = name.removeprefix(stem), folder / name, 2
    while os.path.lexists(path):
        path, number = folder / f"{stem}.{number}{ending}", number + 1
    return path
