"""Open a spool: make its folders, and refuse folders that do not protect users from each other."""

from __future__ import annotations

from collections.abc import Iterable

from obcd.errors import InputError
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.folders.permissions import check_inboxes


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
