"""Drop a job exactly once, even if `obcd submit` is interrupted at any point, by the submitter's own record of a drop.

    copying ──► naming ──► dropped          one line each, synced before the step is taken
    │           the hidden copy is complete; if it has only one name, it was not dropped
    └ not dropped, whatever is in the inbox

A drop is made by giving its hidden copy a second name, and the hidden name is removed only when that is recorded. Until
then the inbox does not accept the file. So a record that ends with `naming` is correct after a kill -9 at any point: a
hidden copy with one name means "not dropped" (its rest is removed, and the drop is made again, with a new id); a hidden
copy with two names, or none, means "dropped". This needs neither the queue nor the outbox, whose folders a submitter
may not read, and whose content is renamed and removed in time.

Not covered: a power cut on a filesystem where syncing a file does not sync its names (ext4 and XFS do); an inbox that
is emptied by hand between a crash and the next submit, which then counts as dropped; and another user's job of the same
name, or one dropped without `--once`, in the moment between its claim and its appearance in the outbox.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pwd
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from obcd.clock import monotonic, timestamp, wall
from obcd.core.tables.file_format import stem_of
from obcd.errors import AlreadyRunningError, InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places, is_home
from obcd.spool.inbox.markers import DROP_ID
from obcd.spool.inbox.names import hidden
from obcd.spool.submit.dropping import Submitted, drop
from obcd.spool.submit.marking import ComingError, TakenError, clear_rests, is_named
from obcd.spool.submit.target import Target, drop_name
from obcd.text import printable

#: Seconds to wait for the file of another submitter who is dropping the same name at this moment.
COMING_SECONDS = 2.0
#: Seconds to wait for a submit that works on the same record (it may read a pipe for hours), and between two checks.
LOCK_SECONDS, LOOK_SECONDS = 10.0, 0.02
#: A larger record is not obcd's; one above the second limit is begun again if its drop was not made, so that a file
#: that is refused every minute for days does not fill it.
MAX_RECORD_BYTES, LONG_RECORD_BYTES = 2**20, 2**16
STATES = ("copying", "naming", "dropped")


@dataclass(frozen=True, slots=True)
class Already:
    """The job was submitted before.

    Attributes:
        evidence: The evidence for people, e.g. `dropped at 2026-11-22T03:00:01.250Z`.
    """

    name: str
    evidence: str


def find_state_folder() -> Path:
    """Return the folder of this user's records; make it if it is missing.

    `$STATE_DIRECTORY` (systemd.exec(5), the first of several), `$XDG_STATE_HOME/obcd`, `~/.local/state/obcd`; cron may
    not set HOME, then the home of the user database counts.

    Raises:
        InputError: If there is no home, or the folder cannot be made.
    """
    folder = _state_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _no_record(folder, error) from None
    return folder


def _state_folder() -> Path:
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # the base directory specification says that a relative path must be ignored
        return Path(base) / "obcd"
    home = os.environ.get("HOME") or _home_of_user()
    if not home.startswith("/"):
        raise InputError("there is no home folder for the record of submitted files: set XDG_STATE_HOME")
    return Path(home) / ".local" / "state" / "obcd"


def _home_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


#: Advice if a record cannot be kept.
ELSEWHERE = "set XDG_STATE_HOME to a folder that you may write to"


def _no_record(path: Path, error: OSError, advice: str = ELSEWHERE) -> InputError:
    return InputError(f"cannot keep a record of submitted files in {printable(str(path))}: {error.strerror}; {advice}")


def key_of(*parts: str) -> str:
    """Return a file name that represents some strings."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def record_path(folder: Path, inbox: Path, target: Target) -> Path:
    """Return the path of the record of one name, by the real path of the inbox and the profile."""
    return folder / "submitted" / f"{key_of(os.path.realpath(inbox), target.profile, target.path.name)}.log"


class DropRecord:
    """The record of one drop; the file is locked while this is open, so that two submits work one after the other.

    Each line is a step: `{"state": "naming", "drop_id": "9f…", "sha256": "…", "path": "/…/notes.jsonl", "at": …}`.
    A line that is not JSON was torn by a crash, and its step was never taken. A line that obcd cannot have written is
    never acted upon either, because files are removed by what a record says.

    Args:
        folder: The folder of the inbox; a record about another one is refused.
        advice: What to do if it cannot be kept.
        patience_seconds: Maximum seconds to wait for another submit.

    Raises:
        AlreadyRunningError: If another submit still holds it after that.
        InputError: If it belongs to another user or is damaged; and from every method that writes, if the record cannot
            be kept; nothing was changed in the inbox then.
    """

    def __init__(
        self, path: Path, folder: Path, advice: str = ELSEWHERE, patience_seconds: float | None = None
    ) -> None:
        self.path = path
        self._folder = os.path.realpath(folder)
        self._advice = advice
        self._deadline = monotonic() + (LOCK_SECONDS if patience_seconds is None else patience_seconds)
        self._last: dict[str, str] = {}
        self._is_torn = False
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise _no_record(path, error, advice) from None

    def _open(self) -> int:
        if not self.path.parent.is_dir():
            disk.make_folder(self.path.parent)
        is_new = not self.path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.path, flags, 0o600)
        try:
            self._check_file(os.fstat(descriptor))
            self._lock(descriptor)
            if is_new:
                disk.sync_folder(self.path.parent)
            size = os.fstat(descriptor).st_size
            if size > MAX_RECORD_BYTES:
                raise self._damaged(f"more than {MAX_RECORD_BYTES} bytes")
            self._read(os.pread(descriptor, size, 0))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check_file(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise self._damaged("it is not a regular file")
        if status.st_uid != os.geteuid():
            raise InputError(
                f"the record {printable(str(self.path))} belongs to another user (uid {status.st_uid}), so nothing was "
                f"dropped: {self._advice}"
            )

    def _lock(self, descriptor: int) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= self._deadline:
                    raise AlreadyRunningError(
                        f"another submit of the same name runs (it holds {printable(str(self.path))}), so nothing was "
                        "dropped: wait for it"
                    ) from None
                time.sleep(LOOK_SECONDS)
            else:
                return

    def _read(self, raw: bytes) -> None:
        *lines, rest = raw.split(b"\n")
        self._is_torn = bool(rest)
        for line in lines:
            try:
                entry = json.loads(line)
            except RecursionError:
                raise self._damaged("nested too deeply") from None
            except ValueError:  # torn
                continue
            if fault := _find_fault(entry, self._folder):
                raise self._damaged(fault)
            self._last = entry

    def _damaged(self, fault: str) -> InputError:
        return InputError(
            f"the record {printable(str(self.path))} cannot be understood ({fault}), so nothing was dropped: check "
            "whether the job was submitted, then remove the record"
        )

    def __enter__(self) -> DropRecord:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._descriptor)

    def settle(self) -> bool:
        """Return whether the drop was made; remove the rest of one that a crash interrupted before it was made.

        Raises:
            InputError: If the rest cannot be removed, or the record cannot be written.
        """
        state, drop_id, path = (str(self._last.get(key, "")) for key in ("state", "drop_id", "path"))
        if not state or not drop_id:
            return state == "dropped"
        try:
            if state == "dropped":  # the crash may have come before the hidden name was removed
                disk.remove(hidden(Path(path), drop_id))
                return True
            if state == "naming" and is_named(hidden(Path(path), drop_id)):
                self._write({**self._last, "state": "dropped"})
                disk.remove(hidden(Path(path), drop_id))
                return True
            if state == "naming":  # first: without the hidden copy it would mean dropped
                self._write({**self._last, "state": "copying"})
            clear_rests(Path(path), drop_id)
            if os.fstat(self._descriptor).st_size > LONG_RECORD_BYTES:  # an empty record means the same: not dropped
                os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise InputError(f"cannot continue the interrupted drop {printable(path)}: {error.strerror}") from None
        return False

    @property
    def evidence(self) -> str:
        """The evidence that it was submitted; valid after `settle` has returned true."""
        at, seen = self._last.get("at", "at a time that is not known"), self._last.get("evidence")
        return f"{seen} (seen at {at})" if seen else f"dropped at {at}"

    @property
    def drop_id(self) -> str:
        """The id of the last drop that was begun; "" if there was none, or another process made it."""
        return str(self._last.get("drop_id", ""))

    @property
    def sha256(self) -> str:
        """The digest of the last drop's content; "" if another process made it."""
        return self._last.get("sha256", "")

    @property
    def dropped_at(self) -> str:
        """The time of the last step, e.g. `2026-11-22T03:00:01.250Z`."""
        return self._last.get("at", "")

    @property
    def was_published(self) -> bool:
        """Whether the result of the last drop was seen in the outbox."""
        return "published" in self._last

    def published(self, folder: Path) -> None:
        """Record that the result was seen, so that it is known that it was removed when it is missing."""
        self._write({**self._last, "published": str(folder)})

    def begin(self, target: Target) -> None:
        """Set the target of the following steps."""
        self._last = {"path": os.path.abspath(target.path)}

    def copying(self, drop_id: str) -> None:
        """Record that the drop of this id is not made yet."""
        self._write({"state": "copying", "drop_id": drop_id, "path": self._last["path"]})

    def naming(self, sha256: str) -> None:
        """Record that the copy is complete and gets its name next."""
        self._write({**self._last, "state": "naming", "sha256": sha256})

    def dropped(self) -> None:
        """Record that the copy has its name."""
        self._write({**self._last, "state": "dropped"})

    def found(self, evidence: str) -> None:
        """Record that another process submitted it, so that this is known when the evidence is removed."""
        self._write({"state": "dropped", "evidence": evidence})

    def remove(self) -> None:
        """Remove the record, durably."""
        disk.remove(self.path)
        disk.sync_folder(self.path.parent)

    def _write(self, entry: dict[str, str]) -> None:
        entry = {**entry, "at": timestamp(wall())}
        line = b"\n" * self._is_torn + json.dumps(entry).encode() + b"\n"
        try:
            disk.before("record", f"{entry['state']} {self.path}")
            self._is_torn = True
            if os.write(self._descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            disk.sync_file(self._descriptor, self.path)
            self._is_torn = False
        except OSError as error:
            raise _no_record(self.path, error, self._advice) from None
        self._last = entry


def _find_fault(entry: object, folder: str) -> str:
    """Return why a line of a record cannot be one that obcd wrote about a drop into a folder, "" if it can.

    Args:
        folder: The real path, without links.
    """
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        return "a line is not an object of texts"
    if entry.get("state") not in STATES:
        return "a state that this obcd does not know"
    if entry["state"] == "dropped" and "evidence" in entry and "drop_id" not in entry:
        return ""
    if not DROP_ID.fullmatch(entry.get("drop_id", "")):
        return "a drop without an id"
    parent, _, name = entry.get("path", "").rpartition("/")
    try:
        is_there = os.path.realpath(parent or "/") == folder and drop_name(name) == name
    except (InputError, ValueError):
        is_there = False
    return "" if is_there else f"it describes a drop that is not into {printable(folder)}"


def submit_once(layout: Layout, reader: IO[bytes], target: Target, label: str, max_line_bytes: int, folder: Path
                ) -> Submitted | Already:  # fmt: skip
    """Drop the content of a stream unless a job of this name was submitted before, by this user or visibly by another.

    Args:
        folder: From `find_state_folder`.

    Raises:
        AlreadyRunningError: If another submit of that name by this user does not end within `LOCK_SECONDS`.
        InputError: As `drop`, and if the record cannot be kept; nothing was dropped then.
    """
    with DropRecord(record_path(folder, layout.inbox, target), target.path.parent) as record:
        if record.settle():
            return Already(target.path.name, record.evidence)
        evidence = find_evidence(layout, target)
        if not evidence:
            record.begin(target)
            try:
                return drop(reader, label, target, max_line_bytes, record)
            except TakenError:
                evidence = "it is in the inbox"
            except ComingError:
                evidence = _await_coming(layout, target)
                if not evidence:
                    raise
        record.found(evidence)
        return Already(target.path.name, evidence)


def find_evidence(layout: Layout, target: Target) -> str:
    """Return the visible evidence that a job of this name was submitted, "" if there is none.

    It looks for exact names in the inbox and the outbox, because it may be allowed to list neither.
    """
    if os.path.lexists(target.path):
        return "it is in the inbox"
    stem = stem_of(target.path.name)
    names = [f"{stem}.partial", f"{stem}.rejected", f"{stem}.repeated"]
    if target.profile or not (layout.inbox / stem).is_dir():  # otherwise it may be the folder of a profile's jobs
        names.insert(0, stem)
    paths = [place / name for place in find_places(layout.outbox, os.geteuid(), target.profile) for name in names]
    return next((f"{path} is there" for path in paths if os.path.lexists(path) and not is_home(layout, path)), "")


def _await_coming(layout: Layout, target: Target) -> str:
    """Wait briefly for a file whose marker is there: somebody is dropping it now, or was interrupted."""
    deadline = monotonic() + COMING_SECONDS
    while not (evidence := find_evidence(layout, target)) and monotonic() < deadline:
        time.sleep(0.02)
    return evidence


@contextlib.contextmanager
def exclusive(folder: Path, inbox: Path, profile: str) -> Iterator[None]:
    """Keep out a second load of the same inbox and profile by this user, until the block or the process ends.

    Raises:
        AlreadyRunningError: If one runs.
        InputError: If the lock cannot be made.
    """
    path = folder / "locks" / f"{key_of(os.path.realpath(inbox), profile)}.lock"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _no_record(path, error) from None
    with locked(descriptor, f"another submit --lock into {printable(str(inbox / profile))} runs: wait for it"):
        yield


@contextlib.contextmanager
def locked(descriptor: int, sentence: str) -> Iterator[None]:
    """Hold `flock` on a descriptor, and close it at the end.

    Raises:
        AlreadyRunningError: With this sentence, if another process holds it.
    """
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(sentence) from None
        yield
    finally:
        os.close(descriptor)
