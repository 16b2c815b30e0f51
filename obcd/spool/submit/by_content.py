"""Drop content under a key once: the same key and content is the job that is there, other content is a conflict.

Like `exactly_once.submit_once`, by the same records, and stricter: what a record or the spool shows of an earlier job
of the name is compared by its SHA-256. A result that was seen in the outbox and is missing there was removed; it is not
computed again unless that is requested.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from obcd.clock import monotonic, seconds_of
from obcd.core.tables.file_format import stem_of
from obcd.errors import AlreadyRunningError, InputError, KeyConflict, ResultRemoved
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places
from obcd.spool.inbox.markers import Marker, read_small
from obcd.spool.inbox.names import marker_of
from obcd.spool.outbox.publication import find_published
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.spool.outbox.status_folders import find_progress
from obcd.spool.submit.dropping import Submitted, drop
from obcd.spool.submit.exactly_once import COMING_SECONDS, LOOK_SECONDS, DropRecord, find_evidence, record_path
from obcd.spool.submit.marking import ComingError, TakenError
from obcd.spool.submit.target import Target
from obcd.text import printable


@dataclass(frozen=True, slots=True)
class KnownDrop:
    """A drop that was made before.

    Attributes:
        drop_id: The id of the drop; "" if its submitter gave none.
        sha256: The digest of its content; "" if that cannot be seen.
    """

    drop_id: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedContent:
    """What is dropped under a key.

    Attributes:
        key: As the user wrote it, for messages.
        file: Its bytes, from the beginning.
        sha256: Their digest.
        label: What it is, for messages.
    """

    key: str
    file: IO[bytes]
    sha256: str
    label: str


def submit_content(
    layout: Layout,
    content: KeyedContent,
    target: Target,
    max_line_bytes: int,
    state: Path,
    *,
    again: bool,
    kept_since: float,
) -> Submitted | KnownDrop:
    """Drop content under the name of a target, unless it was dropped there before.

    Args:
        state: From `find_state_folder`.
        again: Whether a result that was removed, and a file that was rejected, is submitted again.
        kept_since: Retention removes what was published before, in Unix seconds; 0: nothing.

    Raises:
        KeyConflict: If the job of that name has other content.
        ResultRemoved: If its result was removed, and not `again`.
        AlreadyRunningError, InputError: As `submit_once`; nothing was dropped then.
    """
    with DropRecord(record_path(state, layout.inbox, target), target.path.parent) as record:
        is_recorded = record.settle()
        known = _recorded(layout, record, target) if is_recorded else find_drop(layout, target)
        if known is not None:
            _compare(content, known)
        if known is not None or is_recorded:
            removed = known is None or _is_removed(layout, record, known, target, kept_since)
            if removed and not again:
                raise ResultRemoved(
                    f"the result of '{printable(content.key)}' was removed from {printable(str(layout.outbox))} "
                    "(it was submitted before): give again=True to send the requests again"
                )
            if known is not None and not removed and not (again and _is_rejected(layout, known, target)):
                if not is_recorded:
                    record.found("its content is the same")
                return known
        record.begin(target)
        try:
            return drop(content.file, content.label, target, max_line_bytes, record)
        except (TakenError, ComingError):
            known = _await_drop(layout, target)
            if known is None:
                raise
            _compare(content, known)
            record.found("it is in the inbox")
            return known


def note_published(layout: Layout, target: Target, state: Path, drop_id: str, folder: Path) -> None:
    """Record that the result of a drop was seen; a record that cannot be written now stays as it is."""
    with contextlib.suppress(InputError, AlreadyRunningError):
        path = record_path(state, layout.inbox, target)
        if not path.exists():
            return
        with DropRecord(path, target.path.parent, patience_seconds=0.0) as record:
            if record.settle() and record.drop_id == drop_id and not record.was_published:
                record.published(folder)


def was_published(layout: Layout, target: Target, state: Path, drop_id: str) -> bool:
    """Return whether the record says that the result of a drop was seen; False if it cannot be read now."""
    with contextlib.suppress(InputError, AlreadyRunningError):
        path = record_path(state, layout.inbox, target)
        if path.exists():
            with DropRecord(path, target.path.parent, patience_seconds=0.0) as record:
                return record.settle() and record.drop_id == drop_id and record.was_published
    return False


def find_recorded(layout: Layout, target: Target, state: Path) -> KnownDrop | None:
    """Return the drop of a name that this user made or that can be seen; None if there is none.

    Raises:
        AlreadyRunningError, InputError: As `DropRecord`.
    """
    path = record_path(state, layout.inbox, target)
    if path.exists():
        with DropRecord(path, target.path.parent) as record:
            if record.settle():
                return _recorded(layout, record, target)
    return find_drop(layout, target)


def find_drop(layout: Layout, target: Target) -> KnownDrop | None:
    """Return the drop of this name that the spool shows this user: in the inbox, running, or in the outbox.

    Raises:
        InputError: If there is one, and it does not show its id.
    """
    if (known := _find_in_inbox(target)) is not None:
        return known
    for document in _documents(layout, target):
        known_input = document.get("input")
        sha256 = known_input.get("sha256") if isinstance(known_input, dict) else None
        return KnownDrop(str(document.get("drop_id", "")), sha256 if isinstance(sha256, str) else "")
    if evidence := find_evidence(layout, target):
        raise InputError(
            f"a job of the name {printable(target.path.name)} is there already ({evidence}): give another key"
        )
    return None


def _recorded(layout: Layout, record: DropRecord, target: Target) -> KnownDrop | None:
    """Return the drop of a settled record; None if another process made it and nothing of it is left."""
    return KnownDrop(record.drop_id, record.sha256) if record.drop_id else find_drop(layout, target)


def _compare(content: KeyedContent, known: KnownDrop) -> None:
    key = printable(content.key)
    if not known.sha256:
        raise InputError(
            f"a job of the key '{key}' is there that was not submitted with it, and its content cannot be compared "
            "now: wait until it is published, or give another key"
        )
    if known.sha256 != content.sha256:
        raise KeyConflict(
            f"the key '{key}' was used for other content: it has the SHA-256 {known.sha256[:12]}…, and what is "
            f"submitted now has {content.sha256[:12]}…: give another key",
            key=content.key,
            given=content.sha256,
            recorded=known.sha256,
        )


def _is_removed(layout: Layout, record: DropRecord, known: KnownDrop, target: Target, kept_since: float) -> bool:
    name, profile = target.path.name, target.profile
    if find_published(layout.outbox, known.drop_id, name, profile) is not None:
        return False
    if record.was_published:
        return True
    with contextlib.suppress(ValueError):
        if kept_since and seconds_of(record.dropped_at) < kept_since:
            is_running = find_progress(layout.outbox, known.drop_id, name, profile) is not None
            return not is_running and not os.path.lexists(target.path)
    return False


def _is_rejected(layout: Layout, known: KnownDrop, target: Target) -> bool:
    found = find_published(layout.outbox, known.drop_id, target.path.name, target.profile)
    return found is not None and "rejected" in found[1]


def _find_in_inbox(target: Target) -> KnownDrop | None:
    if not os.path.lexists(target.path):
        return None
    with contextlib.suppress(OSError, ValueError):
        marker = Marker.parse(read_small(marker_of(target.path)))
        if marker.drop_id and marker.sha256:
            return KnownDrop(marker.drop_id, marker.sha256)
    return None


def _documents(layout: Layout, target: Target) -> Iterator[dict[str, object]]:
    """Yield the manifests and the progress of jobs with exactly this name."""
    stem = stem_of(target.path.name)
    for place in find_places(layout.outbox, os.geteuid(), target.profile):
        files = (f"{stem}{kind}/{MANIFEST}" for kind in ("", ".repeated", ".rejected"))
        for file in (*files, f"{stem}.partial/progress.json"):
            with contextlib.suppress(OSError, ValueError):
                document = disk.read_json(place / file)
                if isinstance(document, dict) and document.get("name") == target.path.name:
                    yield document


def _await_drop(layout: Layout, target: Target) -> KnownDrop | None:
    """Wait briefly for a file whose marker is there: somebody is dropping it now, or was interrupted."""
    deadline = monotonic() + COMING_SECONDS
    while (known := find_drop(layout, target)) is None and monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return known
