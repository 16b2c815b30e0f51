"""The folders of a spool: what each is, whose it is, and who may come at it (design: rights).

A user's own root is private and as the umask made it; a shared one (the system's, or one whose inbox others may write
into) has to keep its users apart. What this user may not look at is passed over.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from obcd.reports.findings import Finding, fault, note, quoted, right, shown, warning
from obcd.spool.layout import SYSTEM_ROOT, Layout

#: Modes of a shared spool. With 3770 its users may list the inbox too.
INBOX_MODES, OUTBOX_MODE, OWN_MODE = (0o3730, 0o3770), 0o2750, 0o700


def examine_folders(layout: Layout, inboxes: Iterable[Path], owner: int) -> list[Finding]:
    """Judge the folders that are there.

    Args:
        inboxes: The inbox and the folders of its profiles.
        owner: The daemon's user.
    """
    findings = [*_judge_own(layout.jobs, owner), *_judge_own(layout.claims.parent, owner)]
    if os.access(layout.claims.parent, os.X_OK):
        findings += _judge_own(layout.claims, owner)
    is_shared = _is_shared(layout)
    for path in inboxes:
        findings += _judge_public(path, owner, "inbox", is_shared=is_shared)
    findings += _judge_public(layout.outbox, owner, "outbox", is_shared=is_shared)
    root = layout.root.stat()
    if _others_may_write(root) and not root.st_mode & stat.S_ISVTX:
        why = f"others may rename what lies in {shown(layout.root)} (mode {_mode(root)})"
        findings.append(fault("folders", why, f"chmod go-w {quoted(layout.root)}"))
    return findings or [right("folders", f"the folders of {shown(layout.root)} are as they should be")]


def lstat(path: Path) -> os.stat_result | None:
    """Look at a path without following it; None when there is nothing, or nothing that this user may see."""
    try:
        return path.lstat()
    except OSError:
        return None


def _mode(status: os.stat_result) -> str:
    return f"{status.st_mode & 0o7777:04o}"


def _judge_own(path: Path, owner: int) -> Iterator[Finding]:
    """Judge a folder that is the daemon's alone: prompts lie in it."""
    status = lstat(path)
    if status is None:
        return
    place = shown(path)
    if not stat.S_ISDIR(status.st_mode):
        yield fault(
            "folders",
            f"{place} is no folder, and obcd keeps one of its own there",
            f"mv {quoted(path)} {quoted(path)}.away",
        )
    elif status.st_uid != owner:
        command = f"sudo chown -R {user_name(owner)} {quoted(path)}"
        yield fault("folders", f"{place} belongs to {user_name(status.st_uid)}, not to the daemon's user", command)
    elif status.st_mode & 0o777 != OWN_MODE:  # a setgid bit comes from the folder above and harms nothing
        opened = status.st_mode & 0o077
        why = "others may come at the prompts in it" if opened else f"it should be {OWN_MODE:04o}"
        make = fault if opened or status.st_mode & OWN_MODE != OWN_MODE else note
        yield make("folders", f"{place} has mode {_mode(status)}: {why}", f"chmod {OWN_MODE:04o} {quoted(path)}")


def _judge_public(path: Path, owner: int, kind: str, *, is_shared: bool) -> Iterator[Finding]:
    """Judge an inbox or the outbox."""
    status = lstat(path)
    if status is None:
        return
    place = shown(path)
    if stat.S_ISLNK(status.st_mode):
        try:
            status = path.stat()
        except OSError as error:
            yield fault("folders", f"{place} is a link that leads nowhere: {error.strerror}")
            return
        scanned = ": no event comes through a link, so drops are only found by scanning" if kind == "inbox" else ""
        yield note("folders", f"{place} is a link to {shown(Path(os.path.realpath(path)))}{scanned}")
    if not stat.S_ISDIR(status.st_mode):
        yield fault("folders", f"{place} is no folder", f"mv {quoted(path)} {quoted(path)}.away")
        return
    if is_shared and status.st_uid != owner:
        command = f"sudo chown {user_name(owner)} {quoted(path)}"
        yield fault("folders", f"{place} belongs to {user_name(status.st_uid)}, not to the daemon's user", command)
    if is_shared:
        judge = _judge_shared_inbox if kind == "inbox" else _judge_shared_outbox
        yield from judge(path, status)
    elif _others_may_write(status) and not status.st_mode & stat.S_ISVTX:
        yield fault(
            "folders", f"others may rename what lies in {place} (mode {_mode(status)})", f"chmod go-w {quoted(path)}"
        )


def _judge_shared_inbox(path: Path, status: os.stat_result) -> Iterator[Finding]:
    mode, command = status.st_mode & 0o7777, f"chmod {INBOX_MODES[0]:04o} {quoted(path)}"
    if mode in INBOX_MODES:
        return
    place = f"{shown(path)} has mode {_mode(status)}"
    if _others_may_write(status) and not mode & stat.S_ISVTX:
        yield fault("folders", f"{place}: its users may delete and replace each other's files", command)
    elif mode & 0o007:
        yield warning("folders", f"{place}: everybody on this machine may look into it or drop there", command)
    elif not mode & 0o020:
        yield warning("folders", f"{place}: the group {group_name(status.st_gid)} may not drop there", command)
    else:
        yield warning("folders", f"{place}, not {INBOX_MODES[0]:04o}: files do not get its group", command)


def _judge_shared_outbox(path: Path, status: os.stat_result) -> Iterator[Finding]:
    mode, command = status.st_mode & 0o7777, f"chmod {OUTBOX_MODE:04o} {quoted(path)}"
    place = f"{shown(path)} has mode {_mode(status)}"
    if mode & 0o022:
        yield fault("folders", f"{place}: others than the daemon may put answers there or take them away", command)
    elif mode & 0o007:
        yield warning("folders", f"{place}: everybody on this machine may see whose jobs there are", command)
    elif mode != OUTBOX_MODE:
        yield note("folders", f"{place}, not {OUTBOX_MODE:04o}: the group may not find its answers there", command)


def _is_shared(layout: Layout) -> bool:
    status = lstat(layout.inbox)
    return layout.root == SYSTEM_ROOT or (status is not None and _others_may_write(status))


def _others_may_write(status: os.stat_result) -> bool:
    """Tell whether anybody but the owner may write; a group that is the owner's alone (umask 002) is nobody else."""
    if stat.S_ISLNK(status.st_mode):
        return False
    return bool(status.st_mode & 0o002) or (
        bool(status.st_mode & 0o020) and not _is_own_group(status.st_uid, status.st_gid)
    )


def may_write(status: os.stat_result, uid: int) -> bool:
    """Tell whether a folder's mode lets a user make files in it; root may always."""
    if uid == 0:
        return True
    if status.st_uid == uid:
        return status.st_mode & 0o300 == 0o300
    try:
        user = pwd.getpwuid(uid)
        is_member = status.st_gid in os.getgrouplist(user.pw_name, user.pw_gid)
    except KeyError:
        is_member = False
    wanted = 0o030 if is_member else 0o003
    return status.st_mode & wanted == wanted


def _is_own_group(uid: int, gid: int) -> bool:
    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}


def user_name(uid: int) -> str:
    """Return a user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or the number where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
