"""File events of the inbox, used only as a wake-up: the scan decides.

watchdog's observers can die, lose events, or watch a folder that was replaced, all without an error; so the health of
the watch is checked, and on any doubt the watch is rebuilt. If the machine allows no watch, the scan does all the work,
and a note gives the reason. A network filesystem sends no events (inotify(7)), or only those of this machine's own
writers; no watch is started there.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from obcd.coordinator.loop_waits import Waker
from obcd.spool.folders.inotify import raise_limit, read_limit
from obcd.spool.folders.mounts import SETTLE_SECONDS, describe_inbox, find_mount, list_mounts

logger = logging.getLogger(__name__)

# Its only error is that it read once more after it was stopped, which happens at every stop (watchdog 7.1.0).
logging.getLogger("watchdog.observers.inotify").setLevel(logging.CRITICAL)

#: What an observer opens: one inotify instance and both ends of a pipe (watchdog 7.1.0, inotify_c.py: `InotifyFD`).
OBSERVER_DESCRIPTORS = 3
#: {error of inotify_init(2) and inotify_add_watch(2) when a limit of the user is reached: that limit}
_LIMITS = {errno.EMFILE: "max_user_instances", errno.ENOSPC: "max_user_watches"}


class _News(FileSystemEventHandler):
    """Records that events came, and wakes the loop once: a writer causes thousands of events, one scan sees all."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self.has_come = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Record the event; runs in the observer's thread, which an exception would end."""
        if event.event_type not in ("opened", "closed_no_write") and not self.has_come:
            self.has_come = True
            self._waker.wake()


class InboxWatch:
    """Watches some folders (not their subfolders), of which the first is the inbox. Main thread only.

    Args:
        waker: Woken by the watch's thread.
    """

    def __init__(self, folders: list[Path], waker: Waker) -> None:
        self._folders = folders
        self._news = _News(waker)
        self._observer: BaseObserver | None = None
        self._identities: list[tuple[int, int] | None] = []
        self._inbox = os.path.realpath(folders[0])  # here: it may wait for a file server that does not respond
        #: How an inbox that another machine serves differs, "" for a local one.
        self._remote_note = ""
        #: Why there are no file events on a filesystem that has them, "" when there are.
        self._refusal = ""

    @property
    def note(self) -> str:
        """A note for people on how drops are found here, "" when by events."""
        return self._remote_note or self._refusal

    @property
    def least_settle_seconds(self) -> float:
        """The least seconds that a file has to be unchanged, whatever the configuration says."""
        return SETTLE_SECONDS if self._remote_note else 0.0

    @property
    def has_news(self) -> bool:
        """Whether events came from the folders after the last `take_news`."""
        return self._news.has_come

    def take_news(self) -> None:
        """Forget the events so far: the scan that follows sees their effects."""
        self._news.has_come = False

    def look_at(self, folders: list[Path]) -> None:
        """Watch these folders instead, starting with the next `ensure`."""
        self._folders = folders

    def ensure(self) -> None:
        """Start the watch, or rebuild it when it no longer watches the right folders."""
        if self._is_remote():  # without access to the folders themselves, which could wait for a file server
            self.stop()
            self._refusal = ""
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
        """Return whether the inbox is on a network filesystem now."""
        note = describe_inbox(self._folders[0], find_mount(list_mounts(), self._inbox))
        if note and not self._remote_note:
            logger.warning("%s", note, extra={"action": "inbox_remote"})
        self._remote_note = note
        return bool(note)

    def stop(self) -> None:
        """Stop the watch."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(2)
            self._observer = None

    def _start(self) -> None:
        observer: BaseObserver | None = None
        try:
            _check_descriptors()
            observer = Observer()  # opens its descriptors, and starts a thread that reads them
            for folder, identity in zip(self._folders, self._identities, strict=True):
                if identity is not None:
                    observer.schedule(self._news, str(folder), recursive=False)
            observer.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            if observer is not None:
                observer.stop()  # otherwise it keeps the descriptors that it opened
            self._note_refusal(describe_refusal(error))
            return
        self._observer = observer
        self._note_refusal("")

    def _note_refusal(self, refusal: str) -> None:
        if refusal and refusal != self._refusal:
            logger.warning("%s", refusal, extra={"action": "no_events"})
        self._refusal = refusal


def _check_descriptors() -> None:
    """Check that this process may open an observer's descriptors: an observer that gets only some never closes them.

    Raises:
        OSError: If it may not; names the descriptor, which no error of inotify does.
    """
    held: list[int] = []
    try:
        for _ in range(OBSERVER_DESCRIPTORS):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for descriptor in held:
            os.close(descriptor)


def describe_refusal(error: Exception) -> str:
    """Return why there are no file events, what that means, and what to do if that is known."""
    name = _LIMITS.get(error.errno or 0) if isinstance(error, OSError) and error.filename is None else None
    without = "the inbox is scanned without them, so drops are found a little later"
    if name is None:
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        return f"no file events ({reason}): {without}"
    return f"no file events (fs.inotify.{name} is reached): {without}; {raise_limit(name, read_limit(name) or 0)}"


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino
