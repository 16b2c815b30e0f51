"""Control jobs by files: a control file beside the place of `notes.jsonl` controls its job.

    inbox/notes.jsonl.pause, .show                                     in force while it is there
    inbox/notes.jsonl.cancel, .resume, .priority-10 ─bind─► jobs/<id>/ in force for that one job, across restarts

A control file acts for its owner. It addresses the newest unfinished job of that path, or the job whose id it contains:
`{"job": "20261122T180105-3f9a1c"}`. A binding order is first written into the job's folder and then removed from the
inbox; a job is not published before that, so no order outlives its job and applies to the next one of the same name.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypedDict

from obcd.clock import timestamp, wall
from obcd.core.answer.record_codec import encode
from obcd.core.endpoint.faults import job_cancelled
from obcd.core.pending.fair_share import COMMON, LEAST_PRIORITY, MOST_PRIORITY, Rank
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Identity, Key
from obcd.spool.inbox.markers import MAX_MARKER_BYTES
from obcd.spool.inbox.names import CONTROL
from obcd.spool.job import crash_count, ledger
from obcd.spool.job.job_folder import JobHeader, read_firsts, read_places

#: Failures per write when a job is cancelled: a few megabytes.
CHUNK = 10_000
#: The file in a job's folder that says why obcd itself paused it.
HELD = "held"


class ControlVerb(StrEnum):
    """The action of a control file; the value is the end of its name."""

    CANCEL = "cancel"  # lines without a result become failures, the job is published
    PAUSE = "pause"  # no request of it is sent while the file is there
    RESUME = "resume"  # removes the pause, also that of obcd itself; a job in quarantine is tried again
    PRIORITY = "priority"  # followed by a number: `.priority-10`
    SHOW = "show"  # its results so far are in its progress folder while the file is there


#: The verbs that are in force while their file is in the inbox; the others are bound to one job.
WHILE_THERE = frozenset((ControlVerb.PAUSE, ControlVerb.SHOW))


@dataclass(frozen=True, slots=True)
class Control:
    """The content of one control file.

    Attributes:
        key: The drop to which it applies.
        value: The priority; 0 for the other verbs.
        uid: The owner of the file, for whom it acts.
        job: The id of the job; "" for the newest of that path.
    """

    key: Key
    verb: ControlVerb
    value: int
    uid: int
    identity: Identity
    job: str = ""

    @property
    def file(self) -> Key:
        """The control file itself."""
        return Key(self.key.profile, control_name(self.key.name, self.verb, self.value))


@dataclass(frozen=True, slots=True)
class JobControls:
    """The orders that are in force for a job.

    Attributes:
        rank: Its priority.
        canceller: The uid of the user who cancelled it; None if it is not cancelled.
        held: Why obcd itself paused it, for people; "" if it did not. A resume ends that.
    """

    rank: Rank = COMMON
    canceller: int | None = None
    held: str = ""


def control_name(name: str, verb: ControlVerb, value: int = 0) -> str:
    """Return the name of a control file: `notes.jsonl.cancel`, `notes.jsonl.priority-10`."""
    return f"{name}.{verb}-{value}" if verb is ControlVerb.PRIORITY else f"{name}.{verb}"


def read_control(layout: Layout, file: Key) -> Control:
    """Read a control file of the inbox.

    Raises:
        OSError: If it is missing, or cannot be read.
        ValueError: If it is not a valid control file, with the reason for its owner.
    """
    match = CONTROL.fullmatch(file.name)
    if match is None:
        raise ValueError("it is not a control file")
    verb, number = ControlVerb(match["verb"]), match["value"] or ""
    value = _priority(number) if verb is ControlVerb.PRIORITY else 0
    if verb is not ControlVerb.PRIORITY and number:
        raise ValueError(f"its name must end with .{verb}, without a value")
    path = layout.inbox / file.profile / file.name
    with disk.opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            # A second name of another user's file would act for that user.
            raise ValueError("a control file is a plain file with one name: make a new one, e.g. with touch")
        raw = os.pread(descriptor, MAX_MARKER_BYTES, 0)
    key = Key(file.profile, match["drop"])
    return Control(key, verb, value, status.st_uid, Identity.of(status), _job_in(raw))


def _priority(number: str) -> int:
    wanted = f"a priority is a whole number from {LEAST_PRIORITY} to {MOST_PRIORITY}, e.g. .priority-10 or .priority--5"
    try:
        value = int(number)
    except ValueError:
        raise ValueError(wanted) from None
    if not LEAST_PRIORITY <= value <= MOST_PRIORITY or str(value) != number:
        raise ValueError(wanted)
    return value


def _job_in(raw: bytes) -> str:
    """Return the job that a control file names, "" for an empty file."""
    if not raw.strip():
        return ""
    try:
        document = json.loads(raw)
        job = document["job"]
    except (ValueError, KeyError, TypeError, RecursionError):
        job = None
    if not isinstance(job, str) or not job:
        raise ValueError('a control file is empty, or names the job: {"job": "…"}')
    return job


def bind(layout: Layout, control: Control, job: str, by_daemon: bool) -> JobControls | None:
    """Bind a control file to a job: first write it into the job's folder, then remove it from the inbox.

    Args:
        by_daemon: Whether it acts for the daemon's own user, whose priority counts among the jobs of all users.

    Returns:
        All orders for the job now; None if the job is finished.

    Raises:
        OSError: If a disk operation fails; the control file stays in the inbox.
    """
    folder = layout.jobs / job
    if not (folder / "job.json").exists():
        return None
    if not os.path.lexists(layout.inbox / control.file.profile / control.file.name):
        return read_job_controls(folder)  # withdrawn, or bound by a clerk that died before it could report that
    document = {
        "uid": control.uid,
        "by_daemon": by_daemon,
        "value": control.value,
        "at": timestamp(wall()),
        "file": list(control.file),
        "identity": list(control.identity),
    }
    if control.verb is ControlVerb.RESUME:
        crash_count.release(folder)
        disk.remove(folder / HELD)
        take_back(layout, Key(control.key.profile, control_name(control.key.name, ControlVerb.PAUSE)))
    else:
        disk.write_json(folder / control.verb, document, 0o600)
    _take_out(layout, control.file, control.identity)
    return read_job_controls(folder)


def put_control(layout: Layout, file: Key, job: str) -> None:
    """Put a complete control file into the inbox; called by the submitter.

    A file that root puts there belongs to the daemon's user: root may do all that this user may, and only the submitter
    and the daemon's user may control a job.

    Args:
        job: The id of the job; "" for the newest of its path.

    Raises:
        OSError: If it cannot be put there; nothing is left in the inbox then.
    """
    path = layout.inbox / file.profile / file.name
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            writer.write(json.dumps({"job": job}).encode() + b"\n" if job else b"")
            if os.geteuid() == 0:
                owner = layout.jobs.stat()
                os.fchown(writer.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(writer.fileno(), 0o644)  # whatever the umask is: the daemon is another user
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def take_back(layout: Layout, file: Key) -> None:
    """Remove a control file that applies to nothing any more; a missing one is not an error.

    Raises:
        OSError: If it cannot be removed: a folder that is not empty, say.
    """
    path = layout.inbox / file.profile / file.name
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        disk.remove(path)


def _take_out(layout: Layout, file: Key, identity: Identity) -> None:
    path = layout.inbox / file.profile / file.name
    with contextlib.suppress(FileNotFoundError):
        if Identity.of(path.lstat()) == identity:  # otherwise it is a newer one of that name
            disk.remove(path)
            disk.sync_folder(path.parent)


class _Order(TypedDict):
    """The orders for a job as they are stored in its folder; `_read` checks only the numbers."""

    uid: int
    value: int
    by_daemon: int
    file: list[str]
    identity: list[int]


def read_job_controls(folder: Path) -> JobControls:
    """Read the orders for a job; a damaged or missing file gives no order."""
    cancel, priority = _read(folder / ControlVerb.CANCEL), _read(folder / ControlVerb.PRIORITY)
    rank = COMMON
    if priority is not None:
        value = priority["value"]
        rank = Rank(value, value) if priority["by_daemon"] else Rank(0, value)
    return JobControls(rank, None if cancel is None else cancel["uid"], _read_held(folder))


def hold(folder: Path, why: str) -> None:
    """Pause a job from inside, until it is resumed; this survives a restart.

    Raises:
        OSError: If a disk operation fails.
    """
    disk.write_json(folder / HELD, {"at": timestamp(wall()), "why": why}, 0o600)


def _read_held(folder: Path) -> str:
    try:
        return str(disk.read_json(folder / HELD)["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _read(path: Path) -> _Order | None:
    try:
        document: _Order = disk.read_json(path)
        numbers = (document["uid"], document["value"], document["by_daemon"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return document if all(isinstance(number, int) for number in numbers) else None


def finish_binding(layout: Layout, folder: Path) -> None:
    """Remove control files from the inbox that are bound to a job already; a crash may have come between both."""
    for verb in (ControlVerb.CANCEL, ControlVerb.PRIORITY):
        document = _read(folder / verb)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if document is not None:
                _take_out(layout, Key(*document["file"]), Identity(*document["identity"]))


def fail_cancelled(folder: Path, header: JobHeader) -> None:
    """Write a failure for every line of a cancelled job that has no result; safe to repeat after a crash.

    A line that is equal to another one has the result of that line in any case. Memory: one byte per line (five with
    `dedupe`), and one chunk of records.
    """
    if read_job_controls(folder).canceller is None:
        return
    replay = ledger.replay(folder / ledger.NAME, header.requests)
    fault = job_cancelled()
    with contextlib.closing(ledger.LedgerWriter(folder, replay.size)) as writer:
        records: list[bytes] = []
        firsts = read_firsts(folder, header)
        for ordinal, place in enumerate(read_places(folder)):
            if not replay.done[ordinal] and (firsts is None or firsts[ordinal] == ordinal):
                records.append(encode(fault.failure(ordinal, place.line)))
            if len(records) >= CHUNK:
                writer.append(records)
                records = []
        if records:
            writer.append(records)
