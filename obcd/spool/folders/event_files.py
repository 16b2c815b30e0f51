"""The files of `root/events/`, one for each event of which a notification is due.

The process that makes an event true writes its file first (a clerk before it publishes a job, for example), and the
notifier removes it after the notification was sent. So a crash at any moment loses no notification; it may repeat one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator
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


def write_event(root: Path, event: NotableEvent, sent: Collection[str] = ()) -> None:
    """Write an event durably, in place of an earlier version of it; any process of the daemon may call it.

    Raises:
        OSError: If it cannot be written.
        ObcdError: If the folder is not the daemon's own.
        ValueError: If its id is not valid.
    """
    if not ID.fullmatch(event.id):
        raise ValueError("the id of an event must be a word")
    folder = folder_of(root)
    make_own(folder)
    disk.write_json(folder / f"{event.id}.json", {**event.to_json(), "sent": sorted(sent)}, 0o600)


def read_events(root: Path) -> Iterator[EventFile]:
    """Yield the events whose files can be read, in no order; a folder that does not exist has none."""
    try:
        names = sorted(os.listdir(folder_of(root)))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        path = folder_of(root) / name
        if name.startswith(".") or path.suffix != ".json":  # of a write that is under way or was interrupted
            continue
        with contextlib.suppress(OSError, ValueError):
            if (found := _read(path)) is not None:
                yield found


def _read(path: Path) -> EventFile | None:
    if path.lstat().st_size > MAX_EVENT_BYTES:
        return None
    document = disk.read_json(path)
    event = NotableEvent.from_json(document)
    sent = document.get("sent", [])
    if event.id != path.stem or not ID.fullmatch(event.id) or not isinstance(sent, list):
        return None
    return EventFile(event, frozenset(map(str, sent)))


def remove_event(root: Path, event: str) -> None:
    """Remove the file of an event by its id; a missing one is not an error."""
    disk.remove(folder_of(root) / f"{event}.json")
