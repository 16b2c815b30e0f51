"""Choose the folder of a submitter's answers: the outbox itself, or (`[spool] per_user`) the submitter's home in it.

outbox/[<profile>/]<stem>/          for everybody: the group reads it
outbox/<user>/[<profile>/]<stem>/   for one submitter: a home is 0700, and an ACL lets only them list and read it

A home has the name of the user, or the user's number if there is no name or another file has it. The ACL says to whom a
home belongs, not the name, because names can pass to other users. A file that is made in a home inherits the ACL; one
that is renamed into it does not.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from obcd.spool.folders import acl, disk
from obcd.spool.folders.layout import Layout
from obcd.users import find_user_name

#: Longest name of a home, in bytes.
MAX_NAME_BYTES = 100


def home_names(uid: int) -> tuple[str, ...]:
    """Return the possible names of a user's home, the preferred one first."""
    name = find_user_name(uid)
    is_plain = name.isprintable() and "/" not in name and not name.startswith(".")
    return (name, str(uid)) if name and is_plain and len(os.fsencode(name)) <= MAX_NAME_BYTES else (str(uid),)


def make_place(layout: Layout, uid: int, profile: str) -> Path:
    """Return the folder of the outbox for a job of a submitter; make it if it is missing.

    Raises:
        OSError: If it cannot be made, or cannot be closed to other users.
    """
    disk.make_folder(layout.outbox, 0o750)  # it may have been removed
    parent = _make_home(layout.outbox, uid) if layout.per_user else layout.outbox
    if not profile:
        return parent
    place = parent / profile
    disk.make_folder(place, 0o750)
    if not layout.per_user and acl.heirs(place):
        why = f"it is a home of [spool] per_user, and the profile '{profile}' needs the name: rename it"
        raise FileExistsError(errno.EEXIST, why, str(place))
    return place


def let_pass(layout: Layout, place: Path, uid: int) -> None:
    """Let a user reach what is in a folder of the outbox by its name, without listing the folders on the way.

    Raises:
        OSError: If a disk operation fails.
    """
    for folder in (place, *place.parents):
        if not folder.is_relative_to(layout.outbox):
            break
        acl.admit(folder, uid, acl.ENTER)


def find_places(outbox: Path, uid: int, profile: str) -> tuple[Path, ...]:
    """Return the folders that may hold a submitter's answers, with or without `per_user`; some may not exist."""
    return tuple(parent / profile for parent in (outbox, *(outbox / name for name in home_names(uid))))


def is_home(layout: Layout, path: Path) -> bool:
    """Return whether a path is a user's home in the outbox; every user who may look at the outbox may call it."""
    return path.parent == layout.outbox and bool(acl.heirs(path))


def _make_home(outbox: Path, uid: int) -> Path:
    for name in home_names(uid):
        home = outbox / name
        disk.make_folder(home, 0o700)
        if _may_be_home_of(home, uid):
            if acl.heirs(home) != (uid,) or uid not in acl.readers(home):  # others may be let pass: `let_pass`
                acl.open_folder(home, uid)
            return home
    raise FileExistsError(errno.EEXIST, "another file has its name: rename that file", str(outbox / str(uid)))


def _may_be_home_of(folder: Path, uid: int) -> bool:
    """Return whether a folder of the daemon is this user's alone, or has no user yet (new, or made before a crash)."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    named = acl.heirs(folder)
    return named == (uid,) or (not named and not status.st_mode & 0o077)
