"""Check a spool: its folders and permissions, the processes that use it, and the machine. It changes nothing."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.clock import wall
from obcd.config.settings import Settings
from obcd.core.tables.file_format import form_of
from obcd.diagnostics.findings import Finding, Severity, fault, note, right, warning
from obcd.diagnostics.lock_holders import lock_holders
from obcd.diagnostics.machine import (
    PROC,
    judge_clock,
    judge_inotify,
    judge_orphans,
    judge_space,
    read_inotify,
    read_new_time,
    read_orphans,
)
from obcd.spool.folders import acl
from obcd.spool.folders.disk_space import read_space
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.mounts import IN_MEMORY, LOCAL_ROOT, SETTLE_SECONDS, describe_inbox, doubt_root, read_mount
from obcd.spool.folders.permissions import judge_folders, lstat, may_write, quoted, shown
from obcd.system_paths import SYSTEM_ROOT
from obcd.text import duration
from obcd.users import group_name, user_name

#: Age in seconds above which a status is stale; a busy coordinator renews it every second.
STALE_SECONDS = 10.0
#: Commands of remedies that need root (dmesg if kernel.dmesg_restrict is set), and those that need a folder's owner.
ROOTS_COMMANDS, OWNERS_COMMANDS = ("umount", "timedatectl", "dmesg"), ("chmod", "chown")
#: Most files of an inbox that are examined.
MOST_DROPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to examine, and for which user.

    Attributes:
        profiles: Folders of the inbox that the configuration names.
        uid: The user who runs the check.
        now: Unix seconds.
        proc: Where the kernel's files are.
    """

    layout: Layout
    profiles: tuple[str, ...] = ()
    settle_seconds: float = 5.0
    min_free_bytes: int | None = None
    uid: int
    now: float
    proc: Path = PROC

    @property
    def inboxes(self) -> tuple[Path, ...]:
        """The inbox and the folders of its profiles."""
        return (self.layout.inbox, *(self.layout.inbox / profile for profile in self.profiles))


def ask(layout: Layout, settings: Settings) -> Question:
    """Return the question for this user and this moment."""
    spool = settings.spool
    return Question(
        layout=layout,
        profiles=tuple(settings.profiles),
        settle_seconds=spool.settle_seconds,
        min_free_bytes=spool.min_free_bytes,
        uid=os.geteuid(),
        now=wall(),
    )


def examine(question: Question) -> list[Finding]:
    """Examine everything; return the findings in the order in which to repair them."""
    machine = [*judge_orphans(read_orphans(question.uid, question.proc))]
    root = question.layout.root
    try:
        status = root.stat()
    except (FileNotFoundError, NotADirectoryError):
        return [_no_root(root), *judge_clock(question.now, {}, {}), *machine]
    except OSError as error:
        why = f"{shown(root)} cannot be examined: {error.strerror}"
        return [fault("root", why, f"ls -ld {quoted(root.parent)}")]
    if not stat.S_ISDIR(status.st_mode):
        return [fault("root", f"{shown(root)} is not a folder: remove it, or choose another --root")]
    owner = _owner(question.layout, status)
    if not os.access(root, os.X_OK):
        why = f"{shown(root)} belongs to {user_name(owner)}, and you may not look into it"
        return [
            fault("root", why, f"chmod u+rwx {quoted(root)}") if question.uid == owner else note("root", why),
            *machine,
        ]
    findings = [
        *_examine_folders(question, owner),
        *_examine_access(question, owner),
        *_examine_filesystems(question),
        *_examine_work(question, owner),
        *_examine_drops(question),
        *machine,
    ]
    return [_runnable(finding, question.uid, owner) for finding in findings]


def _runnable(finding: Finding, uid: int, owner: int) -> Finding:
    """Return a finding with `sudo` before a command that needs another user."""
    command = finding.remedy.partition(" ")[0]
    if uid != 0 and (command in ROOTS_COMMANDS or (command in OWNERS_COMMANDS and uid != owner)):
        return replace(finding, remedy=f"sudo {finding.remedy}")
    return finding


def _no_root(root: Path) -> Finding:
    if root == SYSTEM_ROOT:
        remedy = f"sudo install -d -o obcd -g obcd -m 0755 {quoted(root)}"
        return warning("root", f"there is no spool at {shown(root)}, which the configuration names", remedy)
    return note("root", f"there is no spool at {shown(root)} yet: the first coordinator makes it (obcd up)")


def _examine_folders(question: Question, owner: int) -> list[Finding]:
    layout = question.layout
    findings = [
        Finding(subject="folders", severity=Severity(flaw.harm), sentence=flaw.sentence, remedy=flaw.remedy)
        for flaw in judge_folders(layout, question.inboxes, owner)
    ]
    if layout.per_user and os.path.isdir(layout.outbox) and not acl.is_supported(layout.outbox):
        why = f"the filesystem of {shown(layout.outbox)} has no ACLs, which per-user outboxes need"
        findings.append(fault("folders", why, "per_user = false  # in [spool], or mount it with acl"))
    return findings or [right("folders", f"the folders of {shown(layout.root)} are right")]


def _owner(layout: Layout, root: os.stat_result) -> int:
    """Return the daemon's user: the owner of its jobs or its outbox, or of the root if neither exists."""
    found = lstat(layout.jobs) or lstat(layout.outbox) or root
    return found.st_uid


def _examine_access(question: Question, owner: int) -> Iterator[Finding]:
    """Yield missing permissions: the daemon's user needs all, others only drop files."""
    layout = question.layout
    if question.uid == owner:
        for path in (layout.root, layout.jobs, layout.outbox, *question.inboxes):
            if os.path.isdir(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                yield fault(
                    "access",
                    f"you are the daemon's user and may not write into {shown(path)}",
                    f"chmod u+rwx {quoted(path)}",
                )
    elif question.uid == 0:
        for path in (layout.root, *question.inboxes):
            status = lstat(path)
            if status is not None and stat.S_ISDIR(status.st_mode) and not may_write(status, owner):
                why = f"the daemon's user {user_name(owner)} may not write into {shown(path)}"
                yield fault("access", why, f"chown {user_name(owner)} {quoted(path)}")
    elif os.path.isdir(layout.inbox) and not os.access(layout.inbox, os.W_OK | os.X_OK):
        status = layout.inbox.stat()
        remedy = (
            f"sudo usermod -aG {group_name(status.st_gid)} {user_name(question.uid)}" if status.st_mode & 0o020 else ""
        )
        yield note(
            "access", f"you may not drop into {shown(layout.inbox)}, which belongs to {user_name(owner)}", remedy
        )


def _examine_drops(question: Question) -> Iterator[Finding]:
    """Yield findings about files in the inbox that are never accepted in their present form."""
    links = doubles = 0
    for folder in question.inboxes:
        try:
            with os.scandir(folder) as entries:
                found = [entry for _, entry in zip(range(MOST_DROPS), entries, strict=False)]
        except OSError:
            continue
        for entry in found:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            is_drop = form_of(entry.name) is not None
            links += is_drop and stat.S_ISLNK(status.st_mode)
            doubles += is_drop and stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    place = shown(question.layout.inbox)
    if links:
        yield note(
            "drops", f"symbolic links in {place} are never followed ({links} of them): copy the files themselves"
        )
    if doubles:
        yield note(
            "drops",
            f"files in {place} with a second name, a hard link ({doubles} of them): each waits until that is gone",
        )


# --- the filesystems -------------------------------------------------------------------------------------------------


def _examine_filesystems(question: Question) -> list[Finding]:
    layout = question.layout
    places = [path for path in (layout.root, layout.inbox) if os.path.isdir(path)]
    findings = [*_judge_root_mount(question), *_judge_inbox_mount(question)]
    for source, target, what in (
        (layout.jobs, layout.outbox, "a job is published"),
        (layout.inbox, layout.claims, "a file is claimed"),
    ):
        pair = os.path.isdir(source) and os.path.isdir(target)
        if pair and read_mount(source) != read_mount(target):
            why = f"{shown(target)} is a separate filesystem: {what} by a rename, which cannot cross filesystems"
            findings.append(fault("filesystem", why, f"umount {quoted(target)}"))
    distinct = list({path.stat().st_dev: path for path in reversed(places)}.values())
    for path in distinct:
        findings += _judge_space(path, question)
    new = {path: made for path in distinct if (made := read_new_time(path)) is not None}
    return [*findings, *judge_clock(question.now, new, {path: path.stat().st_mtime for path in distinct})]


def _judge_space(path: Path, question: Question) -> list[Finding]:
    try:
        is_root = path == question.layout.root
        return judge_space(path, read_space(path), question.min_free_bytes, is_root=is_root)
    except OSError as error:
        return [fault("disk", f"the filesystem of {shown(path)} does not answer: {error.strerror}", "dmesg | tail")]


def _judge_root_mount(question: Question) -> Iterator[Finding]:
    root = question.layout.root
    mount = read_mount(root)
    if mount is None:
        return
    doubt, text = doubt_root(root, mount), f"{shown(root)} is on {mount.kind} (mounted at {shown(Path(mount.point))})"
    if doubt:
        yield fault("filesystem", doubt, LOCAL_ROOT) if mount.is_network else warning("filesystem", doubt, LOCAL_ROOT)
    elif mount.kind in IN_MEMORY:
        yield warning(
            "filesystem", f"{text}, which is in memory: all files are lost when the machine restarts", LOCAL_ROOT
        )
    else:
        yield right("filesystem", text)


def _judge_inbox_mount(question: Question) -> Iterator[Finding]:
    inbox = question.layout.inbox
    mount = read_mount(inbox)
    if not os.path.lexists(inbox) and inbox.parent != question.layout.root:
        why = f"the inbox {shown(inbox)} does not exist: the coordinator would make an empty one there"
        yield warning("filesystem", why, f"findmnt -T {quoted(inbox.parent)}  # is the share mounted?")
    if mount is None or not os.path.isdir(inbox) or mount == read_mount(question.layout.root):
        return
    if remote := describe_inbox(inbox, mount):
        yield note("filesystem", remote)
        return
    text = f"{shown(inbox)} is on another filesystem than the root ({mount.kind})"
    if not mount.is_doubtful:
        yield note("filesystem", f"{text}, which works: files are copied when they are claimed")
        return
    is_hasty = question.settle_seconds < SETTLE_SECONDS
    remedy = f"settle_seconds = {SETTLE_SECONDS:.0f}  # in [spool]: shares show old sizes for a while"
    why = f"{text}: if another machine serves it, no events arrive and new files are found only by scanning"
    yield note("filesystem", why, remedy if is_hasty else "")


# --- its coordinator -------------------------------------------------------------------------------------------------


def _examine_work(question: Question, owner: int) -> Iterator[Finding]:
    layout = question.layout
    holders = lock_holders(layout.root / "lock", question.proc)
    others = (lock_holders(layout.inbox / ".obcd" / "lock", question.proc) or set()) - (holders or set())
    if holders:
        yield right("lock", f"a coordinator runs on {shown(layout.root)} (pid {min(holders)})")
    elif holders is not None:
        start = "sudo systemctl start obcd-coordinator" if layout.root == SYSTEM_ROOT else "obcd up"
        yield note("lock", f"no coordinator runs on {shown(layout.root)}: dropped files wait", start)
    if others:
        why = f"another coordinator (pid {min(others)}), with another root, takes files from {shown(layout.inbox)}"
        yield fault("lock", why, f"ps -fp {min(others)}  # then stop one of the two, or give one of them another inbox")
    yield from _judge_status(question, is_running=holders is None or bool(holders))
    if question.uid in (0, owner):
        found = read_inotify(owner, question.proc)
        if found is not None:
            yield from judge_inotify(found, 0 if holders else len(question.inboxes))


def _judge_status(question: Question, *, is_running: bool) -> Iterator[Finding]:
    path = question.layout.status
    try:
        age = question.now - float(json.loads(path.read_bytes())["updated"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return
    if not math.isfinite(age):
        return
    if is_running and age > STALE_SECONDS:
        why = (
            f"the coordinator has not renewed its status for {duration(age)}: it hangs, or {shown(path.parent)} is full"
        )
        yield warning("status", why, f"df -h {quoted(path.parent)}; journalctl -u obcd-coordinator -n 50")
    elif not is_running and age > STALE_SECONDS:
        yield note(
            "status",
            f"an earlier coordinator ended {duration(age)} ago without a normal stop: it was killed, or crashed",
        )
    else:
        yield right("status", f"the status is {duration(age)} old")
