"""Taking a spool: its folders are made, and refused where they do not keep their users apart."""

from __future__ import annotations

from collections.abc import Iterable

from obcd.errors import InputError
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.folders.permissions import check_inboxes


def open_spool(layout: Layout, profiles: Iterable[str], lock: SpoolLock, *, takes_drops: bool) -> None:
    """Make the folders that are missing and take the locks.

    Args:
        takes_drops: Whether strangers drop here, so that the inbox has to be as it should be.

    Raises:
        AlreadyRunningError: If another coordinator has the spool.
        InputError: If the folders cannot be made, or others may come at what is in them; nothing is held then.
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
    """Make the folders of profiles that came, where they are missing.

    Raises:
        InputError: If one cannot be made, or others may come at what is in it.
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
        raise InputError(f"cannot try whether {layout.jobs} keeps ACLs: {error.strerror}") from None
    if not has_acls:
        raise InputError(
            f"[spool] per_user needs ACLs, and the filesystem of {layout.root} keeps none: put the root on ext4, XFS "
            "or Btrfs (mounted with acl), or set per_user = false, and the group reads all answers"
        )
