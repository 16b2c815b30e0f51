"""Scan the inbox: find its files, decide which have settled, and say why the others wait.

The scan decides; file events only cause an earlier scan. This module reads only names, `fstat` and markers; the clerk
reads the drops, which are untrusted input (see `acceptance`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from obcd.clock import monotonic, wall
from obcd.core.tables.file_format import ENDING, JSON, form_of, why_not_taken
from obcd.core.tables.foreign_files import advice_by_name
from obcd.errors import ObcdError
from obcd.spool.folders import disk
from obcd.text import printable

MARKER_SUFFIX = ".done"
MAX_NAME_BYTES = 200
#: The daemon's own folder in the inbox (see `layout`).
OWN_FOLDER = ".obcd"
#: Maximum number of entries that are searched for drops in a folder that belongs to no profile.
MOST_STRAY = 1000
#: Maximum number of control files of one owner that are reported.
MOST_CONTROLS = 200
#: Maximum size of a marker, a small JSON object.
MAX_MARKER_BYTES = 4096
#: Seconds that a file may go on changing before that is reported; seconds before a marker without its file is removed.
RESTLESS_SECONDS, ORPHAN_SECONDS = 60.0, 3600.0

#: The form of a drop id that `obcd submit` writes into a marker.
DROP_ID = re.compile("[0-9a-f]{16}")
#: Ends of names that programs use while they write, for locks and for earlier versions (rsync, WinSCP, aria2, lftp,
#: browsers, editors, Office, clouds); ignored silently, in any case.
TEMPORARY_SUFFIXES = (
    *("~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".aria2"),
    *(".swp", ".swo", ".swx", ".bak", ".bkp", ".orig", ".old", ".save", ".autosave", ".lock", ".lck", ".pid"),
    *(".lftp-pget-status", ".icloud", ".!ut", ".!qb", ".kate-swp", ".crswap", ".rsync-partial"),
)
#: Beginnings of such names: hidden files, Emacs, the owner files of Office, Syncthing, Word.
TEMPORARY_PREFIXES = (".", "#", "~$", "~syncthing~", "~wr")
#: Files that systems put into folders: Windows, macOS, Synology, WebDAV.
SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf", "icon\r", "$recycle.bin")
)
#: Folders of systems, which belong to no profile and hold nobody's drops.
SYSTEM_FOLDERS = frozenset(
    ("$recycle.bin", "system volume information", "lost+found", "@eadir", "#recycle", "__macosx")
)
#: Names without an ending: vim tries whether it may write with 4913 and more; Excel writes under eight digits first.
_PROBES = re.compile(r"4913|(?:5|6|7)\d{3}|[0-9A-F]{5}000")
#: macOS writes `notes.csv.sb-1f2e3d4c-AbCdEf` first.
_SAFE_SAVE = re.compile(r".+\.sb-[0-9a-f]{8}-\w{6}", re.DOTALL)
#: Names of control files beside a drop (see `control`, which also has the range of the number).
CONTROL = re.compile(rf"(?P<drop>.+{ENDING})\.(?P<verb>cancel|pause|resume|priority)(-(?P<value>.*))?", re.DOTALL)


class Key(NamedTuple):
    """A file of the inbox: its profile ("" for the inbox itself) and its name."""

    profile: str
    name: str


class Identity(NamedTuple):
    """The fields of `fstat` that must not change while a file settles."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    uid: int = -1

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Take the identity from a stat result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_uid)


@dataclass(frozen=True, slots=True)
class Marker:
    """The content of `name.jsonl.done`; fields are empty if it does not have them.

    Example: `{"sha256": "…", "bytes": 8123, "lines": 30, "drop_id": "…", "parent": "<job>"}`; an empty file is a valid
    marker. `parent` is the job whose failed lines these are (`obcd retry`). The submitter is the user for whom the API
    dropped it (see `submitters`).
    """

    sha256: str = ""
    size: int | None = None
    lines: int | None = None
    drop_id: str = ""
    parent: str = ""
    submitter: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> Marker:
        """Parse a marker; a key with an invalid value counts as missing.

        Raises:
            ValueError: If it is neither empty nor a JSON object, or is nested too deeply.
        """
        try:
            document: object = json.loads(raw) if raw.strip() else {}
            return cls._of(document)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    @classmethod
    def _of(cls, document: object) -> Marker:
        if not isinstance(document, dict):
            raise ValueError("not an object")
        size, lines = document.get("bytes"), document.get("lines")
        return cls(
            sha256=printable(str(document.get("sha256", "")))[:64],
            size=size if isinstance(size, int) else None,
            lines=lines if isinstance(lines, int) else None,
            drop_id=printable(str(document.get("drop_id", "")))[:64],
            parent=printable(str(document.get("parent", "")))[:64],
            submitter=printable(str(document.get("submitter", "")))[:256],
        )


@dataclass(frozen=True, slots=True)
class Drop:
    """A settled file, ready for the clerk."""

    key: Key
    identity: Identity
    marker: Marker | None


class Unfit(StrEnum):
    """Why an entry is not a drop; the value is the sentence for `why.txt`."""

    NAME = (
        "its name does not end in .jsonl: rename it if it holds prompts (of plain text obcd prepare makes a prompt "
        "file), or remove it"
    )
    LONG = f"its name is longer than {MAX_NAME_BYTES} bytes: give it a shorter one"
    UNPRINTABLE = "its name has characters that cannot be shown: rename it"
    LINK = "it is a symbolic link: links are never followed, copy the file itself"
    SPECIAL = "it is not a regular file"
    HARD_LINK = "it has a second hard link: it is accepted when the other one is removed"
    UNREADABLE = "the daemon may not read it: chmod g+r (or a+r) the file"
    CLOSED = "the daemon may not read this folder: chmod g+rx"
    PROFILE = (
        "there is no profile of this name in the configuration: move the files to the inbox or to a profile's folder"
    )


@dataclass(slots=True)
class _Watched:
    identity: Identity
    since: float  # when this identity was first seen
    first: float  # when the name was first seen
    looks: int = 1
    held: str = ""  # why the clerk did not accept it
    held_until: float = 0.0
    given: bool = False  # whether the clerk has it and has given no verdict yet


def hidden_name(drop_id: str) -> str:
    """Return the name of a submitter's copy until it gets its final name."""
    return f".{drop_id}.tmp"


def is_ignored(name: str) -> bool:
    """Return whether a name cannot be that of a drop: it is temporary or a system's, a marker's or a control file's."""
    return is_temporary(name) or name.endswith(MARKER_SUFFIX) or is_control(name)


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a file that a program or a system made for itself."""
    low = name.lower()
    return (
        low.startswith(TEMPORARY_PREFIXES)
        or low.endswith(TEMPORARY_SUFFIXES)
        or low in SYSTEM_FILES
        or _PROBES.fullmatch(name) is not None
        or _SAFE_SAVE.fullmatch(name) is not None
    )


def is_control(name: str) -> bool:
    """Return whether a name is that of a control file, valid or not; a name that ends like a drop's is a drop's."""
    return form_of(name) is None and CONTROL.fullmatch(name) is not None


class Inbox:
    """The state of the inbox at the last scan. One thread; `now` is monotonic seconds."""

    def __init__(
        self,
        path: Path,
        profiles: list[str],
        settle_seconds: float,
        require_marker: bool,
        accepts: Mapping[str, Set[str]] | None = None,
    ) -> None:
        self._path = path
        self.configure(profiles, settle_seconds, require_marker, accepts)
        self._watched: dict[Key, _Watched] = {}
        #: Files with a time until which they are held; there may be thousands of others.
        self._held: set[Key] = set()
        #: {marker without its file: when it was first seen without it}
        self._markers: dict[Key, float] = {}
        #: {file: why it is not accepted}, of the last complete scan
        self.waiting: dict[Key, str] = {}
        #: Control files, and the number of ignored names, of the same scan.
        self.controls: tuple[Key, ...] = ()
        self.ignored = 0
        #: The scan in progress: its position, and its findings so far.
        self._round: Iterator[None] | None = None
        self._now = 0.0
        self._said: dict[Key, str] = {}
        self._drops: list[Drop] = []

    def configure(
        self,
        profiles: list[str],
        settle_seconds: float,
        require_marker: bool,
        accepts: Mapping[str, Set[str]] | None = None,
    ) -> None:
        """Apply the settings that may change at run time; files in the folder of a removed profile stay there.

        Args:
            accepts: {profile, "" for the inbox itself: the kinds of files that it accepts beside JSONL}.
        """
        self._accepts: Mapping[str, Set[str]] = accepts or {}
        self.profiles = profiles
        self._settle = settle_seconds
        self._require_marker = require_marker

    def look(self, now: float, seconds: float) -> list[Drop] | None:
        """Continue a scan of all entries for at most `seconds`, because a million of them take many turns.

        Returns:
            At the end of a scan the settled drops that the clerk does not have; None until then.

        Raises:
            OSError: If the inbox itself cannot be read; nothing is forgotten then, and the next call begins a new scan.
        """
        until, self._now = monotonic() + seconds, now
        if self._round is None:
            self._round = self._look_at_all()
        try:
            for _ in self._round:
                if monotonic() >= until:
                    return None
        except OSError:
            self._round = None
            for drop in self._drops:  # the caller did not get them
                self.offer_again(drop)
            raise
        self._round = None
        return sorted(self._drops, key=lambda drop: drop.identity.ctime_ns)

    def _look_at_all(self) -> Iterator[None]:
        self._said, self._drops = {}, []
        seen, markers, controls, ignored = set[Key](), set[Key](), list[Key](), 0
        control_counts: Counter[int] = Counter()  # {owner: control files}
        kept: dict[Key, _Watched] = {}
        for profile, entry in self._entries():
            if entry is None:
                ignored += 1
                yield
                continue
            key = Key(profile, entry.name)
            if is_ignored(entry.name):
                if _is_marker(entry.name) and not entry.name.startswith((".", "#")):
                    markers.add(key)
                elif is_control(entry.name) and not entry.name.startswith((".", "#")):
                    owner = _owner_of(entry)
                    control_counts[owner] += 1
                    controls += [key] if control_counts[owner] <= MOST_CONTROLS else []
                else:
                    ignored += 1
            else:
                seen.add(key)
                drop = self._look(key, entry, self._now)
                self._drops += [] if drop is None else [drop]
                if key in self._watched:
                    kept[key] = self._watched[key]
            yield
        yield from self._clear_orphans(markers, seen, self._now)
        self._watched = kept
        self.waiting, self.controls, self.ignored = self._said, tuple(controls), ignored

    def hold(self, drop: Drop, why: str, until: float) -> None:
        """Record that the clerk did not accept a drop; it is offered again at `until`, or when it changes."""
        watched = self._watched_as(drop)
        if watched is not None:
            watched.held, watched.held_until, watched.given = why, until, False
            self._held.add(drop.key)

    def offer_again(self, drop: Drop) -> None:
        """Record that the clerk did not get a drop after all; the next scan offers it again."""
        watched = self._watched_as(drop)
        if watched is not None:
            watched.given = False

    def _watched_as(self, drop: Drop) -> _Watched | None:
        """Return the record of a drop's file; None if another file has its name now."""
        watched = self._watched.get(drop.key)
        return watched if watched is not None and watched.identity == drop.identity else None

    def wake_held(self) -> None:
        """Offer the drops again that were held because of another job."""
        for key in self._held:
            if key in self._watched:
                self._watched[key].held_until = 0.0
        self._held.clear()

    def age(self, key: Key, now: float) -> float:
        """Return for how many seconds a file has been there unchanged."""
        watched = self._watched.get(key)
        return now - watched.since if watched else 0.0

    @property
    def given(self) -> set[Key]:
        """The files that were returned by `look` and are still there."""
        return {key for key, watched in self._watched.items() if watched.given}

    def is_settling(self, key: Key) -> bool:
        """Return whether a file is settling."""
        watched = self._watched.get(key)
        return watched is not None and not watched.given and not watched.held

    @property
    def settling(self) -> list[Key]:
        """The files that are settling, so that the next scan should come soon."""
        return [key for key, watched in self._watched.items() if not watched.given and not watched.held]

    def _clear_orphans(self, markers: set[Key], seen: set[Key], now: float) -> Iterator[None]:
        """Remove markers whose file has been missing for long: they must not count for the next drop of that name."""
        orphans: dict[Key, float] = {}
        for key in markers:
            if Key(key.profile, key.name.removesuffix(MARKER_SUFFIX)) not in seen:
                orphans[key] = self._markers.get(key, now)
                if now - orphans[key] > ORPHAN_SECONDS:
                    self._clear_orphan(key)
            yield
        self._markers = orphans

    def _clear_orphan(self, key: Key) -> None:
        path = self._folder(key.profile) / key.name
        if not os.path.lexists(path.with_name(key.name.removesuffix(MARKER_SUFFIX))):
            remove_entry(path)

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str] | None]]:
        """Yield the entries of the inbox and of its profiles' folders; None for a folder that is none of these."""
        with os.scandir(self._path) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield "", entry
                elif entry.name in self.profiles:
                    yield from ((entry.name, item) for item in self._entries_of(entry))
                elif entry.name != OWN_FOLDER:
                    if not is_temporary(entry.name) and entry.name.lower() not in SYSTEM_FOLDERS:
                        self._note_stray_folder(entry)
                    yield "", None

    def _entries_of(self, profile: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of a profile's folder; one that cannot be read does not affect the others."""
        try:
            with os.scandir(profile.path) as entries:
                yield from entries
        except FileNotFoundError:  # removed after the inbox was listed
            return
        except PermissionError:
            self._said[Key("", profile.name)] = Unfit.CLOSED
        except OSError as error:
            self._said[Key("", profile.name)] = f"this folder cannot be read: {error.strerror}"

    def _note_stray_folder(self, entry: os.DirEntry[str]) -> None:
        try:
            with os.scandir(entry.path) as inside:
                forms = (form_of(item.name) for item in islice(inside, MOST_STRAY))
                has_files = any(form is not None and form.kind != JSON for form in forms)  # any program has .json files
        except OSError:
            has_files = False
        if has_files:
            self._said[Key("", entry.name)] = Unfit.PROFILE

    def _look(self, key: Key, entry: os.DirEntry[str], now: float) -> Drop | None:
        unfit = _why_unfit(entry) or why_not_taken(entry.name, self._accepts.get(key.profile, frozenset()))
        if unfit:
            self._said[key] = unfit
            return None
        status = None if self._is_with_the_clerk(key, entry) else self._inspect(key)
        return None if status is None else self._settle_one(key, Identity.of(status), now)

    def _inspect(self, key: Key) -> os.stat_result | None:
        """Return the status of a file; None if it must wait, and `waiting` says why."""
        try:
            status = self._status(key)
        except PermissionError:
            self._said[key] = Unfit.UNREADABLE
            return None
        except OSError:  # removed or replaced between scan and open; the next scan decides
            return None
        if status.st_nlink == 2 and wall() - status.st_ctime > RESTLESS_SECONDS and self._clear_hidden(key, status):
            return None  # the next scan returns it
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            self._said[key] = Unfit.HARD_LINK if stat.S_ISREG(status.st_mode) else Unfit.SPECIAL
            return None
        return status

    def _is_with_the_clerk(self, key: Key, entry: os.DirEntry[str]) -> bool:
        """Return whether the clerk has this very file; opening thousands that wait there would dominate the scan."""
        watched = self._watched.get(key)
        if watched is None or not watched.given:
            return False
        try:
            is_same = Identity.of(entry.stat(follow_symlinks=False)) == watched.identity
        except OSError:  # removed or replaced; opening it decides
            return False
        if is_same and watched.held:
            self._said[key] = watched.held
        return is_same

    def _folder(self, profile: str) -> Path:
        return self._path / profile if profile else self._path

    def _status(self, key: Key) -> os.stat_result:
        """Return the status through a descriptor: on NFS only open refreshes the attributes."""
        path = self._folder(key.profile) / key.name
        with disk.opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
            return os.fstat(descriptor)

    def _clear_hidden(self, key: Key, status: os.stat_result) -> bool:
        """Remove the hidden name of a drop whose submitter died after giving it this name, before removing that one.

        It is also safe while the submitter lives: the hidden name is only removed after the file got its final name.
        """
        path = self._folder(key.profile) / key.name
        try:
            marker = read_marker(path.with_name(key.name + MARKER_SUFFIX), status.st_uid)
            if not DROP_ID.fullmatch(marker.drop_id):
                return False
            twin = path.with_name(hidden_name(marker.drop_id))
            if not os.path.samestat(twin.lstat(), status):
                return False
            twin.unlink()
        except (OSError, ValueError):
            return False
        return True

    def _settle_one(self, key: Key, identity: Identity, now: float) -> Drop | None:
        watched = self._watched.get(key)
        if watched is None or watched.identity != identity:
            first = watched.first if watched else now
            self._watched[key] = watched = _Watched(identity, now, first)
        else:
            watched.looks += 1
        if watched.held:  # repeated while it is offered again, or the status folder would appear and disappear
            self._said[key] = watched.held
        if watched.given or now < watched.held_until:
            return None
        marker, trouble = self._marker(key, identity)
        if trouble:
            self._said[key] = trouble
            return None
        settled = watched.looks >= 2 and now - watched.since >= self._settle
        if marker is None and not settled:
            if now - watched.first > RESTLESS_SECONDS + self._settle:
                self._said[key] = "it is still changing: it is accepted when it has not changed for a while"
            return None
        watched.given = True
        return Drop(key, identity, marker)

    def _marker(self, key: Key, identity: Identity) -> tuple[Marker | None, str]:
        """Return the file's marker, and why the file must wait because of it ("" if it need not)."""
        path = self._folder(key.profile) / (key.name + MARKER_SUFFIX)
        try:
            marker = read_marker(path, identity.uid)
        except OtherOwnerError:  # otherwise it would block the owner's own marker
            remove_entry(path)
            return None, ""
        except FileNotFoundError:
            missing = f"it waits for its marker {printable(path.name)} ([spool] require_marker is set)"
            return None, missing if self._require_marker else ""
        except (OSError, ValueError):
            return None, f"its marker {printable(path.name)} cannot be read: write it again, or remove it"
        if marker.size is not None and marker.size != identity.size:
            return None, f"its marker says {marker.size} bytes, but the file has {identity.size}: send it again"
        return marker, ""


class OtherOwnerError(ObcdError, OSError):
    """A marker belongs to a user who may not write one for the drop."""


def read_marker(path: Path, owner: int) -> Marker:
    """Read a drop's marker; it counts if it belongs to the owner of the drop, to root or to the daemon's user.

    Everybody may write to a shared inbox: another user's marker could get a file accepted that is still being written.

    Raises:
        OtherOwnerError: If it belongs to another user.
        OSError: If it cannot be read.
        ValueError: If it is not a valid marker.
    """
    if path.lstat().st_uid not in (owner, 0, os.geteuid()):
        raise OtherOwnerError(errno.EPERM, os.strerror(errno.EPERM), str(path))
    return Marker.parse(read_small(path, (owner, 0, os.geteuid())))


def remove_entry(path: Path) -> None:
    """Remove a file, a link or an empty folder, if possible."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            path.rmdir()
        else:
            path.unlink()


def read_small(path: Path, owners: Collection[int] = ()) -> bytes:
    """Read a small regular file without following a link or blocking on a FIFO.

    Args:
        owners: The allowed owners; (): any.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a small regular file, or belongs to another user.
    """
    with disk.open_regular(path, os.O_NOFOLLOW) as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_MARKER_BYTES:
            raise ValueError("not a small file")
        if owners and status.st_uid not in owners:  # replaced after it was checked
            raise ValueError("another user's file")
        return file.read(MAX_MARKER_BYTES)


def _owner_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except OSError:  # gone
        return -1


def _why_unfit(entry: os.DirEntry[str]) -> str:
    """Return why an entry is not a drop, "" if it is one."""
    unfit = _unfit_entry(entry)
    advice = advice_by_name(entry.name) if unfit is Unfit.NAME else ""
    return f"{unfit}; {advice}" if advice else unfit or ""


def _unfit_entry(entry: os.DirEntry[str]) -> Unfit | None:
    if entry.is_symlink():
        return Unfit.LINK
    if not entry.is_file(follow_symlinks=False):
        return Unfit.SPECIAL
    if not entry.name.isprintable():  # surrogates of undecodable bytes are not printable either
        return Unfit.UNPRINTABLE
    if len(os.fsencode(entry.name)) > MAX_NAME_BYTES:
        return Unfit.LONG
    return None if form_of(entry.name) is not None else Unfit.NAME


def _is_marker(name: str) -> bool:
    return name.endswith(MARKER_SUFFIX) and form_of(name.removesuffix(MARKER_SUFFIX)) is not None
