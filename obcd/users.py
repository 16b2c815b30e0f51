"""Names of the users and groups of this machine. Floor 0."""

from __future__ import annotations

import grp
import pwd


def find_user_name(uid: int) -> str:
    """Return a user's name, or "" if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def user_name(uid: int) -> str:
    """Return a user's name, or the number if there is none."""
    return find_user_name(uid) or str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or the number if there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)
