"""Dropping a job exactly once, whatever happens to `obcd submit` half way: the submitter's own record of a drop.

    copying ──► naming ──► dropped          one line each, synced before the step is taken
    │           the hidden copy is whole; has it one name only, it was not dropped
    └ not dropped, whatever lies in the inbox

A drop is made by giving its hidden copy a second name, and the hidden name goes only when that is written down. Until
then the inbox does not take the file. So a record that ends with `naming` tells the truth after a kill -9 at any point:
the hidden copy with one name means "not dropped" (what is left of it is cleared, and the drop is made anew, with a new
id), with two names or gone it means "dropped". Neither the queue nor the outbox has to be asked, whose folders a
submitter may not read, and whose content gets renamed and removed in time.

What remains: a power cut on a filesystem where syncing a file does not sync its names (ext4 and XFS do); the inbox
emptied by hand between a crash and the next submit, which then counts as dropped; and another user's job of the same
name, or one dropped without `--once`, at the moment between being claimed and being shown in the outbox.
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
from obcd.spool.inbox.arrivals import DROP_ID
from obcd.spool.submit.dropping import (
    ComingError,
    Submitted,
    TakenError,
    Target,
    clear_rests,
    drop,
    drop_name,
    hidden,
    is_named,
)
from obcd.text import printable

#: Seconds to wait for the file of somebody who is dropping the same name at this moment.
COMING_SECONDS = 2.0
#: Seconds to wait for a submit that works on the same record (it may read a pipe for hours), and between two looks.
LOCK_SECONDS, LOOK_SECONDS = 10.0, 0.02
#: A record above this is none of ours; one above the second is begun anew when its drop was not made, so that a file
#: that is refused every minute for days does not fill it.
MAX_RECORD_BYTES, LONG_RECORD_BYTES = 2**20, 2**16
STATES = ("copying", "naming", "dropped")


@dataclass(frozen=True, slots=True)
class Already:
    """The job was submitted before.

    Attributes:
        evidence: How we know, for people, e.g. `dropped at 2026-11-22T03:00:01.250Z`.
    """

    name: str
    evidence: str


def find_state_folder() -> Path:
    """Return where this user's records are kept, made if it is missing.

    `$STATE_DIRECTORY` (systemd.exec(5), the first of several), `$XDG_STATE_HOME/obcd`, `~/.local/state/obcd`; cron may
    leave HOME out, then it is the one of the user database.

    Raises:
        InputError: If there is none, or it cannot be made.
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
    if base.startswith("/"):  # a relative one is to be passed over, says the base directory specification
        return Path(base) / "obcd"
    home = os.environ.get("HOME") or _home_of_user()
    if not home.startswith("/"):
        raise InputError("there is no home folder to keep a record of what was submitted in: set XDG_STATE_HOME")
    return Path(home) / ".local" / "state" / "obcd"


def _home_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


#: What to do when a record cannot be kept.
ELSEWHERE = "set XDG_STATE_HOME to a folder that you may write into"


def _no_record(path: Path, error: OSError, advice: str = ELSEWHERE) -> InputError:
    return InputError(
        f"cannot keep a record of what is submitted in {printable(str(path))}: {error.strerror}; {advice}"
    )


def key_of(*parts: str) -> str:
    """Return a file name that stands for some strings."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def record_path(folder: Path, inbox: Path, target: Target) -> Path:
    """Return the record of one name: by the inbox, whatever path leads there, and the profile."""
    return folder / "submitted" / f"{key_of(os.path.realpath(inbox), target.profile, target.path.name)}.log"


class DropRecord:
    """What is known of one drop; the file is locked as long as this is open, so that two submits take turns.

    Each line is a step: `{"state": "naming", "drop_id": "9f…", "sha256": "…", "path": "/…/notes.jsonl", "at": …}`.
    A line that is no JSON was torn by a crash and never acted upon. What we cannot have written is never acted upon
    either: files are removed by what a record says.

    Args:
        folder: Of the inbox; what a record says about another one is refused.
        advice: What to do when it cannot be kept.
        patience_seconds: For how long to wait for another submit.

    Raises:
        AlreadyRunningError: If another submit still holds it then.
        InputError: If it is not ours or damaged; and from every method that writes, if the record cannot be kept;
            nothing was changed in the inbox then.
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
            raise self._damaged("it is no regular file")
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
            f"the record {printable(str(self.path))} cannot be understood ({fault}), so nothing was dropped: see "
            "whether the job was submitted, then remove the record"
        )

    def __enter__(self) -> DropRecord:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._descriptor)

    def settle(self) -> bool:
        """Find out whether the drop was made; what a crash left of one that was not is cleared.

        Raises:
            InputError: If the rests cannot be cleared, or the record cannot be written.
        """
        state, drop_id, path = (str(self._last.get(key, "")) for key in ("state", "drop_id", "path"))
        if not state or not drop_id:
            return state == "dropped"
        try:
            if state == "dropped":  # the crash may have come before the hidden name went
                disk.remove(hidden(Path(path), drop_id))
                return True
            if state == "naming" and is_named(hidden(Path(path), drop_id)):
                self._write({**self._last, "state": "dropped"})
                disk.remove(hidden(Path(path), drop_id))
                return True
            if state == "naming":  # first: without the hidden copy it would read as dropped
                self._write({**self._last, "state": "copying"})
            clear_rests(Path(path), drop_id)
            if os.fstat(self._descriptor).st_size > LONG_RECORD_BYTES:  # says what an empty one says: not dropped
                os.ftruncate(self._descriptor, 0)
        except OSError as error:
            raise InputError(f"cannot take up the drop {printable(path)} that broke off: {error.strerror}") from None
        return False

    @property
    def evidence(self) -> str:
        """How we know that it was submitted, once `settle` has said so."""
        at, seen = self._last.get("at", "at a time that is not known"), self._last.get("evidence")
        return f"{seen} (seen at {at})" if seen else f"dropped at {at}"

    def begin(self, target: Target) -> None:
        """Say what the steps that follow are about."""
        self._last = {"path": os.path.abspath(target.path)}

    def copying(self, drop_id: str) -> None:
        """Take note that a drop of this id is not made so far."""
        self._write({"state": "copying", "drop_id": drop_id, "path": self._last["path"]})

    def naming(self, sha256: str) -> None:
        """Take note that the copy is whole and gets its name next."""
        self._write({**self._last, "state": "naming", "sha256": sha256})

    def dropped(self) -> None:
        """Take note that it has its name."""
        self._write({**self._last, "state": "dropped"})

    def found(self, evidence: str) -> None:
        """Take note that somebody else submitted it, so that it holds when the evidence is gone."""
        self._write({"state": "dropped", "evidence": evidence})

    def remove(self) -> None:
        """Forget the drop, durably."""
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
    """Return what keeps a record's line from being one that we wrote about a drop into a folder, "" if nothing does.

    Args:
        folder: Without links.
    """
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        return "a line is no object of texts"
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
    return "" if is_there else f"it speaks of a drop that is not into {printable(folder)}"


def submit_once(layout: Layout, reader: IO[bytes], target: Target, label: str, max_line_bytes: int, folder: Path
                ) -> Submitted | Already:  # fmt: skip
    """Drop what a stream holds unless a job of this name was submitted before, by us or as far as one can see.

    Args:
        folder: From `find_state_folder`.

    Raises:
        AlreadyRunningError: If another submit of that name by us does not end within `LOCK_SECONDS`.
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
                evidence = "it lies in the inbox"
            except ComingError:
                evidence = _await_coming(layout, target)
                if not evidence:
                    raise
        record.found(evidence)
        return Already(target.path.name, evidence)


def find_evidence(layout: Layout, target: Target) -> str:
    """Return what shows everybody that a job of this name was submitted, "" if nothing does.

    The inbox and the outbox are asked for exact names, since neither need be readable.
    """
    if os.path.lexists(target.path):
        return "it lies in the inbox"
    stem = stem_of(target.path.name)
    names = [f"{stem}.partial", f"{stem}.rejected", f"{stem}.repeated"]
    if target.profile or not (layout.inbox / stem).is_dir():  # else it may be the folder of a profile's jobs
        names.insert(0, stem)
    paths = [place / name for place in find_places(layout.outbox, os.geteuid(), target.profile) for name in names]
    return next((f"{path} is there" for path in paths if os.path.lexists(path) and not is_home(layout, path)), "")


def _await_coming(layout: Layout, target: Target) -> str:
    """Wait a little for a file whose marker lies there: somebody is dropping it just now, or broke off."""
    deadline = monotonic() + COMING_SECONDS
    while not (evidence := find_evidence(layout, target)) and monotonic() < deadline:
        time.sleep(0.02)
    return evidence


@contextlib.contextmanager
def exclusive(folder: Path, inbox: Path, profile: str) -> Iterator[None]:
    """Keep a second load of the same inbox and profile by this user out, until the end of the block or of the process.

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
        AlreadyRunningError: With this sentence, if somebody else holds it.
    """
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(sentence) from None
        yield
    finally:
        os.close(descriptor)
