"""A power cut, modelled in one process: what may be left of a folder when the machine stops at any moment.

`PowerDisk` looks at a folder before and after every system call that changes it, and keeps two things apart: what the
system shows, and what is durable. `cuts` holds every moment at which that changed; `remains` yields the folders that a
machine could find at its next start; `restore` writes one of them to an empty place.

What is assumed of the filesystem, and what not:

- **Durable** is a file's content when its fsync or fdatasync has returned, and a folder's entries when the *folder's*
  fsync has. Nothing else is: not a new file's name when the file was synced, not a parent folder with its child. (ext4
  and XFS give more: any fsync commits all earlier entries with it. obcd must not rest on that.)
- **Entries** that are not durable may be there or not, each by itself, in any combination: ALICE (Pillai et al., OSDI
  2014) found filesystems that reorder them; only changes of one and the same name keep their order. Making, linking,
  removing and renaming are atomic; a rename between two folders is there in both or in neither, and syncing either
  folder makes it durable (journaled filesystems; measured for ext4 and XFS: the file is in exactly one of both places).
- **Contents** that are not durable may be the old ones, the new ones, or between: half of what is new, or zeros where
  it should stand (measured on ext4: zero-filled tails of an appended file).
- A sync that returned keeps its word; it is called a success here without asking the real disk, which makes this quick.
- Not modelled: modes and times (they are not content), damage to what was durable, sectors torn within durable data.

A folder is known by its inode. Every inode seen is held open, since ext4 gives a freed number to the next file.
"""

from __future__ import annotations

import itertools
import os
import random
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from obcd.spool.folders import disk

T = TypeVar("T")
#: {(folder's inode, name): inode}
Entries = dict[tuple[int, str], int]
#: Calls after which the folder is looked at.
CALLS = ("open", "write", "ftruncate", "truncate", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir")


@dataclass(frozen=True)
class Change:
    """One atomic change of entries: `{(folder's inode, name): inode now, None where the entry went}`."""

    entries: tuple[tuple[tuple[int, str], int | None], ...]

    def touches(self, folder: int) -> bool:
        return any(place[0] == folder for place, _ in self.entries)

    def follows(self, earlier: Change) -> bool:
        """Tell whether it cannot be durable without an earlier one, of the same name."""
        places = {place for place, _ in earlier.entries}
        return any(place in places for place, _ in self.entries)


def apply(changes: Sequence[Change], chosen: set[int], entries: Entries) -> set[int]:
    """Make the chosen changes, and those that they follow, in their order; return the numbers of all that were made."""
    made = set(chosen)
    for number in reversed(range(len(changes))):
        if number in made:
            made |= {other for other in range(number) if changes[number].follows(changes[other])}
    for number in sorted(made):
        for place, inode in changes[number].entries:
            entries.pop(place, None)
            if inode is not None:
                entries[place] = inode
    return made


@dataclass(frozen=True)
class Tree:
    """What one restart finds: `{path below the root: content, None for a folder}`."""

    files: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Cut(Generic[T]):
    """One moment: what is durable, what is only shown, and what the story had been told by then.

    Attributes:
        base: Durable entries.
        pending: Changes that may be lost, in their order.
        contents: `{inode: contents that may be found}`, the durable one first and the newest second.
    """

    root: int
    base: Entries
    pending: tuple[Change, ...]
    contents: dict[int, tuple[bytes, ...]]
    folders: frozenset[int]
    note: T

    def remains(self, limit: int, dice: random.Random) -> Iterator[Tree]:
        """Yield what may be left, each once: all where that is at most `limit`, else the extremes and a sample."""
        seen: set[Tree] = set()
        for kept, contents in itertools.islice(self._choices(limit, dice), limit):
            tree = self.tree(kept, contents)
            if tree not in seen:
                seen.add(tree)
                yield tree

    def worst(self) -> Tree:
        """Return what is left when all is lost that can be."""
        return self.tree(0, {})

    def tree(self, kept: int, contents: dict[int, int]) -> Tree:
        """Build one outcome.

        Args:
            kept: A bit for each pending change that came to be.
            contents: `{inode: which of its contents}`; the durable one where it says nothing.
        """
        entries = dict(self.base)
        apply(self.pending, {number for number in range(len(self.pending)) if kept >> number & 1}, entries)
        below: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), inode in entries.items():
            below.setdefault(folder, []).append((name, inode))
        return Tree(tuple(self._walk(self.root, "", below, contents)))

    def _walk(
        self, folder: int, path: str, below: dict[int, list[tuple[str, int]]], contents: dict[int, int]
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in sorted(below.get(folder, [])):
            if inode in self.folders:
                yield path + name, None
                yield from self._walk(inode, f"{path}{name}/", below, contents)
            else:
                yield path + name, self.contents[inode][contents.get(inode, 0)]

    def _choices(self, limit: int, dice: random.Random) -> Iterator[tuple[int, dict[int, int]]]:
        count, dirty = len(self.pending), [inode for inode, kinds in self.contents.items() if len(kinds) > 1]
        everything = (1 << count) - 1
        whole = 2**count
        for inode in dirty:
            whole *= len(self.contents[inode])
        if whole <= limit:
            for kept in range(2**count):
                for chosen in itertools.product(*(range(len(self.contents[inode])) for inode in dirty)):
                    yield kept, dict(zip(dirty, chosen, strict=True))
            return
        newest = dict.fromkeys(dirty, 1)
        yield 0, {}
        yield everything, newest
        yield everything, {}  # the names came through and the contents did not
        yield 0, newest
        for number in reversed(range(count)):  # each change alone came through, each alone was lost
            yield 1 << number, newest
            yield everything & ~(1 << number), newest
            yield (1 << number) - 1, newest  # a journal in order, cut here
        while True:
            picks = {inode: dice.randrange(len(self.contents[inode])) for inode in dirty}
            yield dice.getrandbits(count) if count else 0, picks


def restore(tree: Tree, root: Path) -> None:
    """Write what was left to an empty folder."""
    root.mkdir(mode=0o700)
    for path, content in tree.files:
        if content is None:
            (root / path).mkdir(mode=0o700)
        else:
            (root / path).write_bytes(content)


@dataclass
class PowerDisk(Generic[T]):
    """Watches one folder while a story runs in it.

    Args:
        root: What is in it now is durable.
        note: Called at each moment; what it returns is kept with the cut.
    """

    root: Path
    note: Callable[[], T]
    cuts: list[Cut[T]] = field(default_factory=list)
    _base: Entries = field(default_factory=dict)
    _shown: Entries = field(default_factory=dict)
    _pending: list[Change] = field(default_factory=list)
    _durable: dict[int, bytes] = field(default_factory=dict)
    _content: dict[int, bytes] = field(default_factory=dict)
    _folders: set[int] = field(default_factory=set)
    _held: dict[int, int] = field(default_factory=dict)
    _real: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch until the block ends."""
        self._real = {name: getattr(os, name) for name in (*CALLS, "fsync", "fdatasync")}
        self._begin()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(disk, "before", lambda operation, path: self._look())
                for name in CALLS:
                    patch.setattr(os, name, self._watched(self._real[name]))
                patch.setattr(os, "fsync", self._sync)
                patch.setattr(os, "fdatasync", self._sync)
                yield
            self._look()
        finally:
            for descriptor in self._held.values():
                os.close(descriptor)
            self._held.clear()

    def _begin(self) -> None:
        self._shown = self._base = self._scan()
        self._durable = dict(self._content)
        self._cut()

    def _watched(self, call: Any) -> Any:
        def watched(*arguments: Any, **options: Any) -> Any:
            try:
                return call(*arguments, **options)
            finally:
                self._look()

        return watched

    def _sync(self, descriptor: int) -> None:
        self._look()
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            touched = {number for number, change in enumerate(self._pending) if change.touches(status.st_ino)}
            self._base = dict(self._base)
            made = apply(self._pending, touched, self._base)
            self._pending = [change for number, change in enumerate(self._pending) if number not in made]
        elif status.st_ino in self._content:
            self._durable[status.st_ino] = self._content[status.st_ino]
        else:  # synced before it is moved in
            self._durable[status.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        self._cut()

    def _look(self) -> None:
        before, contents = self._shown, dict(self._content)
        now = self._scan()
        if now == before and contents == self._content:
            return
        gone = {place: inode for place, inode in before.items() if now.get(place) != inode}
        come = {place: inode for place, inode in now.items() if before.get(place) != inode}
        for place, inode in come.items():
            source = next((old for old, was in gone.items() if was == inode), None)
            moved: tuple[tuple[tuple[int, str], int | None], ...] = ()
            if source is not None:
                del gone[source]
                moved = ((source, None),) if source not in come else ()
            self._pending.append(Change((*moved, (place, inode))))
        replaced = set(come)
        self._pending += [Change(((place, None),)) for place in gone if place not in replaced]
        self._shown = now
        self._cut()

    def _scan(self) -> Entries:
        """Return all entries, and take note of every file's content."""
        entries: Entries = {}
        self._scan_folder(str(self.root), self._hold(str(self.root)), entries)
        return entries

    def _scan_folder(self, path: str, folder: int, entries: Entries) -> None:
        self._folders.add(folder)
        for entry in sorted(os.listdir(path)):
            inode = self._hold(f"{path}/{entry}")
            entries[folder, entry] = inode
            if stat.S_ISDIR(os.fstat(self._held[inode]).st_mode):
                self._scan_folder(f"{path}/{entry}", inode, entries)
            else:
                self._content[inode] = os.pread(self._held[inode], 2**20, 0)
                self._durable.setdefault(inode, b"")

    def _hold(self, path: str) -> int:
        inode = os.lstat(path).st_ino
        if inode not in self._held:
            self._held[inode] = self._real["open"](path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return inode

    def _cut(self) -> None:
        contents = {inode: _kinds(self._durable[inode], now) for inode, now in self._content.items()}
        self.cuts.append(
            Cut(self._held_root(), self._base, tuple(self._pending), contents, frozenset(self._folders), self.note())
        )

    def _held_root(self) -> int:
        return os.lstat(self.root).st_ino


def _kinds(durable: bytes, now: bytes) -> tuple[bytes, ...]:
    """Return the contents that a file may have: the durable one, the newest, and what lies between."""
    if durable == now:
        return (now,)
    kinds = [durable, now]
    if now.startswith(durable):
        middle = (len(durable) + len(now)) // 2
        kinds += [now[:middle], durable + b"\0" * (len(now) - len(durable))]
    return tuple(dict.fromkeys(kinds))
