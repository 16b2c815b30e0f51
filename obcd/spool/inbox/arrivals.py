"""The inbox as it is now: which files are there, which have settled, and why the others wait.

A scan is the truth; file events only make it come sooner. Nothing is read here but names and `fstat`: what touches a
stranger's bytes is the clerk's (see `intake`).
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
from obcd.core.tables.file_format import ENDING, form_of, why_not_taken
from obcd.errors import ObcdError
from obcd.spool.folders import disk
from obcd.text import printable

MARKER_SUFFIX = ".done"
MAX_NAME_BYTES = 200
#: The daemon's own folder in the inbox (see `layout`).
OWN_FOLDER = ".obcd"
#: Entries of a folder that is no profile's which are looked at for drops.
MOST_STRAY = 1000
#: Control files of one owner that are told of.
MOST_CONTROLS = 200
#: A marker is a small JSON object; what is larger is not one.
MAX_MARKER_BYTES = 4096
#: Seconds a file may go on changing before we say so; a marker may lie without its file before it is removed.
RESTLESS_SECONDS, ORPHAN_SECONDS = 60.0, 3600.0

#: What `obcd submit` calls its drops, in their markers.
DROP_ID = re.compile("[0-9a-f]{16}")
#: Names that programs use while they write (rsync, editors, browsers, NFS); passed over in silence.
TEMPORARY_SUFFIXES = ("~", ".tmp", ".part", ".partial", ".filepart", ".swp", ".crdownload")
#: Names beside a drop that say what is to become of its job (see `control`); what a number may be is said there.
CONTROL = re.compile(rf"(?P<drop>.+{ENDING})\.(?P<verb>cancel|pause|resume|priority)(-(?P<value>.*))?", re.DOTALL)


class Key(NamedTuple):
    """A file of the inbox: its profile ("" for the inbox itself) and its name."""

    profile: str
    name: str


class Identity(NamedTuple):
    """What must not change while a file settles, from `fstat`."""

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
    """What `name.jsonl.done` says; empty fields where it is silent.

    Example: `{"sha256": "…", "bytes": 8123, "lines": 30, "drop_id": "…", "parent": "<job>"}`; an empty file is a marker
    too. `parent` is the job whose failed lines these are (`obcd retry`).
    """

    sha256: str = ""
    size: int | None = None
    lines: int | None = None
    drop_id: str = ""
    parent: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> Marker:
        """Read a marker; what it says wrongly counts as not said, except that nonsense raises.

        Raises:
            ValueError: If it is neither empty nor a JSON object, or nested too deeply to be read.
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
        )


@dataclass(frozen=True, slots=True)
class Drop:
    """A settled file, ready for the clerk."""

    key: Key
    identity: Identity
    marker: Marker | None


class Unfit(StrEnum):
    """Why an entry is not looked at further; the value is the sentence for `why.txt`."""

    NAME = "its name does not end in .jsonl: rename it if it holds prompts, or take it away"
    LONG = f"its name is longer than {MAX_NAME_BYTES} bytes: give it a shorter one"
    UNPRINTABLE = "its name has characters that cannot be shown: rename it"
    LINK = "it is a symbolic link: links are never followed, copy the file itself"
    SPECIAL = "it is not a regular file"
    HARD_LINK = "it has a second hard link: it is taken when the other one is gone"
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
    held: str = ""  # why the clerk did not take it
    held_until: float = 0.0
    given: bool = False  # handed to the clerk, no verdict yet


def hidden_name(drop_id: str) -> str:
    """Return the name that a submitter's copy has until it gets its own."""
    return f".{drop_id}.tmp"


def is_ignored(name: str) -> bool:
    """Tell whether a name is nobody's drop: hidden, temporary, or a control file."""
    return name.startswith((".", "#")) or name.endswith((*TEMPORARY_SUFFIXES, MARKER_SUFFIX)) or is_control(name)


def is_control(name: str) -> bool:
    """Tell whether a name is that of a control file, well formed or not; one that ends as a drop's is a drop's."""
    return form_of(name) is None and CONTROL.fullmatch(name) is not None


class Inbox:
    """What the inbox looked like at the last scan. One thread; `now` is monotonic seconds."""

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
        #: Files with a time until which they are held; of all the others there may be thousands.
        self._held: set[Key] = set()
        #: {marker without its file: when it was first seen so}
        self._markers: dict[Key, float] = {}
        #: {file: why it is not taken}, of the last look that came to its end
        self.waiting: dict[Key, str] = {}
        #: Control files, and how many names were nobody's drop, of the same look.
        self.controls: tuple[Key, ...] = ()
        self.ignored = 0
        #: The look that goes on: where it is, and what it found by now.
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
        """Take what may change while it runs; what is in the folder of a profile that went is let lie.

        Args:
            accepts: {profile, "" for the inbox itself: the kinds of files that it takes beside JSONL}.
        """
        self._accepts: Mapping[str, Set[str]] = accepts or {}
        self.profiles = profiles
        self._settle = settle_seconds
        self._require_marker = require_marker

    def scan(self, now: float) -> list[Drop]:
        """Look at every entry once, however long that takes; see `look`."""
        while (drops := self.look(now, float("inf"))) is None:
            pass
        return drops

    def look(self, now: float, seconds: float) -> list[Drop] | None:
        """Go on with a look at every entry, for so many seconds at most: a million of them are not looked at in one go.

        Returns:
            At its end what has settled and is not with the clerk already; until then None.

        Raises:
            OSError: If the inbox itself cannot be read; nothing is forgotten then, and the next look begins anew.
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
            for drop in self._drops:  # nobody was told of them
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
        """Take note that the clerk did not take a drop; it is offered again at `until`, or when it changes."""
        watched = self._watched_as(drop)
        if watched is not None:
            watched.held, watched.held_until, watched.given = why, until, False
            self._held.add(drop.key)

    def offer_again(self, drop: Drop) -> None:
        """Take note that the clerk was not asked about a drop after all; the next scan offers it again."""
        watched = self._watched_as(drop)
        if watched is not None:
            watched.given = False

    def _watched_as(self, drop: Drop) -> _Watched | None:
        """Return what is known of a drop's file; None when another one has its name by now."""
        watched = self._watched.get(drop.key)
        return watched if watched is not None and watched.identity == drop.identity else None

    def wake_held(self) -> None:
        """Offer again what was held because of another job."""
        for key in self._held:
            if key in self._watched:
                self._watched[key].held_until = 0.0
        self._held.clear()

    def age(self, key: Key, now: float) -> float:
        """Return for how long a file has been there unchanged, in seconds."""
        watched = self._watched.get(key)
        return now - watched.since if watched else 0.0

    @property
    def given(self) -> set[Key]:
        """The files that were returned by `look` and are still there."""
        return {key for key, watched in self._watched.items() if watched.given}

    def is_settling(self, key: Key) -> bool:
        """Tell whether a file is on its way."""
        watched = self._watched.get(key)
        return watched is not None and not watched.given and not watched.held

    @property
    def settling(self) -> list[Key]:
        """The files that are on their way, so that the next scan should come soon."""
        return [key for key, watched in self._watched.items() if not watched.given and not watched.held]

    def _clear_orphans(self, markers: set[Key], seen: set[Key], now: float) -> Iterator[None]:
        """Remove markers whose file has not come for long: the next drop of that name must not be judged by them."""
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
        """Yield what lies in the inbox and in its profiles' folders; None for a folder that is none of these."""
        with os.scandir(self._path) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield "", entry
                elif entry.name in self.profiles:
                    yield from ((entry.name, item) for item in self._entries_of(entry))
                elif entry.name != OWN_FOLDER:
                    if not entry.name.startswith("."):
                        self._note_stray_folder(entry)
                    yield "", None

    def _entries_of(self, profile: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
        """Go through a profile's folder; one that cannot be read costs the others nothing."""
        try:
            with os.scandir(profile.path) as entries:
                yield from entries
        except FileNotFoundError:  # taken away since the inbox was listed
            return
        except PermissionError:
            self._said[Key("", profile.name)] = Unfit.CLOSED
        except OSError as error:
            self._said[Key("", profile.name)] = f"this folder cannot be read: {error.strerror}"

    def _note_stray_folder(self, entry: os.DirEntry[str]) -> None:
        try:
            with os.scandir(entry.path) as inside:
                has_files = any(form_of(item.name) is not None for item in islice(inside, MOST_STRAY))
        except OSError:
            has_files = False
        if has_files:
            self._said[Key("", entry.name)] = Unfit.PROFILE

    def _look(self, key: Key, entry: os.DirEntry[str], now: float) -> Drop | None:
        unfit = _unfit_entry(entry) or why_not_taken(entry.name, self._accepts.get(key.profile, frozenset()))
        if unfit:
            self._said[key] = unfit
            return None
        status = None if self._is_with_the_clerk(key, entry) else self._inspect(key)
        return None if status is None else self._settle_one(key, Identity.of(status), now)

    def _inspect(self, key: Key) -> os.stat_result | None:
        """Return a file's status; None when it is not to be taken now, and `waiting` says why."""
        try:
            status = self._status(key)
        except PermissionError:
            self._said[key] = Unfit.UNREADABLE
            return None
        except OSError:  # gone or swapped between scan and open; the next scan tells
            return None
        if status.st_nlink == 2 and wall() - status.st_ctime > RESTLESS_SECONDS and self._clear_hidden(key, status):
            return None  # the next scan takes it
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            self._said[key] = Unfit.HARD_LINK if stat.S_ISREG(status.st_mode) else Unfit.SPECIAL
            return None
        return status

    def _is_with_the_clerk(self, key: Key, entry: os.DirEntry[str]) -> bool:
        """Tell whether the clerk has it as it is; opening thousands that wait there would cost more than the rest."""
        watched = self._watched.get(key)
        if watched is None or not watched.given:
            return False
        try:
            is_same = Identity.of(entry.stat(follow_symlinks=False)) == watched.identity
        except OSError:  # gone, or swapped; it is opened then, which tells
            return False
        if is_same and watched.held:
            self._said[key] = watched.held
        return is_same

    def _folder(self, profile: str) -> Path:
        return self._path / profile if profile else self._path

    def _status(self, key: Key) -> os.stat_result:
        """Stat through a descriptor: on NFS only open refreshes the attributes."""
        path = self._folder(key.profile) / key.name
        with disk.opened(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
            return os.fstat(descriptor)

    def _clear_hidden(self, key: Key, status: os.stat_result) -> bool:
        """Remove the other name of a drop whose submitter died between giving it this one and removing that one.

        Safe while it lives, too: the hidden name only ever goes after the file got its own.
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
        if watched.held:  # said on while it is offered again, or the sign would come and go
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
                self._said[key] = "it is still changing: it is taken when it has been quiet for a while"
            return None
        watched.given = True
        return Drop(key, identity, marker)

    def _marker(self, key: Key, identity: Identity) -> tuple[Marker | None, str]:
        """Return the file's marker, and why the file must wait because of it ("" when it need not)."""
        path = self._folder(key.profile) / (key.name + MARKER_SUFFIX)
        try:
            marker = read_marker(path, identity.uid)
        except StrangersError:  # else it would keep the owner's own one out
            remove_entry(path)
            return None, ""
        except FileNotFoundError:
            missing = f"it waits for its marker {printable(path.name)} ([spool] require_marker is set)"
            return None, missing if self._require_marker else ""
        except (OSError, ValueError):
            return None, f"its marker {printable(path.name)} cannot be read: write it anew, or remove it"
        if marker.size is not None and marker.size != identity.size:
            return None, f"its marker says {marker.size} bytes, {identity.size} are there: send it again"
        return marker, ""


class StrangersError(ObcdError, OSError):
    """A marker was laid there by somebody who may not speak for the drop."""


def read_marker(path: Path, owner: int) -> Marker:
    """Read a drop's marker; it counts if it is the drop's owner's, root's or the daemon's.

    Anybody may write into a shared inbox: a stranger's marker would have a file taken that is still being written.

    Raises:
        StrangersError: If it is somebody else's.
        OSError: If it cannot be read.
        ValueError: If it is none.
    """
    if path.lstat().st_uid not in (owner, 0, os.geteuid()):
        raise StrangersError(errno.EPERM, os.strerror(errno.EPERM), str(path))
    return Marker.parse(read_small(path, (owner, 0, os.geteuid())))


def remove_entry(path: Path) -> None:
    """Remove what lies there, if it can be: a file, a link or an empty folder."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            path.rmdir()
        else:
            path.unlink()


def read_small(path: Path, owners: Collection[int] = ()) -> bytes:
    """Read a small regular file without following a link or waiting on a FIFO.

    Args:
        owners: Whose it may be; anybody's where there are none.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no small regular file, or is somebody else's.
    """
    with disk.open_regular(path, os.O_NOFOLLOW) as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_MARKER_BYTES:
            raise ValueError("not a small file")
        if owners and status.st_uid not in owners:  # swapped since it was looked at
            raise ValueError("somebody else's file")
        return file.read(MAX_MARKER_BYTES)


def _owner_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except OSError:  # gone
        return -1


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
