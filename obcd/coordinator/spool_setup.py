"""Open a spool: make its folders, and refuse folders that do not protect users from each other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from obcd.errors import InputError
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.folders.permissions import check_inboxes, quoted, shown
from obcd.users import user_name


def open_spool(layout: Layout, profiles: Iterable[str], lock: SpoolLock, *, takes_drops: bool) -> None:
    """Make the folders that are missing and take the locks.

    Args:
        takes_drops: Whether other users drop files here, so that the inbox is checked.

    Raises:
        AlreadyRunningError: If another coordinator has locked the spool.
        InputError: If the folders cannot be made, or others can reach their content; no lock is held then.
    """
    names = list(profiles)
    if takes_drops:
        check_inboxes(layout, names)
    layout.create(names)
    lock.acquire()
    try:
        if layout.per_user:
            _check_acls(layout)
    except BaseException:
        lock.release()
        raise


def open_profiles(layout: Layout, profiles: Iterable[str]) -> None:
    """Make the folders of new profiles if they are missing.

    Raises:
        InputError: If a folder cannot be made, or others can reach its content.
    """
    names = list(profiles)
    check_inboxes(layout, names)
    try:
        layout.create_profiles(names)
    except OSError as error:
        raise InputError(f"cannot make the folder {error.filename}: {error.strerror}") from None


def _check_acls(layout: Layout) -> None:
    try:
        has_acls = acl.has_acls(layout.jobs)
    except OSError as error:
        raise InputError(f"cannot test whether {layout.jobs} supports ACLs: {error.strerror}") from None
    if not has_acls:
        raise InputError(
            f"[spool] per_user needs ACLs, and the filesystem of {layout.root} has none: put the root on ext4, XFS "
            "or Btrfs (mounted with acl), or set per_user = false, so that the group can read all results"
        )


def open_to_api(layout: Layout, api: int, profile: str) -> Iterator[str]:
    """Let the API's user drop files and reach its results by their names; it can list and read nothing else.

    Args:
        api: The API's user.
        profile: The profile of its drops, "" for the inbox itself.

    Yields:
        What stays closed to it, and what to do, for people.
    """
    for folder, permissions in wanted_by_api(layout, profile).items():
        if permissions & acl.WRITE and not folder.stat().st_mode & stat.S_ISVTX:
            yield (
                f"{shown(folder)} is not for the drops of several users, so [api] user is not let in: "
                f"chmod 3730 {quoted(folder)}"
            )
        elif folder.stat().st_mode & permissions != permissions and not _let_in(folder, api, permissions):
            yield (
                f"{shown(folder)} is closed to [api] user: "
                f"sudo setfacl -m u:{user_name(api)}:{letters_of(permissions)} {quoted(folder)}"
            )


def wanted_by_api(layout: Layout, profile: str) -> dict[Path, int]:
    """Return `{folder: the permissions that the API's user needs there}`, as bits of `acl`."""
    inboxes = [layout.inbox, *([layout.inbox / profile] if profile else [])]
    return {
        layout.root: acl.ENTER, layout.outbox: acl.ENTER, **dict.fromkeys(inboxes, acl.WRITE | acl.ENTER),
    }  # fmt: skip


def letters_of(permissions: int) -> str:
    """Return permissions as setfacl takes them, e.g. `wx`."""
    return "".join(letter for bit, letter in ((acl.WRITE, "w"), (acl.ENTER, "x")) if permissions & bit)


def _let_in(folder: Path, uid: int, permissions: int) -> bool:
    """Return whether a user has permissions now; only the owner of a folder may give them."""
    if uid in acl.readers(folder) and folder.stat().st_uid != os.geteuid():  # an administrator gave them
        return True
    try:
        return acl.admit(folder, uid, permissions)
    except OSError:
        return False
