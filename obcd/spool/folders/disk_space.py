"""Measure the free space of a filesystem, judge whether it is enough for work, and keep a ballast for when it is not.

    free ──► plenty ──────── enough again (a quarter more) ──────── least ─────────── 0
             work             work, or pause if it paused            pause            the ballast is released

Results in flight when space gets short have cost much time and money. They must be recorded even on a disk that another
user filled to its last byte. That is the purpose of the ballast, a file of real blocks without content.
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

#: Bytes that stay free without `[spool] min_free_bytes`, but on a small disk at most this part of it.
MIN_FREE_BYTES, SMALL_PART = 2**28, 20
#: Files that it must be possible to make (inodes), at most the same part of the filesystem's maximum.
MIN_FREE_FILES = 1000
#: After a pause, work goes on when the minimum plus this part of it is free.
MORE_PART = 4
#: Size of the ballast: a thousand long answers (2048 tokens each); on a small disk at most this part of it.
BALLAST_BYTES, BALLAST_PART = 2**23, 100
#: Errors of the operating system when there is no space.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Space on a filesystem in bytes and files; `size` or `inodes` is 0 if the filesystem does not count them."""

    free: int
    size: int
    free_inodes: int
    inodes: int
    is_read_only: bool


def read_space(path: Path) -> Space:
    """Return the space of a filesystem for this user. On a network filesystem this may block for ever.

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
    """Return how many bytes must stay free; the configured value counts unchanged, even if the disk is smaller."""
    return min(MIN_FREE_BYTES, space.size // SMALL_PART) if wanted is None else wanted


def least_files(space: Space) -> int:
    """Return how many files it must be possible to make."""
    return min(MIN_FREE_FILES, space.inodes // SMALL_PART)


def ballast_bytes(space: Space) -> int:
    """Return the size of the ballast on this filesystem."""
    return min(BALLAST_BYTES, space.size // BALLAST_PART) if space.size else BALLAST_BYTES


def find_shortage(place: Path, space: Space, wanted: int | None, *, is_short: bool, owed: int = 0) -> str:
    """Decide whether there is too little space to begin new work.

    Args:
        wanted: `[spool] min_free_bytes`, None where it is not set.
        is_short: Whether there was too little at the last check: then a quarter more is needed to go on.
        owed: Bytes that must be written first: a copy, the ballast if it is missing.

    Returns:
        The reason for people; "" if there is enough.
    """
    where = printable(str(place))
    if space.is_read_only:
        return f"{where} is on a read-only filesystem"
    least, files = least_bytes(space, wanted), least_files(space)
    more = MORE_PART if is_short else 0
    if space.size and space.free - owed < least + (least // more if more else 0):
        return (
            f"only {shown_size(space.free)} are free on the filesystem of {where}, "
            f"and {shown_size(least + owed)} must stay free ([spool] min_free_bytes): delete something there"
        )
    if space.inodes and space.free_inodes < files + (files // more if more else 0):
        return f"only {space.free_inodes} more files fit on the filesystem of {where} (inodes): delete some there"
    return ""


def shown_size(count: int) -> str:
    """Return a number of bytes as text for people."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.{int(count < 10 * unit)}f} {name}"
    return f"{count} bytes"


class Ballast:
    """A file that takes up space until the space is needed. Any thread; `make` and `give_up` are single calls."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """Return its current size in bytes, 0 if it is missing."""
        try:
            status = self._path.lstat()
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def make(self, size: int) -> None:
        """Allocate the space: blocks, and not only a length.

        Raises:
            OSError: If there is no space for it, or it cannot be made here; nothing of it is left then.
        """
        with contextlib.suppress(FileNotFoundError):  # the rest of an interrupted call, or another user's link
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
        """Free its space; return False if there was nothing to free."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
