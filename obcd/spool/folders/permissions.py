"""Check the folders of a spool: their types, their owners and their permissions. Changes nothing.

A user's own root is private and has the permissions of the umask; a shared one (the system's, or one with an inbox that
other users may write to) must keep its users apart: the coordinator does not start on an inbox that does not
(`check_inboxes`), and `obcd check` reports all flaws. A folder that this user may not look at is skipped.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from obcd.errors import InputError
from obcd.spool.folders.layout import Layout
from obcd.system_paths import SYSTEM_ROOT
from obcd.text import printable
from obcd.users import group_name, user_name

#: Modes of a shared spool. With 3770 its users may also list the inbox.
INBOX_MODES, OUTBOX_MODE, OWN_MODE = (0o3730, 0o3770), 0o2750, 0o700


class FlawHarm(StrEnum):
    """The effect of a flaw; the values are the severities of a finding."""

    BREACH = "fault"  # lets other users read or change prompts or answers
    WEAKNESS = "warning"  # not as it should be, but gives no access to content
    ODDITY = "note"  # worth knowing


@dataclass(frozen=True, slots=True)
class Flaw:
    """A flaw of a folder: a sentence, and the command that fixes it ("" if there is none)."""

    harm: FlawHarm
    sentence: str
    remedy: str = ""


def check_inboxes(layout: Layout, profiles: Iterable[str]) -> None:
    """Refuse an inbox in which one user can change another's drops; a missing folder is not a flaw.

    Raises:
        InputError: With what is wrong and the command that fixes it.
    """
    for path in (layout.inbox, *(layout.inbox / profile for profile in profiles)):
        for flaw in judge_inbox(path, os.geteuid(), is_shared=is_shared(layout)):
            if flaw.harm is FlawHarm.BREACH:
                raise InputError("; fix it, then start again: ".join(filter(None, (flaw.sentence, flaw.remedy))))


def judge_folders(layout: Layout, inboxes: Iterable[Path], owner: int) -> Iterator[Flaw]:
    """Yield the flaws of all folders that exist.

    Args:
        inboxes: The inbox and the folders of its profiles.
        owner: The daemon's user.
    """
    for path in (layout.jobs, layout.answered, layout.claims.parent):
        yield from _judge_own(path, owner)
    if os.access(layout.claims.parent, os.X_OK):
        yield from _judge_own(layout.claims, owner)
    shared = is_shared(layout)
    for path in inboxes:
        yield from judge_inbox(path, owner, is_shared=shared)
    yield from _judge_outbox(layout.outbox, owner, is_shared=shared)
    root = layout.root.stat()
    if _others_may_write(root) and not root.st_mode & stat.S_ISVTX:
        why = f"other users may rename the content of {shown(layout.root)} (mode {_mode(root)})"
        yield Flaw(FlawHarm.BREACH, why, f"chmod go-w {quoted(layout.root)}")


def shown(path: Path) -> str:
    """Return a path ready to print."""
    return printable(str(path))


def quoted(path: Path) -> str:
    """Return a path as a word of a shell command, ready to print."""
    return shlex.quote(shown(path))


def lstat(path: Path) -> os.stat_result | None:
    """Return the status of a path without following it; None if it is missing or this user may not see it."""
    try:
        return path.lstat()
    except OSError:
        return None


def _mode(status: os.stat_result) -> str:
    return f"{status.st_mode & 0o7777:04o}"


def _judge_own(path: Path, owner: int) -> Iterator[Flaw]:
    """Yield the flaws of a folder for the daemon alone: it holds prompts."""
    status = lstat(path)
    if status is None:
        return
    place = shown(path)
    if not stat.S_ISDIR(status.st_mode):
        why = f"{place} is not a folder, and obcd needs its own folder there"
        yield Flaw(FlawHarm.BREACH, why, f"mv {quoted(path)} {quoted(path)}.away")
    elif status.st_uid != owner:
        why = f"{place} belongs to {user_name(status.st_uid)}, not to the daemon's user"
        yield Flaw(FlawHarm.BREACH, why, f"sudo chown -R {user_name(owner)} {quoted(path)}")
    elif status.st_mode & 0o777 != OWN_MODE:  # a setgid bit comes from the folder above and harms nothing
        opened = status.st_mode & 0o077
        why = "other users may access the prompts in it" if opened else f"it should be {OWN_MODE:04o}"
        harm = FlawHarm.BREACH if opened or status.st_mode & OWN_MODE != OWN_MODE else FlawHarm.ODDITY
        yield Flaw(harm, f"{place} has mode {_mode(status)}: {why}", f"chmod {OWN_MODE:04o} {quoted(path)}")


def judge_inbox(path: Path, owner: int, *, is_shared: bool) -> Iterator[Flaw]:
    """Yield the flaws of the inbox, or of a profile's folder in it.

    Args:
        owner: The daemon's user.
        is_shared: Whether the spool is shared; if not, this folder counts as shared if other users may write to it.
    """
    status = lstat(path)
    if status is None:
        return
    if stat.S_ISLNK(status.st_mode):
        yield _judge_link(path, ": no event comes through a link, so drops are only found by scanning")
        status = _stat(path)
    if status is not None and not stat.S_ISDIR(status.st_mode):
        yield _no_folder(path)
    elif status is not None and (is_shared or _others_may_write(status)):
        yield from _judge_owner(path, status, owner)
        yield from _judge_shared_inbox(path, status)


def _judge_outbox(path: Path, owner: int, *, is_shared: bool) -> Iterator[Flaw]:
    status = lstat(path)
    if status is None:
        return
    if stat.S_ISLNK(status.st_mode):
        yield _judge_link(path)
        status = _stat(path)
    if status is None:
        return
    if not stat.S_ISDIR(status.st_mode):
        yield _no_folder(path)
    elif is_shared:
        yield from _judge_owner(path, status, owner)
        yield from _judge_shared_outbox(path, status)
    elif _others_may_write(status) and not status.st_mode & stat.S_ISVTX:
        why = f"other users may rename the content of {shown(path)} (mode {_mode(status)})"
        yield Flaw(FlawHarm.BREACH, why, f"chmod go-w {quoted(path)}")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _no_folder(path: Path) -> Flaw:
    return Flaw(FlawHarm.BREACH, f"{shown(path)} is not a folder", f"mv {quoted(path)} {quoted(path)}.away")


def _judge_link(path: Path, more: str = "") -> Flaw:
    try:
        path.stat()
    except OSError as error:
        return Flaw(FlawHarm.BREACH, f"{shown(path)} is a broken link: {error.strerror}")
    return Flaw(FlawHarm.ODDITY, f"{shown(path)} is a link to {shown(Path(os.path.realpath(path)))}{more}")


def _judge_owner(path: Path, status: os.stat_result, owner: int) -> Iterator[Flaw]:
    """Yield a flaw if a shared folder has the wrong owner, who may remove other users' files even if it is sticky."""
    if status.st_uid != owner:
        why = f"{shown(path)} belongs to {user_name(status.st_uid)}, not to the daemon's user"
        yield Flaw(FlawHarm.BREACH, why, f"sudo chown {user_name(owner)} {quoted(path)}")


def _judge_shared_inbox(path: Path, status: os.stat_result) -> Iterator[Flaw]:
    mode, command = status.st_mode & 0o7777, f"chmod {INBOX_MODES[0]:04o} {quoted(path)}"
    if mode in INBOX_MODES:
        return
    place = f"{shown(path)} has mode {_mode(status)}"
    if _others_may_write(status) and not mode & stat.S_ISVTX:
        yield Flaw(FlawHarm.BREACH, f"{place}: its users may delete and replace each other's files", command)
    elif mode & 0o007:
        yield Flaw(FlawHarm.WEAKNESS, f"{place}: everybody on this machine may look into it or drop there", command)
    elif not mode & 0o020:
        yield Flaw(FlawHarm.WEAKNESS, f"{place}: the group {group_name(status.st_gid)} may not drop there", command)
    else:
        yield Flaw(FlawHarm.WEAKNESS, f"{place}, not {INBOX_MODES[0]:04o}: files do not get its group", command)


def _judge_shared_outbox(path: Path, status: os.stat_result) -> Iterator[Flaw]:
    mode, command = status.st_mode & 0o7777, f"chmod {OUTBOX_MODE:04o} {quoted(path)}"
    place = f"{shown(path)} has mode {_mode(status)}"
    if mode & 0o022:
        yield Flaw(FlawHarm.BREACH, f"{place}: users other than the daemon's may add or remove answers", command)
    elif mode & 0o007:
        yield Flaw(FlawHarm.WEAKNESS, f"{place}: everybody on this machine may see whose jobs there are", command)
    elif mode != OUTBOX_MODE:
        yield Flaw(
            FlawHarm.ODDITY, f"{place}, not {OUTBOX_MODE:04o}: the group may not find its answers there", command
        )


def is_shared(layout: Layout) -> bool:
    """Return whether users other than the daemon's drop here."""
    status = lstat(layout.inbox)
    return layout.root == SYSTEM_ROOT or (status is not None and _others_may_write(status))


def _others_may_write(status: os.stat_result) -> bool:
    """Return whether anybody except the owner may write; the owner's private group (umask 002) does not count."""
    if stat.S_ISLNK(status.st_mode):
        return False
    return bool(status.st_mode & 0o002) or (
        bool(status.st_mode & 0o020) and not _is_own_group(status.st_uid, status.st_gid)
    )


def may_write(status: os.stat_result, uid: int) -> bool:
    """Return whether the mode of a folder lets a user make files in it; root always may."""
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
