"""File events of the inbox, as a wake-up and nothing more: a scan is the truth.

watchdog's observers can die, lose events, or watch a folder that was replaced, all without a word; so the health of
the watch is checked, and on any doubt it is built again. From a network filesystem no events come (inotify(7)), or only
those of this machine's own writers; there it is not even tried.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from obcd.coordinator.loop_waits import Waker
from obcd.spool.folders.mounts import SETTLE_SECONDS, find_mount, read_table, real_path, tell_inbox

logger = logging.getLogger(__name__)

# Its only error is that it looked once more after it was stopped, which happens at every stop (watchdog 7.1.0).
logging.getLogger("watchdog.observers.inotify").setLevel(logging.CRITICAL)


class _News(FileSystemEventHandler):
    """Notes that something happened, and wakes the loop once: a writer makes thousands of events, one scan sees all."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self.has_come = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note it; the observer's thread, which would end of an error."""
        if event.event_type not in ("opened", "closed_no_write") and not self.has_come:
            self.has_come = True
            self._waker.wake()


class InboxWatch:
    """Watches some folders (not what is below them), of which the first is the inbox. Main thread only.

    Args:
        waker: Woken by the watch's thread.
    """

    def __init__(self, folders: list[Path], waker: Waker) -> None:
        self._folders = folders
        self._news = _News(waker)
        self._observer: BaseObserver | None = None
        self._identities: list[tuple[int, int] | None] = []
        self._is_warned = False
        self._inbox = real_path(folders[0])
        #: What is different with the inbox where another machine serves it, "" where none does.
        self.note = ""

    @property
    def least_settle_seconds(self) -> float:
        """For how long a file has to lie unchanged at least, whatever the configuration says."""
        return SETTLE_SECONDS if self.note else 0.0

    @property
    def has_news(self) -> bool:
        """Whether something happened in the folders since the last `take_news`."""
        return self._news.has_come

    def take_news(self) -> None:
        """Forget what happened so far: the scan that follows sees it."""
        self._news.has_come = False

    def look_at(self, folders: list[Path]) -> None:
        """Watch these folders instead, from the next `ensure` on."""
        self._folders = folders

    def ensure(self) -> None:
        """Start the watch, or build it again when it no longer watches what it should."""
        if self._is_remote():  # and not a look at the folders themselves, which could wait for a server
            self.stop()
            return
        identities = [_identity(folder) for folder in self._folders]
        if self._observer is not None and self._observer.is_alive() and identities == self._identities:
            emitters = self._observer.emitters
            if all(emitter.is_alive() for emitter in emitters):
                return
        self.stop()
        self._identities = identities
        self._start()

    def _is_remote(self) -> bool:
        """Return whether the inbox lies on a network filesystem by now."""
        note = tell_inbox(self._folders[0], find_mount(read_table(), self._inbox))
        if note and not self.note:
            logger.warning("%s", note, extra={"action": "inbox_remote"})
        self.note = note
        return bool(note)

    def stop(self) -> None:
        """End the watch."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(2)
            self._observer = None

    def _start(self) -> None:
        observer = Observer()
        try:
            for folder, identity in zip(self._folders, self._identities, strict=True):
                if identity is not None:
                    observer.schedule(self._news, str(folder), recursive=False)
            observer.start()
        except OSError as error:  # no inotify instance left, say: scanning alone finds everything, a little later
            if not self._is_warned:
                reason = error.strerror or type(error).__name__
                logger.warning(
                    "no file events (%s): the inbox is scanned instead", reason, extra={"action": "no_events"}
                )
                self._is_warned = True
            return
        self._observer = observer


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino
