"""Show a finished job in the outbox by one rename: the last step of a published job and of a rejected one.

A folder in `jobs/` with a manifest is finished; after any interruption the same steps are repeated.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from obcd.core.tables.file_format import stem_of
from obcd.spool.folders import acl, disk, user_folders
from obcd.spool.folders.layout import Layout
from obcd.spool.job import crash_count, lane_index, ledger, repeat_index
from obcd.spool.outbox.publication_event import note_publication

MANIFEST = "manifest.json"
#: Permissions of a published file.
FILE_MODE = 0o640
#: Maximum length of a name on all common filesystems (NAME_MAX).
MAX_NAME_BYTES = 255
#: Why a folder cannot be moved into the outbox, where the operating system says "Invalid cross-device link".
TWO_MOUNTS = "jobs/ and outbox/ are not in one mount of one filesystem, and no rename leads from one to the other"
#: Files of a running job that a published one does not need.
WORKING_FILES = (
    ledger.NAME,
    "index",
    "firsts",
    lane_index.NAME,
    "held",
    "job.json",
    "cancel",
    "priority",
    crash_count.BEGUN,
    crash_count.QUARANTINED,
)


def show(layout: Layout, job: str) -> Path:
    """Move a finished job's folder to the outbox; safe to repeat after a crash at any step.

    Returns:
        The folder in the outbox.

    Raises:
        OSError: If a disk operation fails, or if the job's folder is neither in `jobs/` nor in the outbox because
            somebody removed it.
    """
    folder = layout.jobs / job
    try:
        document = disk.read_json(folder / MANIFEST)
    except FileNotFoundError:  # an earlier process did this and ended between the rename and its report
        shown = find_shown(layout.outbox, job)
        if shown is None:
            why = "the job's folder was removed, and it is not in the outbox either"
            raise FileNotFoundError(errno.ENOENT, why, str(folder)) from None
        return shown
    disk.remove_tree(layout.claim(job, document["profile"]))
    if layout.claims.exists():
        disk.sync_folder(layout.claims)
    for name in WORKING_FILES:
        disk.remove(folder / name)
    for path in _files(folder):
        if path.name.startswith(".") and path.suffix == ".tmp":  # of an interrupted write
            disk.remove(path)
    uid = document.get("submitter", {}).get("uid", os.geteuid())  # an older obcd that rejected it did not record this
    _open_to_readers(folder, uid if layout.per_user else None)
    disk.sync_folder(folder)
    stem, kind = stem_of(document["name"]), _kind(document)
    target = free_name(layout, document["profile"], stem, kind, job, uid)
    for above in target.parent.parents:  # made by a clerk that was killed before it could sync them?
        if not above.is_relative_to(layout.outbox):
            break
        disk.sync_folder(above)
    if document.get("repeat") == "skip" and not kind:
        repeat_index.note(layout, document, target)  # first, so that a shown job is not computed again
    note_publication(layout, document, folder, target)  # first, so that it is not lost with this process
    _move(folder, target)
    return target


def _move(folder: Path, target: Path) -> None:
    """Rename a folder into the outbox.

    Raises:
        OSError: If that fails; where it leads into another mount, with a sentence of more use than the system's.
    """
    try:
        disk.rename(folder, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise OSError(errno.EXDEV, TWO_MOUNTS, str(target.parent)) from None


def _kind(document: dict[str, Any]) -> str:
    """Return the ending of the folder's name, by the kind of its manifest."""
    return ".rejected" if "rejected" in document else ".repeated" if "repeats" in document else ""


def find_shown(outbox: Path, job: str) -> Path | None:
    """Return a job's folder in the outbox by its id, or None. Reads every manifest: only for repairs."""
    for manifest in (path for depth in range(1, 4) for path in outbox.glob("*/" * depth + MANIFEST)):
        try:
            document: Any = disk.read_json(manifest)
        except (OSError, ValueError):  # a file of another program
            continue
        if isinstance(document, dict) and document.get("job") == job:
            return manifest.parent
    return None


def free_name(layout: Layout, profile: str, stem: str, kind: str, job: str, uid: int | None = None) -> Path:
    """Return the path of a folder: `outbox/[<profile>/]<stem><kind>`, with `.<id>` after the stem if that is taken.

    Args:
        kind: E.g. `.partial`; a stem that leaves no space for it or for the id is cut.
        uid: The submitter, in whose home it is if each has one; None for the daemon itself.

    Raises:
        OSError: If the folder above cannot be made, or cannot be closed to other users.
    """
    parent = user_folders.make_place(layout, os.geteuid() if uid is None else uid, profile)
    plain = _fit(stem, kind)
    # A folder of the inbox is a profile: outbox/<profile>/ is for its jobs, although it may not exist yet.
    is_profile = not profile and os.path.isdir(layout.inbox / plain)
    taken = is_profile or os.path.lexists(parent / plain)
    return parent / (_fit(stem, f".{job}{kind}") if taken else plain)


def _fit(stem: str, suffix: str) -> str:
    """Join both to a name of at most `MAX_NAME_BYTES`; cut the stem between two characters."""
    room = MAX_NAME_BYTES - len(os.fsencode(suffix))
    raw = os.fsencode(stem)
    return (stem if len(raw) <= room else raw[:room].decode("utf-8", "ignore")) + suffix


def _open_to_readers(folder: Path, uid: int | None) -> None:
    """Open a folder before it is shown: to the group (0750, files 0640), or to one user and not to the group.

    It gets no set-group-ID bit: a service with RestrictSUIDSGID= may not set one, and nothing is made in it afterwards.
    """
    for path in _files(folder):
        if uid is not None:
            acl.open_file(path, uid)
        else:
            _open_to_group(path, FILE_MODE)
    if uid is not None:
        acl.open_folder(folder, uid)
    else:
        _open_to_group(folder, 0o750)


def _open_to_group(path: Path, mode: int) -> None:
    acl.clear(path)  # `per_user` was set when a coordinator was killed here
    path.chmod(mode)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder one by one: there may be one for each answer (`response_files`)."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield folder / entry.name
