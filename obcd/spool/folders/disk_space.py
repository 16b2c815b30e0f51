"""How much room a filesystem has, whether that is enough to work in, and the ballast that is thrown off when it is not.

    free ──► plenty ──────── enough again (a quarter more) ──────── least ─────────── 0
             work             work, or pause if it paused            pause            the ballast is given up

What is in flight when room gets short was computed for much time and money. It must be recorded even on a disk that
somebody else filled to its last byte: therefore the ballast, a file of real blocks that holds nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from obcd.text import printable

#: What stays free where `[spool] min_free_bytes` says nothing: this much, but on a small disk at most this part of it.
MIN_FREE_BYTES, SMALL_PART = 2**28, 20
#: Files that it must be possible to make (inodes), at most the same part of all there can be.
MIN_FREE_FILES = 1000
#: What paused goes on when there is this part of the least more than the least.
MORE_PART = 4
#: The ballast: a thousand long answers (2048 tokens each); on a small disk at most this part of it.
BALLAST_BYTES, BALLAST_PART = 2**23, 100
#: What the operating system says when there is no room.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Room on a filesystem in bytes and files; `size` or `inodes` is 0 where it does not count them."""

    free: int
    size: int
    free_inodes: int
    inodes: int
    is_read_only: bool


def read_space(path: Path) -> Space:
    """Ask a filesystem for its room, as this user may use it. Where a server is behind it, this may wait for ever.

    Raises:
        OSError: If the path cannot be reached.
    """
    found = os.statvfs(path)
    return Space(
        free=found.f_bavail * found.f_frsize,
        size=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail,
        inodes=found.f_files,
        is_read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def least_bytes(space: Space, wanted: int | None) -> int:
    """Return what has to stay free; what the configuration says counts as it is, also where it can never be."""
    return min(MIN_FREE_BYTES, space.size // SMALL_PART) if wanted is None else wanted


def least_files(space: Space) -> int:
    """Return how many files it must be possible to make."""
    return min(MIN_FREE_FILES, space.inodes // SMALL_PART)


def ballast_bytes(space: Space) -> int:
    """Return how large the ballast is on this filesystem."""
    return min(BALLAST_BYTES, space.size // BALLAST_PART) if space.size else BALLAST_BYTES


def find_shortage(place: Path, space: Space, wanted: int | None, *, is_short: bool, owed: int = 0) -> str:
    """Decide whether there is too little room to begin anything.

    Args:
        wanted: `[spool] min_free_bytes`, None where it is not set.
        is_short: Whether there was too little at the last look: then it takes a quarter more to go on.
        owed: Bytes that have to be written first: a copy, the ballast where it is missing.

    Returns:
        Why there is too little, for people; "" when there is enough.
    """
    where = printable(str(place))
    if space.is_read_only:
        return f"{where} lies on a filesystem that is read-only"
    least, files = least_bytes(space, wanted), least_files(space)
    more = MORE_PART if is_short else 0
    if space.size and space.free - owed < least + (least // more if more else 0):
        return (
            f"only {shown_size(space.free)} are free where {where} lies, "
            f"and {shown_size(least + owed)} are to stay free ([spool] min_free_bytes): delete something there"
        )
    if space.inodes and space.free_inodes < files + (files // more if more else 0):
        return f"only {space.free_inodes} more files can be made where {where} lies (inodes): delete some there"
    return ""


def shown_size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.{int(count < 10 * unit)}f} {name}"
    return f"{count} bytes"


class Ballast:
    """A file that takes up room until the room is needed. Any thread; making and giving up are single calls."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """Return how large it is now, 0 when it is not there."""
        try:
            status = self._path.lstat()
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def make(self, size: int) -> None:
        """Take the room: blocks, and not only a length.

        Raises:
            OSError: If there is no room for it, or if it cannot be made here; nothing is left of it then.
        """
        with contextlib.suppress(FileNotFoundError):  # what is left of one that was cut short, or somebody's link
            self._path.unlink()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if sys.platform == "linux":
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.write(descriptor, bytes(size))
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    def give_up(self) -> bool:
        """Free its room; False when there was nothing to free."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
