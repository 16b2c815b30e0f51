"""Make the marker of a drop, which is the lock on its name too, and clear what interrupted drops left."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from obcd.clock import wall
from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.inbox.markers import ORPHAN_SECONDS, Marker, read_small
from obcd.spool.inbox.names import hidden, marker_of


class TakenError(InputError):
    """The name is in the inbox already: somebody dropped it, and the coordinator has not accepted it yet."""


class ComingError(InputError):
    """The marker of that name is there without its file: somebody is dropping it now, or was interrupted."""


def taken(target: Path) -> TakenError:
    """Return the error of a name that is in the inbox."""
    return TakenError(f"{target.name} is in the inbox already and is not accepted yet: wait, or give --name")


def is_named(temporary: Path) -> bool:
    """Return whether a complete copy got its final name: it has both names, or the hidden one is removed."""
    try:
        return temporary.lstat().st_nlink > 1
    except FileNotFoundError:
        return True


def clear_rests(path: Path, drop_id: str) -> None:
    """Remove the rest of a drop that was interrupted before it was made: its hidden copy and its marker."""
    marker = marker_of(path)
    with contextlib.suppress(OSError, ValueError):  # missing, or another user's
        raw = read_small(marker)
        # It is this user's and empty: the crash came before its content was written.
        is_ours = Marker.parse(raw).drop_id == drop_id or (not raw and marker.lstat().st_uid == os.geteuid())
        if is_ours and not os.path.lexists(path):
            disk.remove(marker)
    disk.remove(hidden(path, drop_id))


@contextlib.contextmanager
def marked(target: Path, marker: Marker) -> Iterator[None]:
    """Make the marker of a file that comes next; it is removed if the file does not come.

    It is made with O_EXCL, so it is also the lock on the name.

    Raises:
        InputError: If another submitter's marker is there.
    """
    path = marker_of(target)
    with os.fdopen(_make_marker(path, target), "wb") as file:
        try:
            file.write(marker.encode())
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            yield
        except BaseException:
            if _is_same(path, file.fileno()) and not is_named(hidden(target, marker.drop_id)):
                path.unlink(missing_ok=True)
            raise


def _make_marker(marker: Path, target: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    disk.before("marker", str(marker))
    try:
        return os.open(marker, flags, 0o644)
    except FileExistsError:
        pass
    _remove_orphan(marker, target)
    try:
        return os.open(marker, flags, 0o644)
    except FileExistsError:
        if os.path.lexists(target):
            raise taken(target) from None
        raise ComingError(
            f"{marker.name} is in the inbox already, its file is on its way: wait, or give --name"
        ) from None


def _remove_orphan(marker: Path, target: Path) -> None:
    """Remove a marker whose file has been missing for long; its lock protects a newer one from a second process."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    # This user may not read or remove it, or it is locked: it stays, and the name is taken.
    with contextlib.suppress(OSError), disk.opened(marker, flags) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_old = wall() - os.fstat(descriptor).st_mtime > ORPHAN_SECONDS
        if is_old and _is_same(marker, descriptor) and not os.path.lexists(target):
            marker.unlink()


def _is_same(path: Path, descriptor: int) -> bool:
    """Return whether a path still names the file that is open."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
