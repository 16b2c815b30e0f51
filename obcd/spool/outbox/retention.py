"""Retention: delete folders that were published long ago, and those of trials, with their input. Runs in the clerk.

It works by descriptor and follows no link, whatever is in the outbox: an entry that is not one of obcd's folders with
one of obcd's manifests stays untouched. A folder is hidden by a rename first, so that nobody sees half of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from obcd.clock import seconds_of
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.markers import REMOVE
from obcd.spool.job import cache, repeat_index
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.spool.outbox.status_folders import DEPTH

#: Prefix of the name of a folder that is being deleted; a folder with such a name after a crash is deleted as well.
HIDDEN = ".swept-"
#: Maximum number of folders per call: the clerk has other work.
MOST = 100
#: Maximum size of a manifest.
MAX_MANIFEST_BYTES = 2**20
_JOB = re.compile(r"[A-Za-z0-9-]{1,60}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Swept:
    """The result of a sweep.

    Attributes:
        jobs: `[(job id, its folder), …]`.
        trials: The same of the jobs that only tried a few lines.
        is_done: Whether these were all; otherwise there is more to delete now.
        trouble: Why something could not be deleted, "" if everything was.
    """

    jobs: list[tuple[str, str]] = field(default_factory=list)
    trials: list[tuple[str, str]] = field(default_factory=list)
    is_done: bool = True
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class _Folder:
    """An open folder of the outbox, and its name relative to the outbox."""

    descriptor: int
    path: Path


@dataclass(frozen=True, slots=True)
class _Limits:
    """Unix seconds: what was published before them is deleted."""

    jobs: float
    trials: float

    def of(self, manifest: Mapping[str, Any]) -> float:
        return max(self.jobs, self.trials) if manifest.get("trial") == REMOVE else self.jobs


def sweep(layout: Layout, before: float, trials_before: float = 0.0) -> Swept:
    """Delete folders that were published before a time, and the rest of an earlier sweep; safe to repeat.

    Args:
        before: Unix seconds; 0: only folders that are hidden already.
        trials_before: The same for trials whose folders are not kept.

    Raises:
        OSError: If the outbox cannot be read.
    """
    swept = Swept()
    try:
        descriptor = os.open(layout.outbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return swept
    try:
        _sweep_folder(_Folder(descriptor, layout.outbox), _Limits(before, trials_before), swept, DEPTH)
    finally:
        os.close(descriptor)
    if before and swept.is_done:
        _forget(layout, before)
    try:
        cache.forget(layout.cache, before)
    except OSError as error:
        swept.trouble = f"{error.strerror} ({layout.cache})"
    return swept


def _sweep_folder(parent: _Folder, limits: _Limits, swept: Swept, depth: int) -> None:
    for name in sorted(os.listdir(parent.descriptor)):
        if len(swept.jobs) + len(swept.trials) >= MOST:
            swept.is_done = False
            return
        with _opened(parent, name) as folder:
            if folder is None:
                continue
            try:
                _sweep_one(parent, folder, limits, swept, depth)
            except OSError as error:  # it does not stop the others
                swept.trouble = f"{error.strerror} ({folder.path})"


def _sweep_one(parent: _Folder, folder: _Folder, limits: _Limits, swept: Swept, depth: int) -> None:
    name = folder.path.name
    if name.startswith(HIDDEN):
        _delete(parent, name)
        return
    manifest = _read_manifest(folder)
    if manifest is not None and _published_at(manifest) < limits.of(manifest):
        hidden = f"{HIDDEN}{manifest['job']}-{secrets.token_hex(4)}"
        disk.before("rename", str(parent.path / hidden))
        os.rename(name, hidden, src_dir_fd=parent.descriptor, dst_dir_fd=parent.descriptor)
        (swept.trials if manifest.get("trial") else swept.jobs).append((manifest["job"], str(folder.path)))
        disk.sync_file(parent.descriptor, parent.path)
        _delete(parent, hidden)
    elif manifest is None and depth > 1 and not name.startswith("."):
        _sweep_folder(folder, limits, swept, depth - 1)


@contextlib.contextmanager
def _opened(parent: _Folder, name: str) -> Iterator[_Folder | None]:
    """Open one of obcd's folders; yield None for any other entry, and for one that was removed."""
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=parent.descriptor)
    except OSError:  # a link, a file, a folder that this user may not enter
        yield None
        return
    try:
        is_ours = os.fstat(descriptor).st_uid == os.geteuid()
        yield _Folder(descriptor, parent.path / name) if is_ours else None
    finally:
        os.close(descriptor)


def _read_manifest(folder: _Folder) -> dict[str, Any] | None:
    """Return the manifest that obcd wrote into a folder, None if there is none."""
    try:
        descriptor = os.open(MANIFEST, _FILE, dir_fd=folder.descriptor)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > MAX_MANIFEST_BYTES:
            return None
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(file.read(MAX_MANIFEST_BYTES))
            if isinstance(document, dict) and "obcd" in document and _JOB.fullmatch(str(document.get("job"))):
                return document
    return None


def _published_at(manifest: dict[str, Any]) -> float:
    """Return when a job was published, in Unix seconds; infinite if the manifest does not say it: it is kept."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return seconds_of(manifest["times"]["published_at"])
    return float("inf")


def _delete(parent: _Folder, name: str) -> None:
    """Delete a folder with its content; a link in it is removed and not followed."""
    disk.before("rmtree", str(parent.path / name))
    with _opened(parent, name) as folder:
        if folder is not None:
            _delete_files(folder)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(name, dir_fd=parent.descriptor)


def _delete_files(folder: _Folder) -> None:
    """Delete the files of a folder one by one: there may be a million, of which rmtree would make a list."""
    with os.scandir(folder.descriptor) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=folder.descriptor)


def _forget(layout: Layout, before: float) -> None:
    """Delete the records of jobs that were published before a time; such old records are not used any more.

    A record that is replaced at this very moment may be deleted too: the same drop is then computed once more.
    """
    with contextlib.suppress(FileNotFoundError):
        for path in layout.answered.iterdir():
            with contextlib.suppress(OSError):
                if repeat_index.read_time(path) < before:
                    disk.remove(path)
