"""Whose a drop is: the owner of its file, or the user for whom the API's user dropped it (the submitter in its marker).

Only a drop of the API's user (`[api] user`) may name somebody else, and never root or the daemon: a drop cannot get
more rights than its submitter has.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from obcd.spool.inbox.markers import Marker


@dataclass(frozen=True, slots=True)
class Submitter:
    """The user whose job a drop becomes.

    Attributes:
        dropped_by: The user who dropped it for the submitter, and may read its results; None: the submitter.
    """

    uid: int
    dropped_by: int | None = None


def find_submitter(owner: int, marker: Marker | None, api: int | None) -> Submitter:
    """Return whose a drop is.

    Args:
        owner: The owner of its file.
        api: The API's user; None: nobody may drop for others.

    Raises:
        ValueError: If the marker names nobody whose job it could be; the message is the reason.
    """
    name = marker.submitter if marker is not None else ""
    if not name or api is None or owner != api:
        return Submitter(owner)
    uid = find_uid(name)
    if uid is None:
        raise ValueError(f"its marker names the submitter '{name}', who is no user of this machine")
    if uid == api:
        return Submitter(owner)
    if uid in (0, os.geteuid()):
        raise ValueError(
            f"its marker names the submitter '{name}', whose rights no drop gets: neither root's nor obcd's"
        )
    return Submitter(uid, api)


def find_api_user(name: str) -> int | None:
    """Return the user who may drop for others; None if there is none, or if it is root or the daemon itself."""
    uid = find_uid(name)
    return None if uid in (0, os.geteuid()) else uid


def find_uid(name: str) -> int | None:
    """Return the number of a user of this machine; None if there is none of this name."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # ValueError: a NUL in it
        return None
