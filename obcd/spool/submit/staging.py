"""A staging folder (`obcd submit --from`): every file that settled there is dropped once, then moved aside.

    DIR/notes.jsonl ──drop──► inbox/notes.jsonl
         └─move──► DIR/submitted/notes.jsonl           DIR/submitted/.records/: the drops that are not moved yet

A record (see `exactly_once`) is kept from before the drop until after the move, by the file's identity: a crash between
the two does not drop it twice, and a new file of the same name is a new drop. `submitted/` is where files are moved to
and where the records lie that say what not to drop: in a folder that others may write into, only our own will do.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Set
from dataclasses import dataclass
from pathlib import Path

from obcd.core.request.rows import PLAIN, Reading
from obcd.core.tables.file_format import form_of, stem_of, why_not_taken
from obcd.errors import AlreadyRunningError, InputError
from obcd.spool.folders import disk
from obcd.spool.inbox.arrivals import is_ignored
from obcd.spool.submit.dropping import DropChangedError, Submitted, drop, find_target, open_source
from obcd.spool.submit.exactly_once import DropRecord, key_of, locked
from obcd.text import printable

MOVED = "submitted"
#: What to do when the record of a file cannot be kept.
ADVICE = "let the same user, who may write into the folder, submit from it each time"


@dataclass(frozen=True, slots=True)
class Left:
    """A file that stays in the staging folder.

    Attributes:
        fault: The sentence for whoever has to act; "" when it is only not settled yet.
    """

    name: str
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """A staging folder and where its files go.

    Attributes:
        settle_seconds: For how long a file must not have changed.
        reading: What lines are read with there.
        accepts: Which kinds of files are taken there beside JSONL; others are let lie.
    """

    folder: Path
    inbox: Path
    profile: str
    settle_seconds: float
    max_line_bytes: int
    reading: Reading = PLAIN
    accepts: Set[str] = frozenset()

    def submit(self, now: float) -> Generator[Submitted | Left, None, None]:
        """Drop and move what has settled; holds the folder's lock until it is exhausted or closed.

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
                except (InputError, AlreadyRunningError) as error:  # no stranger's lock keeps the others back
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
        """Make our folders, take up what a crash left, and list what may be dropped."""
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
        """Finish what a crash broke off; records of files that are gone by now are removed."""
        kept = set()
        for name in names:
            with contextlib.suppress(OSError):
                kept.add(_record_name(os.lstat(self.folder / name)))
        for path in sorted(self._records.iterdir()):
            # One that another user left says so when its file's turn comes, and keeps no other file back.
            with contextlib.suppress(InputError, AlreadyRunningError), self._record(path.name) as record:
                if not record.settle() or path.name not in kept:
                    record.remove()

    def _submit_one(self, name: str, now: float) -> Submitted | Left | None:
        """Drop one file and move it; None when a crash came between, and only the move was missing.

        Raises:
            InputError: If it was not dropped, or cannot be moved.
        """
        path = self.folder / name
        if not path.is_symlink() and not path.exists():  # taken away since the folder was listed
            return None
        with open_source(path, os.O_NOFOLLOW) as reader:
            status = os.fstat(reader.fileno())
            # ctime: every write moves it, and no `cp -p` or `touch` sets it back.
            if now - status.st_ctime < self.settle_seconds:
                return Left(name)
            target = find_target(self.inbox, self.profile, name, self.reading, self.accepts)
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
        """Move a dropped file aside; a new one that has taken its name meanwhile stays.

        Raises:
            InputError: If it cannot be moved; its record keeps it from being dropped again.
        """
        try:
            if not os.path.samestat(path.lstat(), dropped):
                return
            disk.rename(path, _free(self.folder / MOVED, path.name))
        except FileNotFoundError:  # taken away
            return
        except OSError as error:
            raise InputError(
                f"{printable(str(path))} was dropped, but cannot be moved into {MOVED}/: {error.strerror}; "
                "it is not dropped again"
            ) from None


def _make_closed(folder: Path) -> None:
    """Make a folder that only we may write into.

    Raises:
        InputError: If something else is there, or others may write into it: they could plant records.
        OSError: If it cannot be made.
    """
    disk.make_folder(folder, 0o700)
    status, name = folder.lstat(), printable(str(folder))
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"nothing was dropped: {name} is not a folder: take it away, what is dropped is moved there")
    if status.st_uid != os.geteuid():
        raise InputError(
            f"nothing was dropped: {name} belongs to another user (uid {status.st_uid}), and what is dropped is moved "
            "there: take it away, or submit as that user"
        )
    if status.st_mode & 0o022:
        raise InputError(f"nothing was dropped: others may write into {name}: chmod go-w it first")


def _record_name(status: os.stat_result) -> str:
    """Return the name of a file's record; not by its ctime, which a rename or chmod changes."""
    regular = stat.S_ISREG(status.st_mode)
    return key_of(str(regular), *map(str, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)))


def _free(folder: Path, name: str) -> Path:
    """Return a free name, e.g. `notes.jsonl`, `notes.2.jsonl`; the folder's lock keeps others from taking it."""
    stem = stem_of(name)
    ending, path, number = name.removeprefix(stem), folder / name, 2
    while os.path.lexists(path):
        path, number = folder / f"{stem}.{number}{ending}", number + 1
    return path
