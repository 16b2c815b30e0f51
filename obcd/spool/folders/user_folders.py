"""Where a submitter's answers go: the outbox itself, or (`[spool] per_user`) a home of his own in it.

outbox/[<profile>/]<stem>/          everybody's: the group reads it
outbox/<user>/[<profile>/]<stem>/   one submitter's: a home is 0700, and an ACL lets him alone list and read it

A home goes by the user's name, else by his number, also where something else has the name. Whose it is stands in its
ACL and not in its name: names change hands. What is made in it inherits the ACL; what is renamed into it does not.
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
    """Return what a user's home may be called, the best first."""
    name = find_user_name(uid)
    is_plain = name.isprintable() and "/" not in name and not name.startswith(".")
    return (name, str(uid)) if name and is_plain and len(os.fsencode(name)) <= MAX_NAME_BYTES else (str(uid),)


def make_place(layout: Layout, uid: int, profile: str) -> Path:
    """Return the folder of the outbox that a job of a submitter goes into; it is made where it is missing.

    Raises:
        OSError: If it cannot be made, or cannot be kept from others.
    """
    disk.make_folder(layout.outbox, 0o750)  # it may have been taken away
    parent = _make_home(layout.outbox, uid) if layout.per_user else layout.outbox
    if not profile:
        return parent
    place = parent / profile
    disk.make_folder(place, 0o750)
    if not layout.per_user and acl.readers(place):
        why = f"it is a home of [spool] per_user, and the profile '{profile}' needs the name: rename it"
        raise FileExistsError(errno.EEXIST, why, str(place))
    return place


def find_places(outbox: Path, uid: int, profile: str) -> tuple[Path, ...]:
    """Return the folders in which answers of a submitter may lie, whichever rule is in force; some may not be there."""
    return tuple(parent / profile for parent in (outbox, *(outbox / name for name in home_names(uid))))


def is_home(layout: Layout, path: Path) -> bool:
    """Return whether a path is somebody's home in the outbox; whoever may look at the outbox may ask."""
    return path.parent == layout.outbox and bool(acl.readers(path))


def _make_home(outbox: Path, uid: int) -> Path:
    for name in home_names(uid):
        home = outbox / name
        disk.make_folder(home, 0o700)
        if _may_be_home_of(home, uid):
            acl.open_folder(home, uid)
            return home
    raise FileExistsError(errno.EEXIST, "something else has its name: rename that", str(outbox / str(uid)))


def _may_be_home_of(folder: Path, uid: int) -> bool:
    """Return whether a folder is ours and this user's alone, or still nobody's (made just now, or before a crash)."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    named = acl.readers(folder)
    return named == (uid,) or (not named and not status.st_mode & 0o077)
