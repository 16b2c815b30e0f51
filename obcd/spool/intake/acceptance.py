"""Accept a settled drop as a job. Runs in the clerk, because it reads untrusted input.

    inbox/notes.jsonl ─rename─► inbox/.obcd/claim/<id>/ ─copy, hash, index─► jobs/<id>.tmp/ ─rename─► jobs/<id>/

The last rename is the commit point: no request is sent before it. Every step can be interrupted and repeated.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.core.forecasting.local_times import parse_moment
from obcd.errors import FormError
from obcd.spool.folders import disk
from obcd.spool.folders.disk_space import find_shortage, read_space, shown_size
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Identity
from obcd.spool.inbox.markers import Marker, read_marker
from obcd.spool.inbox.names import marker_of
from obcd.spool.inbox.submitters import Submitter, find_submitter
from obcd.spool.intake.reading import (
    AcceptOrder,
    InputChangedError,
    Reader,
    RejectedError,
    find_cut,
    why_not_accepted,
)
from obcd.spool.job import repeat_index
from obcd.spool.job.job_folder import (
    JobHeader,
    read_header,
)
from obcd.spool.outbox.publish_rename import MANIFEST, show
from obcd.spool.outbox.rejected import publish_rejected, publish_repeated
from obcd.text import printable

logger = logging.getLogger(__name__)

#: How often the clerk copies a file that changes during the copy before it turns to other files.
COPIES = 3


@dataclass(frozen=True, slots=True)
class Accepted:
    """The drop has become a job."""

    header: JobHeader


@dataclass(frozen=True, slots=True)
class NotYet:
    """The drop stays in the inbox, for this reason; try again when it has changed, or after a while."""

    why: str
    until_published: bool = False
    until_rejected: bool = False  # whether it looks truncated: it is rejected if it stays so
    until_reloaded: bool = False  # until the configuration accepts it


@dataclass(frozen=True, slots=True)
class Rejected:
    """The drop can never become a job; it is in the outbox with the reason."""

    job: str
    why: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Repeated:
    """Another job answered the same drop before; the outbox names it."""

    job: str
    earlier: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Gone:
    """The drop was removed before it was claimed."""


Verdict = Accepted | NotYet | Rejected | Repeated | Gone


def accept(layout: Layout, order: AcceptOrder) -> Verdict:
    """Claim a settled drop and make it a job.

    Raises:
        OSError: On a full or failing disk: the file is then in the inbox or in its claim, and is tried again.
    """
    key = order.drop.key
    source = layout.inbox / key.profile / key.name if key.profile else layout.inbox / key.name
    if _is_begun(layout, order):
        claim_marker(
            source, _claimed(layout, order).parent, order.drop.marker, order.drop.identity.uid
        )  # a clerk may have died between both
        return accept_claimed(layout, order)
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Gone()
    try:
        if Identity.of(os.fstat(descriptor)) != order.drop.identity:
            return NotYet("it changed just before it was accepted")
        reason = _why_not_yet(descriptor, order) or _why_no_room(layout, order)
        if reason is not None:
            return reason
    finally:
        os.close(descriptor)
    # The claimed file is opened again and judged as it is then: a file that replaced the drop meanwhile is the drop.
    return accept_claimed(layout, order) if _claim(layout, order, source) else Gone()


def accept_claimed(layout: Layout, order: AcceptOrder) -> Verdict:
    """Make a claimed file a job; also called for claims after a crash.

    Raises:
        OSError: On a full or failing disk, or (EBUSY) while another program still writes to the file: try again later.
    """
    claim, folder = _claimed(layout, order), layout.jobs / order.job
    if (folder / MANIFEST).exists():
        return _conclude(layout, order.job)
    if (folder / "job.json").exists():
        return Accepted(read_header(folder))
    if os.path.lexists(claim) and not stat.S_ISREG(claim.lstat().st_mode):  # replaced before its clerk died
        _drop_claim(claim)
    if not os.path.lexists(claim):  # a clerk rejected and showed it, but died before it could report that
        return Gone()
    try:
        header = _take_copy(layout, order, claim)
    except RejectedError as error:
        return reject_claimed(layout, order, str(error))
    earlier = repeat_index.find(layout, header, None if header.trial else order.answered_since)
    if earlier is not None:
        return Repeated(order.job, earlier.job, publish_repeated(layout, header, earlier))
    return Accepted(_commit(layout, header))


def reject_claimed(layout: Layout, order: AcceptOrder, why: str) -> Rejected:
    """Reject a claimed file without reading it; it goes to the outbox."""
    claim = _claimed(layout, order)
    return Rejected(order.job, why, publish_rejected(layout, order.job, order.drop, claim, why, order.api))


def accept_copy(layout: Layout, order: AcceptOrder, source: Path) -> Accepted:
    """Make a job of a file that stays in its place (`obcd batch`).

    Raises:
        RejectedError: If it can never become a job.
        OSError: As `accept_claimed`.
    """
    return Accepted(_commit(layout, replace(_take_copy(layout, order, source), source=str(source))))


def _conclude(layout: Layout, job: str) -> Rejected | Repeated:
    """Show a folder that a clerk had finished, except for this step, before it died."""
    document = disk.read_json(layout.jobs / job / MANIFEST)
    folder = show(layout, job)
    if "repeats" in document:
        return Repeated(job, document["repeats"]["job"], folder)
    return Rejected(job, str(document.get("rejected")), folder)


def _deadline(order: AcceptOrder, text: str) -> tuple[float, str]:
    """Return the deadline in a marker, in Unix seconds, 0 for none, and a sentence if it is not understood."""
    try:
        return parse_moment(text, time.time()) if text else 0.0, ""
    except ValueError as error:
        remark = f"it has no deadline, because `by` in its marker is not understood: {error}"
        name, extra = printable(order.drop.key.name), {"action": "deadline_ignored", "job": order.job}
        logger.warning("%s: %s", name, remark, extra=extra)
        return 0.0, remark


def _claimed(layout: Layout, order: AcceptOrder) -> Path:
    return layout.claim(order.job, order.drop.key.profile) / order.drop.key.name


def _is_begun(layout: Layout, order: AcceptOrder) -> bool:
    """Return whether a clerk that died had claimed the drop already: the order is then continued, not begun again."""
    return (layout.jobs / order.job).exists() or os.path.lexists(_claimed(layout, order))


def _why_not_yet(descriptor: int, order: AcceptOrder) -> NotYet | None:
    size = order.drop.identity.size
    if obstacle := why_not_accepted(descriptor, order):
        return NotYet(obstacle, until_reloaded=True)
    if not order.reject_torn and order.drop.marker is None:
        if size == 0:
            return NotYet("it is empty: an interrupted upload? send it again, or remove it", until_rejected=True)
        cut = find_cut(descriptor, order)
        if cut:
            return NotYet(f"{cut}: an interrupted upload? send it again", until_rejected=True)
    key, twins = order.drop.key, order.unfinished
    uid = os.fstat(descriptor).st_uid
    twins = tuple(
        job for job in twins if (job.profile, job.name, job.size, job.uid) == (key.profile, key.name, size, uid)
    )
    if twins:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        for job in twins:
            if job.sha256 == digest:
                return NotYet(f"the same file is being answered already, as job {job.id}", until_published=True)
    return None


def _why_no_room(layout: Layout, order: AcceptOrder) -> NotYet | None:
    """Return why a file must wait whose copy would fill the disk; the sentence does not depend on the free space."""
    size = order.drop.identity.size
    if not find_shortage(layout.root, read_space(layout.jobs), order.min_free_bytes, is_short=False, owed=size):
        return None
    return NotYet(f"the disk has no space for a file of {shown_size(size)}: it is accepted when space is free")


def _claim(layout: Layout, order: AcceptOrder, source: Path) -> bool:
    """Move the file out of the inbox; return False if it was removed, or replaced by something else."""
    folder = layout.claim(order.job, order.drop.key.profile)
    layout.create_claims()  # the inbox may have been removed and made again meanwhile
    disk.make_folder(folder)
    target = folder / source.name
    try:
        disk.rename(source, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        if isinstance(error, FileNotFoundError):
            return False
        raise
    # A link or folder that replaced it was moved itself by the rename, and is never followed.
    if not stat.S_ISREG(target.lstat().st_mode):
        _drop_claim(target)
        return False
    claim_marker(source, folder, order.drop.marker, order.drop.identity.uid)
    return True


def _drop_claim(claim: Path) -> None:
    """Remove a claim that is not a file, with its content: a drop is never a folder, so it is nobody's drop."""
    if stat.S_ISDIR(claim.lstat().st_mode):
        disk.remove_tree(claim)
    else:
        disk.remove(claim)
    with contextlib.suppress(OSError):
        claim.parent.rmdir()


def claim_marker(source: Path, folder: Path, expected: Marker | None, owner: int) -> None:
    """Move a file's marker beside its claim, unless it belongs to a newer drop of the same name now."""
    path = marker_of(source)
    try:
        found = read_marker(path, owner)
    except (OSError, ValueError):  # removed, or not a valid marker any more
        return
    if found == expected:
        with contextlib.suppress(FileNotFoundError):
            disk.rename(path, folder / path.name)


def _take_copy(layout: Layout, order: AcceptOrder, source: Path) -> JobHeader:
    temporary = layout.jobs / f"{order.job}.tmp"
    for _ in range(COPIES):
        disk.remove_tree(temporary)
        disk.make_folder(temporary)
        try:
            return _copy(layout, order, source, temporary)
        except InputChangedError:  # another program still writes through an open descriptor: copy all of it
            continue
        except OSError:  # the disk is full: an incomplete copy must not keep it full
            with contextlib.suppress(OSError):
                disk.remove_tree(temporary)
            raise
    disk.remove_tree(temporary)
    raise OSError(errno.EBUSY, "it is still being written", str(source))


def _commit(layout: Layout, header: JobHeader) -> JobHeader:
    """Make the copy a job: the last rename."""
    temporary = layout.jobs / f"{header.id}.tmp"
    disk.write_json(temporary / "job.json", header.to_json(), 0o600)
    disk.rename(temporary, layout.jobs / header.id)
    return header


def _check_growth(layout: Layout, order: AcceptOrder, size: int) -> None:
    """Check whether a file that grew after it settled may still be accepted.

    Raises:
        RejectedError: If it is larger than the maximum.
        OSError: If its copy would use the space that must stay free.
    """
    if size <= order.drop.identity.size:
        return
    if 0 < order.max_file_bytes < size:
        most = shown_size(order.max_file_bytes)
        raise RejectedError(f"it grew to {shown_size(size)} after it was claimed, [spool] max_file_bytes allows {most}")
    if find_shortage(layout.root, read_space(layout.jobs), order.min_free_bytes, is_short=False, owed=size):
        raise OSError(errno.ENOSPC, f"it grew, and the disk has no space for {shown_size(size)}", order.drop.key.name)


def _copy(layout: Layout, order: AcceptOrder, source: Path, temporary: Path) -> JobHeader:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        _check_growth(layout, order, status.st_size)
        reader = Reader(order, temporary)
        try:
            try:
                reader.read(file, status.st_size)
            except FormError as error:
                raise RejectedError(str(error)) from None
            signatures, context = reader.settle()
            reader.write_lanes()
        finally:
            reader.close()
        after = os.fstat(descriptor)
        # Not ctime: the owner of the file can change it again and again (chmod), and it says nothing about the content.
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise InputChangedError
    reader.check(order.drop.marker)
    marker, submitter = order.drop.marker or Marker(), _submitter(status.st_uid, order)
    by, remark = _deadline(order, marker.by)
    return JobHeader(
        id=order.job,
        name=order.drop.key.name,
        profile=order.drop.key.profile,
        uid=submitter.uid,
        dropped_by=submitter.dropped_by,
        drop_id=marker.drop_id,
        parent=marker.parent,
        accepted_at=time.time(),
        by=by,
        remark=remark,
        sha256=reader.digest.hexdigest(),
        size=reader.size,
        lines=reader.lines,
        requests=reader.requests,
        bad_lines=reader.bad_lines,
        same=reader.same,
        settings=order.settings,
        signatures=signatures,
        context=context,
        repeat="run" if order.answered_since is None or marker.trial else "skip",
        trial=marker.trial,
        asks=reader.asks or "",
        converted=reader.converted,
        unobeyed=reader.unobeyed,
    )


def _submitter(owner: int, order: AcceptOrder) -> Submitter:
    """Return whose the job is.

    Args:
        owner: The owner of the file that was copied.

    Raises:
        RejectedError: If its marker names nobody whose job it could be.
    """
    try:
        return find_submitter(owner, order.drop.marker, order.api)
    except ValueError as error:
        raise RejectedError(str(error)) from None
