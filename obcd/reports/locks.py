"""Who holds a lock, as the kernel tells it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from obcd.reports.machine import PROC
from obcd.reports.rights import lstat

#: `1: FLOCK ADVISORY WRITE 812 08:02:1234 0 EOF` (proc(5), locks): pid, device, inode; a waiter's line has an arrow.
LOCK_LINE = re.compile(r"^\d+: FLOCK +ADVISORY +\w+ +(\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE | re.ASCII)


def lock_holders(lock: Path, proc: Path = PROC) -> set[int] | None:
    """Return who holds a file's flock, without trying to take it: one that starts now is not hindered.

    None where the kernel does not tell.
    """
    try:
        table = (proc / "locks").read_text("ascii", "replace")
    except OSError:
        return None
    status = lstat(lock)
    if status is None or not stat.S_ISREG(status.st_mode):
        return set()
    found = set()
    for pid, major, minor, inode in LOCK_LINE.findall(table):
        is_same_device = os.makedev(int(major, 16), int(minor, 16)) == status.st_dev
        if int(inode) == status.st_ino and (is_same_device or _is_named(lock, pid)):
            found.add(int(pid))
    return found


def _is_named(lock: Path, pid: str) -> bool:
    """Tell whether a lock's file names a process: on btrfs and overlays the kernel's device is not that of `stat`."""
    try:
        with open(lock, "rb") as file:
            return file.read(100).split() == [b"pid", pid.encode()]
    except OSError:
        return False
