"""The files of the inbox as values: where one lies, what identifies its content, and why an entry is not a drop."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from obcd.core.tables.file_format import form_of
from obcd.core.tables.foreign_files import advice_by_name
from obcd.spool.inbox.markers import Marker
from obcd.spool.inbox.names import MAX_NAME_BYTES


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


def why_unfit(entry: os.DirEntry[str]) -> str:
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
