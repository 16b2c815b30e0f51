"""Find the job that a person names: in the inbox, among the unfinished jobs, or in the outbox.

A name is the id of a job, or what it was dropped as: `notes`, `notes.jsonl`, `clinical/notes.jsonl`. Of several jobs of
one name the newest unfinished one is meant, or else the newest published one.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from obcd.coordinator.view import JobView, View
from obcd.core.tables.file_format import SUFFIX, form_of, stem_of
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places
from obcd.spool.inbox.drops import Key
from obcd.spool.job.job_folder import read_header
from obcd.spool.outbox.publish_rename import MANIFEST, find_shown
from obcd.text import printable

#: The form of a job's id (`job_folder.new_job_id`).
_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}")


class Stage(Enum):
    """How far a job is."""

    COMING = auto()  # its file is in the inbox
    UNFINISHED = auto()  # accepted, and not published
    PUBLISHED = auto()  # its folder is in the outbox
    REJECTED = auto()  # its file could not become a job; the folder in the outbox says why


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedJob:
    """A job, and where it is.

    Attributes:
        key: The file that was dropped.
        job: Its id; "" before it is accepted.
        folder: Its folder in the outbox, if it is published or rejected.
        why: Why it was rejected.
    """

    stage: Stage
    key: Key
    job: str = ""
    folder: Path | None = None
    why: str = ""

    @property
    def label(self) -> str:
        """Its name for people."""
        return printable(f"{self.key.profile}/{self.key.name}" if self.key.profile else self.key.name)


def find_job(layout: Layout, view: View | None, word: str) -> NamedJob | None:
    """Return the job of a name or id, or None if this user sees none.

    Args:
        view: The coordinator's state, if it runs and this user may read it.
    """
    if layout.inbox.is_dir() and (key := _key_of(word)) and os.path.lexists(layout.inbox / key.profile / key.name):
        return NamedJob(stage=Stage.COMING, key=key)
    matches = _matcher(word)
    unfinished = _among_unfinished(layout, view, matches) or _among_progress(layout, word, matches)
    if unfinished is None:
        return _among_published(layout, view, word, matches)
    with contextlib.suppress(OSError):  # a view is up to a second old: the job may be published since
        return find_published(layout, None, unfinished) or unfinished
    return unfinished


def read_progress(layout: Layout, found: NamedJob) -> tuple[Path, dict[str, Any]] | None:
    """Return the progress folder of this user's job and its document, or None while it does not run."""
    for path, document in _progress_of(layout, found.key.profile, stem_of(found.key.name)):
        if document["job"] == found.job:
            return path.parent, document
    return None


def find_published(layout: Layout, view: View | None, found: NamedJob) -> NamedJob | None:
    """Return a job that has come to its end meanwhile; None while it has not.

    Raises:
        OSError: If the outbox cannot be read.
    """
    for item in view.published if view is not None else ():
        if item.job == found.job:
            return _published(found.key, item.job, Path(item.folder))
    for folder, manifest in _manifests(layout, found.key.profile, stem_of(found.key.name)):
        if manifest.get("job") == found.job:
            return _of_manifest(folder, manifest)
    return None


def published_jobs(layout: Layout, key: Key) -> set[str]:
    """Return the ids of the jobs of a name that are in the outbox."""
    return {str(manifest.get("job")) for _, manifest in _manifests(layout, key.profile, stem_of(key.name))}


def _key_of(word: str) -> Key | None:
    name = word if form_of(word) is not None else word + SUFFIX
    profile, _, plain = name.rpartition("/")
    return Key(profile, plain) if plain and "/" not in profile and not profile.startswith(".") else None


def _matcher(word: str) -> Callable[[str, str, str], bool]:
    """Return what says whether a job of an id, a profile and a name is meant."""

    def matches(job: str, profile: str, name: str) -> bool:
        above = f"{profile}/" if profile else ""
        return word in (job, above + name, above + stem_of(name))

    return matches


def _among_unfinished(layout: Layout, view: View | None, matches: Callable[..., bool]) -> NamedJob | None:
    if view is not None:
        found = [(item.job, item.profile, item.name) for item in view.all_jobs]
    else:
        found = list(_headers(layout))
    fitting = [item for item in found if matches(*item)]
    if not fitting:
        return None
    job, profile, name = max(fitting)  # an id begins with the time
    return NamedJob(stage=Stage.UNFINISHED, key=Key(profile, name), job=job)


def _headers(layout: Layout) -> Iterator[tuple[str, str, str]]:
    """Yield the jobs on disk; none for a user who may not list them."""
    with contextlib.suppress(OSError):
        for folder in layout.jobs.iterdir():
            with contextlib.suppress(Exception):  # being made, or damaged: the coordinator says so
                if not (folder / MANIFEST).exists():
                    header = read_header(folder)
                    yield header.id, header.profile, header.name


def _among_progress(layout: Layout, word: str, matches: Callable[..., bool]) -> NamedJob | None:
    key = _key_of(word)
    for _, document in _progress_of(layout, key.profile, stem_of(key.name)) if key else ():
        if matches(document["job"], document["profile"], document["name"]):
            key = Key(document["profile"], document["name"])
            return NamedJob(stage=Stage.UNFINISHED, key=key, job=document["job"])
    return None


def _progress_of(layout: Layout, profile: str, stem: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    pattern = f"{glob.escape(stem)}*.partial/progress.json"
    for parent in find_places(layout.outbox, os.geteuid(), profile):
        for path in parent.glob(pattern):
            with contextlib.suppress(OSError, ValueError):
                document = disk.read_json(path)
                JobView.from_json(document)  # it has the keys of this version
                yield path, document


def _among_published(layout: Layout, view: View | None, word: str, matches: Callable[..., bool]) -> NamedJob | None:
    for item in reversed(view.published if view is not None else ()):
        profile, _, name = item.name.rpartition("/")
        if matches(item.job, profile, name):
            return _published(Key(profile, name), item.job, Path(item.folder))
    key = _key_of(word)
    fitting = [
        (folder, manifest)
        for folder, manifest in (_manifests(layout, key.profile, stem_of(key.name)) if key else ())
        if matches(*(str(manifest.get(part, "")) for part in ("job", "profile", "name")))
    ]
    if not fitting and _ID.fullmatch(word):
        shown = find_shown(layout.outbox, word)
        fitting = [(shown, disk.read_json(shown / MANIFEST))] if shown is not None else []
    if not fitting:
        return None
    return _of_manifest(*max(fitting, key=lambda pair: str(pair[1].get("job"))))


def _manifests(layout: Layout, profile: str, stem: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    for parent in find_places(layout.outbox, os.geteuid(), profile):
        for path in parent.glob(f"{glob.escape(stem)}*/{MANIFEST}"):
            with contextlib.suppress(OSError, ValueError):
                document = disk.read_json(path)
                if isinstance(document, dict):
                    yield path.parent, document


def _of_manifest(folder: Path, manifest: dict[str, Any]) -> NamedJob:
    key, job = Key(str(manifest.get("profile", "")), str(manifest.get("name", ""))), str(manifest.get("job", ""))
    if why := manifest.get("rejected"):
        return NamedJob(stage=Stage.REJECTED, key=key, job=job, folder=folder, why=str(why))
    return _published(key, job, folder)


def _published(key: Key, job: str, folder: Path) -> NamedJob:
    return NamedJob(stage=Stage.PUBLISHED, key=key, job=job, folder=folder)
