"""The machine under a spool: filesystems, space, clock, file events, servers without supervisor. It only reads.

Each `read_…` gathers figures, mostly from /proc; each `judge_…` makes findings of them. Without /proc there are none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from obcd.clock import timestamp
from obcd.diagnostics.findings import Finding, fault, right, warning
from obcd.spool.folders import disk
from obcd.spool.folders.disk_space import Space, find_shortage, shown_size
from obcd.spool.folders.inotify import GOOD_LIMITS, raise_limit, read_limit
from obcd.spool.folders.permissions import quoted, shown
from obcd.text import printable

PROC = Path("/proc")

#: Less free space than this gives a warning: bytes, share of the filesystem, files.
LEAST_BYTES, LEAST_SHARE, LEAST_INODES = 2**30, 0.05, 1000
#: 2024-01-01: an earlier time means that the clock was never set.
FIRST_TIME = 1704067200.0
#: Seconds that a filesystem's clock may differ from this machine's.
CLOCK_SLACK = 5.0
#: The variable in the environment of an `ollama serve` that obcd started: `OBCD_SLOT=<runtime folder>:<label>`.
MARKER = b"OBCD_SLOT="


def judge_space(path: Path, space: Space, min_free: int | None = None, *, is_root: bool = False) -> list[Finding]:
    """Return findings about the free space.

    Args:
        min_free: `[spool] min_free_bytes`.
        is_root: Whether the spool's root is there: then too little space makes the coordinator pause.
    """
    place, look = shown(path), f"df -h {quoted(path)}"
    if space.is_read_only:
        why = f"{place} is on a read-only filesystem"
        return [fault("disk", why, "dmesg | tail  # why it is")]
    shortage = find_shortage(path, space, min_free, is_short=False) if is_root else ""
    if shortage:
        why = f"{shortage}; until then no job is accepted and no request is sent"
        return [fault("inodes" if "(inodes)" in shortage else "disk", why, look)]
    share = space.free / space.size if space.size else 1.0
    text = f"{shown_size(space.free)} ({100 * share:.0f} %) are free on the filesystem of {place}"
    findings = [right("disk", text)]
    if space.free < LEAST_BYTES or share < LEAST_SHARE:
        findings = [(warning if space.free else fault)("disk", f"only {text}", look)]
    if space.inodes and (space.free_inodes < LEAST_INODES or space.free_inodes < LEAST_SHARE * space.inodes):
        text = f"only {space.free_inodes} more files can be made on the filesystem of {place} (inodes)"
        findings.append((warning if space.free_inodes else fault)("inodes", text, look.replace("-h", "-i")))
    elif space.inodes:
        findings.append(right("inodes", f"files can be made on the filesystem of {place}"))
    return findings


def read_new_time(folder: Path) -> float | None:
    """Return the time that a filesystem gives to a new file; None if that cannot be found without leaving a file.

    The file never has a name (O_TMPFILE, open(2)); NFS, SMB and FUSE do not support this.
    """
    try:
        with disk.opened(folder, os.O_TMPFILE | os.O_WRONLY) as descriptor:
            return os.fstat(descriptor).st_mtime
    except (OSError, AttributeError):
        return None


def judge_clock(now: float, new: dict[Path, float], last: dict[Path, float]) -> list[Finding]:
    """Compare the clock with those of the filesystems.

    Args:
        now: Unix seconds.
        new: {folder: time of a file made in it now}.
        last: {folder: time of its last change}; only a time in the future gives a finding.
    """
    remedy = "timedatectl set-ntp true  # on this machine, or on the one that serves the folder"
    if now < FIRST_TIME:
        text = f"the clock says {timestamp(now)}: jobs are named and sorted by it"
        return [warning("clock", text, remedy)]
    off = {path: made - now for path, made in new.items() if abs(made - now) > CLOCK_SLACK}
    off |= {path: made - now for path, made in last.items() if made - now > CLOCK_SLACK and path not in new}
    findings = [
        warning(
            "clock", f"the clock of {shown(path)} is {abs(seconds):.0f} s {'fast' if seconds > 0 else 'slow'}", remedy
        )
        for path, seconds in off.items()
    ]
    return findings or [right("clock", f"the clock says {timestamp(now)}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inotify:
    """A user's limits of file events, and how much is in use."""

    max_instances: int
    max_watches: int
    instances: int
    watches: int


def read_inotify(uid: int, proc: Path = PROC) -> Inotify | None:
    """Count a user's inotify instances and watches that this process can see; None if there is no inotify."""
    limits = proc / "sys" / "fs" / "inotify"
    max_instances, max_watches = (read_limit(name, limits) for name in GOOD_LIMITS)
    if max_instances is None or max_watches is None:
        return None
    instances = watches = 0
    for process in _processes(proc, uid):
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:  # ended, or not readable
            continue
        for descriptor in descriptors:
            try:
                if "inotify" in os.readlink(descriptor):
                    instances += 1
                    watches += (process / "fdinfo" / descriptor.name).read_text().count("inotify wd:")
            except OSError:
                continue
    return Inotify(max_instances=max_instances, max_watches=max_watches, instances=instances, watches=watches)


def judge_inotify(found: Inotify, folders: int) -> list[Finding]:
    """Return whether `folders` more folders can be watched; if not, drops are found by scanning, seconds later."""
    findings = []
    for name, used, most in (
        ("max_user_instances", found.instances, found.max_instances),
        ("max_user_watches", found.watches, found.max_watches),
    ):
        if used + folders > most:
            text = (
                f"{used} of {most} {name} are in use, and {folders} more are needed: drops are only found by scanning"
            )
            findings.append(warning("inotify", text, raise_limit(name, most)))
    text = f"{found.instances} of {found.max_instances} inotify instances are in use"
    return findings or [right("inotify", text)]


@dataclass(frozen=True, slots=True)
class Orphans:
    """Processes of one slot that have no supervisor."""

    label: str
    pids: tuple[int, ...]


def read_orphans(uid: int, proc: Path = PROC) -> list[Orphans]:
    """Find processes with obcd's marker whose first ancestor without it is no supervisor; root sees all users'."""
    marked = {pid: slot for pid, slot in _slots(proc, None if uid == 0 else uid)}
    found: dict[str, list[int]] = {}
    for pid, slot in marked.items():
        parent = _parent(proc, pid)
        while parent in marked:
            parent = _parent(proc, parent)
        if parent is not None and not _is_supervisor(proc, parent):
            found.setdefault(slot, []).append(pid)
    return [Orphans(printable(slot.rpartition(":")[2]), tuple(sorted(pids))) for slot, pids in sorted(found.items())]


def judge_orphans(orphans: Iterable[Orphans]) -> list[Finding]:
    """Return findings about servers that have no supervisor."""
    findings = [
        warning(
            "servers",
            f"a server of slot {item.label} runs without its supervisor, and holds its port and its GPU's "
            f"memory (pid {', '.join(map(str, item.pids))})",
            f"kill {' '.join(map(str, item.pids))}",
        )
        for item in orphans
    ]
    return findings or [right("servers", "no server runs without its supervisor")]


def _processes(proc: Path, uid: int | None) -> Iterator[Path]:
    """Yield the folders of a user's processes; None means all users."""
    try:
        entries = sorted((entry for entry in proc.iterdir() if entry.name.isdecimal()), key=lambda path: int(path.name))
    except OSError:
        return
    for entry in entries:
        try:
            if uid is None or entry.stat().st_uid == uid:
                yield entry
        except OSError:  # ended meanwhile
            continue


def _slots(proc: Path, uid: int | None) -> Iterator[tuple[int, str]]:
    own = os.getpid()  # an administrator's shell may have the marker, and therefore this process
    for process in _processes(proc, uid):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        slot = next((item for item in environment.split(b"\0") if item.startswith(MARKER)), None)
        if slot is not None and int(process.name) != own:
            yield int(process.name), os.fsdecode(slot.removeprefix(MARKER))


def _parent(proc: Path, pid: int) -> int | None:
    try:
        status = (proc / str(pid) / "stat").read_bytes()
        return int(status.rpartition(b")")[2].split()[1])  # the name in parentheses may hold anything
    except (OSError, ValueError, IndexError):
        return None


def _is_supervisor(proc: Path, pid: int) -> bool:
    """Return whether a process is a supervisord; in a container that may be number 1."""
    try:
        return b"supervisord" in (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return pid != 1  # hidden from this user: it may be one
