"""Scan the hosts folder once: every record that counts, and why each other one does not.

A file server may hang, and a scan then hangs with it: scan in another process or thread than one that must go on.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from obcd.hosts.record import NAME, SUFFIX, HostRecord
from obcd.hosts.trust import UntrustedError, parse_trusted, read_trusted

#: Most entries of the folder that are looked at, and most of them that are read in one scan: everybody who may write
#: into the folder can fill it.
MOST_ENTRIES, MOST_RECORDS = 20_000, 2_000


@dataclass(frozen=True, slots=True)
class OwnedRecord:
    """A record that counts, and the user who owns it."""

    record: HostRecord
    uid: int


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """Why a record does not count, and the user who owns it; -1 if that is not known."""

    why: str
    uid: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a scan found.

    Attributes:
        place: Device and inode of the folder: another file system that is mounted there, or none, shows.
        mode: The permissions of the folder.
        found, refused: By the records' names.
        same: The names of records that are as in the scan before and not in `found`.
        is_cut: Whether there were more files than are looked at, or more records than are read.
    """

    place: tuple[int, int] = (0, 0)
    mode: int = 0
    found: Mapping[str, OwnedRecord] = field(default_factory=dict)
    refused: Mapping[str, RefusedRecord] = field(default_factory=dict)
    same: frozenset[str] = frozenset()
    is_cut: bool = False

    def since(self, earlier: Mapping[str, OwnedRecord]) -> Scan:
        """Return what has changed since an earlier scan found these records."""
        same = {name for name, item in self.found.items() if earlier.get(name) is item}
        return replace(
            self, found={name: item for name, item in self.found.items() if name not in same}, same=frozenset(same)
        )

    def completed(self, earlier: Mapping[str, OwnedRecord]) -> Scan:
        """Return the whole scan again, the inverse of `since`."""
        return replace(self, found={**{name: earlier[name] for name in self.same}, **self.found}, same=frozenset())


class Scanner:
    """Scans one folder again and again; a record whose bytes have not changed is not parsed again.

    Args:
        trusted: The user ids whose records count.
    """

    def __init__(self, folder: Path, trusted: frozenset[int]) -> None:
        self._folder = folder
        self._trusted = trusted
        #: {name: (the bytes of its file, its owner, what they mean)} of the records that count
        self._known: dict[str, tuple[bytes, int, OwnedRecord]] = {}

    def scan(self) -> Scan:
        """Scan once.

        Raises:
            OSError: If the folder cannot be read.
        """
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            with os.scandir(descriptor) as entries:
                looked_at = list(islice(entries, MOST_ENTRIES + 1))
            names = [entry.name.removesuffix(SUFFIX) for entry in looked_at[:MOST_ENTRIES] if _is_named(entry)]
            seen = {name: item for name in self._chosen(names) if (item := self._read(descriptor, name))}
        finally:
            os.close(descriptor)
        self._known = {name: item for name, item in self._known.items() if name in seen}  # in the order of arrival
        return Scan(
            place=(status.st_dev, status.st_ino),
            mode=stat.S_IMODE(status.st_mode),
            found={name: item for name, item in seen.items() if isinstance(item, OwnedRecord)},
            refused={name: item for name, item in seen.items() if isinstance(item, RefusedRecord)},
            is_cut=len(looked_at) > MOST_ENTRIES or len(names) > MOST_RECORDS,
        )

    def _chosen(self, names: Iterable[str]) -> list[str]:
        """Return which records are read: those that counted before, and as many others as fit, each time others."""
        others = [name for name in names if name not in self._known]
        if len(self._known) + len(others) > MOST_RECORDS:
            random.shuffle(others)
        return [*self._known, *others][:MOST_RECORDS]

    def _read(self, folder: int, name: str) -> OwnedRecord | RefusedRecord | None:
        """Return what a record means; None if it was removed or replaced meanwhile: the next scan has it again.

        A record that counted before and cannot be read shows that the file server fails. Any other is refused:
        everybody who may write into the folder can make a file that fails, e.g. by a lease or a dead mount of FUSE.

        Raises:
            OSError: If the file server fails.
        """
        try:
            raw, uid = read_trusted(folder, name + SUFFIX, self._trusted)
        except FileNotFoundError:
            return None
        except UntrustedError as error:
            return RefusedRecord(str(error), error.uid)
        except OSError as error:
            if name in self._known:
                raise
            return RefusedRecord(f"it cannot be read: {error.strerror}")
        known = self._known.get(name)
        if known is not None and known[:2] == (raw, uid):
            return known[2]
        try:
            item = OwnedRecord(parse_trusted(raw, name, uid), uid)
        except UntrustedError as error:
            return RefusedRecord(str(error), uid)
        self._known[name] = raw, uid, item
        return item


def scan_within(seconds: float, folder: Path, trusted: frozenset[int]) -> Scan:
    """Scan a folder once, in a thread that is abandoned if the file server hangs.

    Raises:
        TimeoutError: When the time is over.
        OSError: If the folder cannot be read.
    """
    found: list[Scan] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            found.append(Scanner(folder, trusted).scan())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="hosts folder", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not found:
        raise TimeoutError(errno.ETIMEDOUT, f"it does not answer within {seconds:.0f} s", str(folder))
    return found[0]


def _is_named(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(SUFFIX) and NAME.fullmatch(entry.name.removesuffix(SUFFIX)) is not None
