"""Status folders in the outbox: the progress of a running job, and why a drop is not accepted.

outbox/notes.partial/   progress.json while the job runs; why.txt beside it if obcd has paused the job; previews of
                        the outputs while notes.jsonl.show is in the inbox (see `preview`)
outbox/notes.waiting/   why.txt while a drop is not accepted

With `[spool] per_user` they are in the home of the submitter, outbox/<user>/ (see `user_folders`).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from obcd.core.tables.file_format import stem_of
from obcd.spool.folders import acl, disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places, let_pass, make_place
from obcd.spool.inbox.drops import Key
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox.preview import PREVIEWS
from obcd.spool.outbox.publish_rename import MANIFEST, free_name
from obcd.text import printable

logger = logging.getLogger(__name__)

#: Maximum depth of folders with jobs and status folders in the outbox: outbox/<user>/<profile>/.
DEPTH = 3
#: The files that a status folder can hold.
STATUS_FILES = {"progress.json", ".progress.json.tmp", "why.txt", *PREVIEWS}
#: How often a folder is removed in which a clerk may just have made a preview.
REMOVALS = 3


class StatusFolders:
    """The small folders beside the published ones: progress and waiting. One thread.

    A status folder is not essential: one that cannot be shown or removed (full or read-only disk, another file in its
    place) is skipped, and a folder of another program stays untouched. No OSError leaves this class.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._partial: dict[str, Path] = {}
        #: {inbox file: (its status folder, None while it cannot be shown; the reason in it)}
        self._waiting: dict[Key, tuple[Path | None, str]] = {}

    def clear(self) -> None:
        """Remove the status folders of an earlier coordinator; those that still apply are shown again at once."""
        for parent in _status_places(self._layout.outbox):
            for folder in _entries(parent):
                if folder.name.endswith((".partial", ".waiting")):
                    _remove_status_folder(folder)

    def show_progress(self, header: JobHeader, document: Mapping[str, object], why: str = "") -> None:
        """Show the progress of a job in `<stem>.partial/progress.json`.

        Args:
            why: Why obcd has paused it; "" if it has not.
        """
        folder = self._partial.get(header.id)
        try:
            if folder is None or (os.path.lexists(folder) and not _is_status_folder(folder)):
                folder = free_name(self._layout, header.profile, header.stem, ".partial", header.id, header.uid)
            _make_status_folder(folder)
            if header.dropped_by is not None:
                let_pass(self._layout, folder.parent, header.dropped_by)
                acl.admit(folder, header.dropped_by, acl.READ | acl.ENTER, inherit=True)
            self._partial[header.id] = folder
            disk.show_json(folder / "progress.json", document)
            if why:
                (folder / "why.txt").write_text(f"{why}\n", "utf-8")
            else:
                (folder / "why.txt").unlink(missing_ok=True)
        except OSError as error:
            extra = {"action": "sign_failed", "job": header.id}
            logger.debug("progress of %s not shown: %s", header.id, error.strerror, extra=extra)

    def find_partial(self, job: str) -> Path | None:
        """Return the folder with the progress of a job, None while it has none; any thread may call it."""
        return self._partial.get(job)

    def end_progress(self, job: str) -> None:
        """Remove the progress of a job."""
        folder = self._partial.pop(job, None)
        if folder is not None:
            _remove_status_folder(folder)

    def show_waiting(self, waiting: Mapping[Key, str]) -> list[tuple[Key, str]]:
        """Make the `.waiting` folders show exactly this; one that could not be shown is tried again each time.

        Returns:
            The new entries, for the log.
        """
        for key in [key for key in self._waiting if key not in waiting]:
            folder = self._waiting.pop(key)[0]
            if folder is not None:
                _remove_status_folder(folder)
        news = []
        for key, why in waiting.items():
            folder, said = self._waiting.get(key, (None, ""))
            if said != why:
                news.append((key, why))
            if said != why or folder is None:
                self._waiting[key] = (self._show_why(key, why, folder), why)
        return news

    def _show_why(self, key: Key, why: str, folder: Path | None) -> Path | None:
        is_new = folder is None
        try:
            if folder is None or (os.path.lexists(folder) and not _is_status_folder(folder)):
                folder = self._waiting_folder(key)
            _make_status_folder(folder)
            (folder / "why.txt").write_text(f"{printable(key.name)}: {why}\n", "utf-8")
        except OSError as error:
            extra = {"action": "sign_failed", "profile": key.profile}
            logger.debug("%s: status folder not shown: %s", printable(key.name), error.strerror, extra=extra)
            if is_new and folder is not None:  # the next try would choose another name
                _remove_status_folder(folder)
            return None
        return folder

    def _waiting_folder(self, key: Key) -> Path:
        stem = printable(stem_of(key.name)).replace("/", "_").encode()[:150].decode(errors="ignore")
        parent = make_place(self._layout, self._submitter(key), key.profile)
        folder, number = parent / f"{stem}.waiting", 1
        while os.path.lexists(folder):
            folder, number = parent / f"{stem}.{number}.waiting", number + 1
        return folder

    def _submitter(self, key: Key) -> int:
        """Return the owner of a waiting file; the daemon's own user if the file was removed or claimed."""
        try:
            return (self._layout.inbox / key.profile / key.name).lstat().st_uid
        except OSError:
            return os.geteuid()


def _status_places(outbox: Path) -> Iterator[Path]:
    """Yield the folders that may hold status folders: the outbox, and those of submitters and profiles in it."""
    places = [outbox]
    for _ in range(DEPTH):
        yield from places
        places = [item for place in places for item in _entries(place) if _may_hold_folders(item)]


def _may_hold_folders(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not os.path.lexists(path / MANIFEST)


def _entries(folder: Path) -> list[Path]:
    """List a folder, which may belong to another user or may have been removed."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        logger.debug(
            "%s is not searched for status folders: %s", folder, error.strerror, extra={"action": "sign_failed"}
        )
        return []


def _make_status_folder(folder: Path) -> None:
    folder.mkdir(mode=0o750, exist_ok=True)  # with the group of the outbox, if that has the set-group-ID bit
    if folder.is_symlink():  # made by another user between two checks
        raise NotADirectoryError(errno.ENOTDIR, "it is a link", str(folder))


def _remove_status_folder(folder: Path) -> None:
    for removal in range(REMOVALS):
        if not _is_status_folder(folder):
            return
        try:
            disk.remove_tree(folder)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY and removal + 1 < REMOVALS:
                continue
            logger.debug("status folder %s not removed: %s", folder, error.strerror, extra={"action": "sign_failed"})
        return


def _is_status_folder(folder: Path) -> bool:
    """Return whether a folder is a status folder: it holds the files of a status folder and no others."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        return set(os.listdir(folder)) <= STATUS_FILES
    except OSError:  # it cannot be read, so it is not obcd's
        return False


def find_progress(outbox: Path, drop_id: str, name: str, profile: str) -> dict[str, object] | None:
    """Return the progress of this user's drop, or None if it is not running."""
    pattern = f"{glob.escape(stem_of(name))}*.partial/progress.json"
    for path in (path for parent in find_places(outbox, os.geteuid(), profile) for path in parent.glob(pattern)):
        with contextlib.suppress(OSError, ValueError):
            document = disk.read_json(path)
            if isinstance(document, dict) and document.get("drop_id") == drop_id:
                return document
    return None
