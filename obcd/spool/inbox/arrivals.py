"""Scan the inbox: find its files, decide which have settled, and say why the others wait.

The scan decides; file events only cause an earlier scan. This module reads only names, `fstat` and markers; the clerk
reads the drops, which are untrusted input (see `acceptance`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from obcd.clock import monotonic, wall
from obcd.core.tables.file_format import JSON, form_of, why_not_taken
from obcd.spool.folders import disk
from obcd.spool.inbox.drops import Drop, Identity, Key, Unfit, why_unfit
from obcd.spool.inbox.markers import DROP_ID, ORPHAN_SECONDS, Marker, OtherOwnerError, read_marker
from obcd.spool.inbox.names import (
    MARKER_SUFFIX,
    OWN_FOLDER,
    SYSTEM_FOLDERS,
    hidden,
    is_control,
    is_ignored,
    is_marker,
    is_temporary,
    marker_of,
)
from obcd.text import printable

#: Maximum number of entries that are searched for drops in a folder that belongs to no profile.
MOST_STRAY = 1000
#: Maximum number of control files of one owner that are reported.
MOST_CONTROLS = 200
#: Seconds that a file may go on changing before that is reported.
RESTLESS_SECONDS = 60.0


@dataclass(slots=True)
class _Watched:
    identity: Identity
    since: float  # when this identity was first seen
    first: float  # when the name was first seen
    looks: int = 1
    held: str = ""  # why the clerk did not accept it
    held_until: float = 0.0
    given: bool = False  # whether the clerk has it and has given no verdict yet


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
                if is_marker(entry.name) and not entry.name.startswith((".", "#")):
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
        return [key for key in self._watched if self.is_settling(key)]

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
            _remove_entry(path)

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
        unfit = why_unfit(entry) or why_not_taken(entry.name, self._accepts.get(key.profile, frozenset()))
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
            marker = read_marker(marker_of(path), status.st_uid)
            if not DROP_ID.fullmatch(marker.drop_id):
                return False
            twin = hidden(path, marker.drop_id)
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
        path = marker_of(self._folder(key.profile) / key.name)
        try:
            marker = read_marker(path, identity.uid)
        except OtherOwnerError:  # otherwise it would block the owner's own marker
            _remove_entry(path)
            return None, ""
        except FileNotFoundError:
            missing = f"it waits for its marker {printable(path.name)} ([spool] require_marker is set)"
            return None, missing if self._require_marker else ""
        except (OSError, ValueError):
            return None, f"its marker {printable(path.name)} cannot be read: write it again, or remove it"
        if marker.size is not None and marker.size != identity.size:
            return None, f"its marker says {marker.size} bytes, but the file has {identity.size}: send it again"
        return marker, ""


def _remove_entry(path: Path) -> None:
    """Remove a file, a link or an empty folder, if possible."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            path.rmdir()
        else:
            path.unlink()


def _owner_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_uid
    except OSError:  # gone
        return -1
