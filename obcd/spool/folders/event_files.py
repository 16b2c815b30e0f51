"""The files of `root/events/`, one for each event of which a notification is due.

The process that makes an event true writes its file first (a clerk before it publishes a job, for example), and the
notifier removes it after the notification was sent. So a crash at any moment loses no notification; it may repeat one.

The folder exists exactly while the configuration wants notifications: without it no event is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from obcd.core.events import NotableEvent
from obcd.spool.folders import disk
from obcd.spool.folders.layout import make_own

#: The folder's name in the root.
NAME = "events"
#: An id that is a file name, and a word of a header.
ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
#: Longest file of an event, in bytes; a longer one is not obcd's.
MAX_EVENT_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class EventFile:
    """A file of the folder.

    Attributes:
        sent: The ways by which the notification was sent already, e.g. `{"webhook"}`.
    """

    event: NotableEvent
    sent: frozenset[str] = frozenset()


def folder_of(root: Path) -> Path:
    """Return the folder of a spool's root."""
    return root / NAME


def open_folder(root: Path) -> None:
    """Make the folder: from now on events are written.

    Raises:
        ObcdError: If something else is there, or others can open it.
        OSError: If it cannot be made.
    """
    make_own(folder_of(root))


def close_folder(root: Path) -> None:
    """Remove the folder and the events in it: from now on none is written. A missing one is not an error.

    Raises:
        OSError: If it cannot be removed.
    """
    disk.remove_tree(folder_of(root))


def write_event(root: Path, event: NotableEvent, sent: Collection[str] = ()) -> bool:
    """Write an event durably, in place of an earlier version of it; any process of the daemon may call it.

    Returns:
        Whether it was written: without the folder no notification is wanted.

    Raises:
        OSError: If it cannot be written.
        ValueError: If its id is not valid.
    """
    if not ID.fullmatch(event.id):
        raise ValueError("the id of an event must be a word")
    folder = folder_of(root)
    if not folder.is_dir():
        return False
    disk.write_json(folder / f"{event.id}.json", {**event.to_json(), "sent": sorted(sent)}, 0o600)
    return True


def find_events(root: Path) -> list[str]:
    """Return the ids of the events, sorted; none without the folder."""
    try:
        names = os.listdir(folder_of(root))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json") and name[0] != ".")


def read_event(root: Path, event: str) -> EventFile | None:
    """Read an event by its id; None if there is none, or its file is not one that obcd wrote."""
    path = folder_of(root) / f"{event}.json"
    try:
        if path.lstat().st_size > MAX_EVENT_BYTES:
            return None
        document = disk.read_json(path)
        found = NotableEvent.from_json(document)
    except (OSError, ValueError):
        return None
    sent = document.get("sent", [])
    if found.id != event or not ID.fullmatch(event) or not isinstance(sent, list):
        return None
    return EventFile(found, frozenset(map(str, sent)))


def remove_event(root: Path, event: str) -> None:
    """Remove the file of an event by its id; a missing one is not an error."""
    disk.remove(folder_of(root) / f"{event}.json")
