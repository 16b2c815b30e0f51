"""The submitter's side: put a file into the inbox so that it can only be seen complete.

The copy is written under a hidden name, the marker with its SHA-256 comes next, then the copy gets its final name.
Neither step replaces a file: if two users drop the same name at once, the one who made the marker goes on, the other
gets an error. The users of an inbox of mode 3730 cannot list it, so this module does not read it.

While the hidden name is there the inbox does not accept the file (it has two names), so a process that finds the hidden
name after a crash knows whether the drop was made: `is_named`. `exactly_once` builds on that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from obcd.core.request.rows import PLAIN, Reading
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import FormError, InputError
from obcd.spool.folders import acl, disk
from obcd.spool.inbox.markers import Marker
from obcd.spool.inbox.names import hidden
from obcd.spool.submit.line_check import LineCheck
from obcd.spool.submit.marking import is_named, marked, taken
from obcd.spool.submit.target import Target, find_target
from obcd.text import printable


class DropChangedError(InputError):
    """The source changed while it was copied: the program that writes it has not finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A drop in the inbox.

    Attributes:
        bad_lines: `[(line number, reason), …]`, at most the first ten, of lines that will become failures.
        unobeyed: `{key that looks like an option but is only echoed: the first line that has it}`.
    """

    name: str
    profile: str
    drop_id: str
    prompts: int
    bad: int
    bad_lines: tuple[tuple[int, str], ...]
    unobeyed: Mapping[str, int] = field(default_factory=dict)


class _Copied(NamedTuple):
    """The digest of a copy, and its bytes."""

    sha256: str
    size: int


class Steps(Protocol):
    """Records the steps of a drop, durably, before they are taken; see `exactly_once.DropRecord`."""

    def copying(self, drop_id: str) -> None:
        """Record that the drop of this id is not made yet; its hidden copy may be in the inbox."""

    def naming(self, sha256: str) -> None:
        """Record that the copy is complete and gets its name next."""

    def dropped(self) -> None:
        """Record that the copy has its name."""


class _Unwritten:
    """Records nothing: the caller must find out about a drop that a crash interrupted."""

    def copying(self, drop_id: str) -> None: ...

    def naming(self, sha256: str) -> None: ...

    def dropped(self) -> None: ...


UNWRITTEN: Steps = _Unwritten()


def submit(
    inbox: Path,
    source: Path,
    profile: str = "",
    name: str = "",
    max_line_bytes: int = LINE_BYTES,
    *,
    reading: Reading = PLAIN,
    parent: str = "",
) -> Submitted:
    """Drop one file.

    Args:
        name: Its name in the inbox; the name of the source if empty.
        parent: The job whose failed lines the file holds; "" if it is not a retry.

    Raises:
        InputError: If the file is missing, holds no prompt, or cannot be put into the inbox; nothing was dropped then.
    """
    target = find_target(inbox, profile, name or source.name, reading)
    if os.path.lexists(target.path):
        raise taken(target.path)
    with open_source(source) as reader:
        return drop(reader, str(source), replace(target, parent=parent), max_line_bytes)


def drop(reader: IO[bytes], label: str, target: Target, max_line_bytes: int, steps: Steps = UNWRITTEN) -> Submitted:
    """Drop the content of an open file or pipe; it is read once, to its end.

    Args:
        label: Its name for people.

    Raises:
        InputError: If it holds no prompt, or cannot be put into the inbox; nothing was dropped then.
    """
    if os.path.lexists(target.path):
        raise taken(target.path)
    label = printable(label)
    check = LineCheck(target, max_line_bytes)
    drop_id = secrets.token_hex(8)
    temporary = hidden(target.path, drop_id)
    try:
        steps.copying(drop_id)
        try:
            copied = _copy(reader, temporary, label, check if target.is_checked else None)
            steps.naming(copied.sha256)
            with marked(target.path, _marker(target, copied, check, drop_id)):
                _put(temporary, target.path)
        except BaseException:
            _give_up(temporary, drop_id, steps)
            raise
        try:
            with contextlib.suppress(InputError):  # recorded already: after `naming`, a copy with its name is dropped
                steps.dropped()
        finally:  # a Ctrl-C now must not leave the hidden name: the inbox waits until it is removed
            disk.remove(temporary)
    except OSError as error:
        raise InputError(_os_sentence(error, target.path)) from None
    return Submitted(
        name=target.path.name,
        profile=target.profile,
        drop_id=drop_id,
        prompts=check.prompts,
        bad=check.bad,
        bad_lines=check.bad_lines,
        unobeyed=check.unobeyed,
    )


def _give_up(temporary: Path, drop_id: str, steps: Steps) -> None:
    """Undo a drop that did not get its final name; one that got it, just before a Ctrl-C, stays."""
    if not is_named(temporary):
        steps.copying(drop_id)  # first: without the hidden name, `naming` would mean that it was dropped
    disk.remove(temporary)


def _marker(target: Target, copied: _Copied, check: LineCheck, drop_id: str) -> Marker:
    return Marker(
        sha256=copied.sha256,
        size=copied.size,
        lines=check.lines if target.is_checked else None,
        drop_id=drop_id,
        parent=target.parent,
        submitter=target.submitter,
        trial=target.trial,
        by=target.by,
    )


def _copy(reader: IO[bytes], temporary: Path, label: str, check: LineCheck | None) -> _Copied:
    """Write the hidden copy, complete and durable; on any failure it is removed."""
    disk.before("copy", str(temporary))
    try:  # includes `open`: a SIGTERM may come at its return; no other file has the name, which is random
        with open(temporary, "xb", opener=_open_closed) as writer:
            before = os.fstat(reader.fileno())
            copied = _copy_checked(reader, writer, label, check, before)
            _check_unchanged(before, os.fstat(reader.fileno()), label)
            if check is not None and check.prompts == 0:
                raise InputError(f"{label}{check.why_nothing()}")
            writer.flush()
            _open_to_daemon(writer.fileno(), temporary)
            disk.sync_file(writer.fileno(), temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return copied


def _open_closed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _open_to_daemon(descriptor: int, temporary: Path) -> None:
    """Let the daemon read this user's copy: it owns the inbox, or is in the inbox's group.

    In an inbox of another user an ACL names only the daemon: otherwise every user who may drop there could read the
    file by its name, although they cannot list the inbox.
    """
    status, inbox = os.fstat(descriptor), temporary.parent.stat()
    if inbox.st_uid != status.st_uid:
        with contextlib.suppress(OSError):  # the filesystem has no ACLs
            acl.open_file(descriptor, inbox.st_uid)
            return
    os.fchmod(descriptor, 0o640 if status.st_gid == inbox.st_gid else 0o644)


def _check_unchanged(before: os.stat_result, after: os.stat_result, label: str) -> None:
    if stat.S_ISREG(before.st_mode) and (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DropChangedError(f"{label} changed while it was read: it is still being written; nothing was dropped")


def _copy_checked(
    reader: IO[bytes], writer: IO[bytes], label: str, check: LineCheck | None, before: os.stat_result
) -> _Copied:
    """Copy a file unchanged, and check its lines."""
    digest, size = hashlib.sha256(), 0
    whole = before.st_size if stat.S_ISREG(before.st_mode) else math.inf

    def blocks() -> Iterator[bytes]:
        nonlocal size
        while block := reader.read(disk.BLOCK):
            digest.update(block)
            writer.write(block)
            size += len(block)
            if size > whole:  # it grows: if it grows as fast as it is read this would never end
                _check_unchanged(before, os.fstat(reader.fileno()), label)
            yield block

    if check is None:
        for _ in blocks():
            pass
    else:
        try:
            check.check(blocks(), writer)
        except FormError as error:
            said = str(error)
            said = said.removeprefix("it") if check.form.is_plain and said.startswith("it is ") else f": {said}"
            raise InputError(f"{label}{said}; nothing was dropped") from None
    return _Copied(digest.hexdigest(), size)


def open_source(source: Path, flags: int = 0) -> IO[bytes]:
    """Open a file to drop it; a FIFO does not block.

    Args:
        flags: Further flags of open(2), e.g. `os.O_NOFOLLOW`.

    Raises:
        InputError: If it cannot be read, or is not a regular file.
    """
    label = printable(str(source))
    try:
        return disk.open_regular(source, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise InputError(f"{label} is a symbolic link: links are not followed, put the file itself there") from None
        raise InputError(f"cannot read {label}: {error.strerror}") from None
    except ValueError:
        raise InputError(
            f"{label} is not a regular file: write the prompts to a file first; nothing was dropped"
        ) from None


def _put(temporary: Path, target: Path) -> None:
    """Give the copy its final name; an existing file of that name is never replaced.

    While both names are there the inbox waits (a second hard link); it checks again when the hidden one is removed.

    Raises:
        InputError: If the name is taken.
    """
    disk.before("link", str(target))
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise taken(target) from None
    except OSError:  # a filesystem without hard links; the marker still keeps other submitters out
        if os.path.lexists(target):
            raise taken(target) from None
        temporary.rename(target)
        return
    _sync_name(temporary)


def _sync_name(temporary: Path) -> None:
    """Make a new link durable by syncing the file (an inbox of mode 3730 cannot be opened and synced itself)."""
    # The copy has its name: this must not be undone now.
    with contextlib.suppress(OSError), disk.opened(temporary, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        disk.sync_file(descriptor, temporary)


def _os_sentence(error: OSError, target: Path) -> str:
    """Return the sentence about a failure of the disk; only where no disk is full may the place be the wrong one."""
    advice = (
        "delete something there, then submit again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else "is a coordinator set up there (--root)?"
    )
    return f"cannot drop into {printable(str(target.parent))}: {error.strerror}; {advice}"
