"""The processes that hold a lock, from the kernel's table."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from obcd.diagnostics.machine import PROC
from obcd.spool.folders.permissions import lstat

#: `1: FLOCK ADVISORY WRITE 812 08:02:1234 0 EOF` (proc(5), locks): pid, device, inode; a waiter's line has an arrow.
LOCK_LINE = re.compile(r"^\d+: FLOCK +ADVISORY +\w+ +(\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE | re.ASCII)


def lock_holders(lock: Path, proc: Path = PROC) -> set[int] | None:
    """Return the processes that hold a file's flock, without trying to take it: a process that starts is not disturbed.

    None if the kernel does not list locks, or lists them by another device than `stat` (btrfs, overlays) and this user
    cannot read the lock's file, which names its holder.
    """
    try:
        table = (proc / "locks").read_text("ascii", "replace")
    except OSError:
        return None
    status = lstat(lock)
    if status is None or not stat.S_ISREG(status.st_mode):
        return set()
    found, is_hidden = set(), False
    for pid, major, minor, inode in LOCK_LINE.findall(table):
        if int(inode) != status.st_ino:
            continue
        is_same_device = os.makedev(int(major, 16), int(minor, 16)) == status.st_dev
        named = _read_holder(lock)
        if is_same_device or named == ["pid", pid]:
            found.add(int(pid))
        is_hidden = is_hidden or named is None
    return found if found or not is_hidden else None


def _read_holder(lock: Path) -> list[str] | None:
    """Return the words in a lock's file, `pid 812`; None if it cannot be read."""
    try:
        with open(lock, "rb") as file:
            return file.read(100).decode("ascii", "replace").split()
    except OSError:
        return None
