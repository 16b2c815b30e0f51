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
import fcntl
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Protocol

from obcd.clock import wall
from obcd.core.request.json_objects import is_blank_line
from obcd.core.request.keys.ignored_keys import note_nameless, note_unobeyed
from obcd.core.request.lines import parse_line
from obcd.core.request.rows import PLAIN, Reading
from obcd.core.tables.csv_cells import sheet_of
from obcd.core.tables.csv_lines import split_lines
from obcd.core.tables.csv_reader import Row
from obcd.core.tables.file_format import JSON, JSONL, PARQUET, Form, form_of, why_not_taken
from obcd.core.tables.foreign_files import OTHER_ENCODING
from obcd.core.tables.json_shape import JsonShape, open_json, why_not_lines
from obcd.core.tables.parquet_rows import ParquetSheet
from obcd.core.tables.unpacking import unfold
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import FormError, InputError, LineError
from obcd.spool.folders import acl, disk
from obcd.spool.inbox.markers import ORPHAN_SECONDS, Marker, read_small
from obcd.spool.inbox.names import MAX_NAME_BYTES, hidden, marker_of
from obcd.text import printable

#: Bytes of an unpacked file that are checked; the coordinator has its own limit ([spool] max_expanded_bytes).
MOST_UNPACKED_BYTES = 2**40


class TakenError(InputError):
    """The name is in the inbox already: somebody dropped it, and the coordinator has not accepted it yet."""


class ComingError(InputError):
    """The marker of that name is there without its file: somebody is dropping it now, or was interrupted."""


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


@dataclass(slots=True)
class _Content:
    label: str
    parent: str = ""
    trial: str = ""
    by: str = ""
    sha256: str = ""
    size: int = 0
    lines: int = 0
    prompts: int = 0
    bad: int = 0
    bad_lines: tuple[tuple[int, str], ...] = ()
    unobeyed: dict[str, int] = field(default_factory=dict)
    form: Form = field(default_factory=Form)
    reading: Reading = PLAIN
    accepts: Set[str] = frozenset()
    submitter: str = ""
    is_checked: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a drop.

    Attributes:
        path: The path in the inbox.
        profile: The profile of that folder; "" for the inbox itself.
        reading: The settings with which its lines are read there.
        parent: The job that it retries, "" for none.
        accepts: The kinds of files that are accepted there beside JSONL.
        trial: `keep` or `remove` if a few lines are tried: what becomes of the published folder. "" otherwise.
        submitter: The user for whom it is dropped by the API, "" for the user of this process.
        is_checked: Whether its lines are checked before it is dropped; the coordinator checks them in any case.
        by: When its lines should be answered, as ISO 8601 with an offset; "" for no deadline.
    """

    path: Path
    profile: str = ""
    reading: Reading = PLAIN
    parent: str = ""
    trial: str = ""
    accepts: Set[str] = frozenset()
    submitter: str = ""
    is_checked: bool = True
    by: str = ""


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
        raise _taken(target.path)
    with open_source(source) as reader:
        return drop(reader, str(source), replace(target, parent=parent), max_line_bytes)


def find_target(
    inbox: Path, profile: str, name: str, reading: Reading = PLAIN, accepts: Set[str] = frozenset()
) -> Target:
    """Return the target of a drop of this name.

    Args:
        reading: The settings with which its lines are read there.
        accepts: The kinds of files that are accepted there beside JSONL.

    Raises:
        InputError: If the name is not plain, its kind is not accepted, or the inbox has no such profile.
    """
    folder = inbox / profile if profile else inbox
    if profile and not folder.is_dir():
        raise InputError(
            f"no folder {printable(str(folder))}: '{printable(profile)}' is not a profile of the running daemon: "
            "add [profiles.…] to its configuration, then obcd reload"
        )
    form = form_of(name)
    if form is not None and form.kind == JSON and JSON not in accepts:
        name += f".{JSONL}"  # it is taken if it holds lines
    path = folder / drop_name(name)
    if why := why_not_taken(path.name, accepts):
        raise InputError(f"{printable(path.name)}: {why}")
    return Target(path, profile, reading, accepts=accepts)


def drop(reader: IO[bytes], label: str, target: Target, max_line_bytes: int, steps: Steps = UNWRITTEN) -> Submitted:
    """Drop the content of an open file or pipe; it is read once, to its end.

    Args:
        label: Its name for people.

    Raises:
        InputError: If it holds no prompt, or cannot be put into the inbox; nothing was dropped then.
    """
    if os.path.lexists(target.path):
        raise _taken(target.path)
    form = form_of(target.path.name) or Form()
    content = _Content(
        printable(label),
        form=form,
        reading=target.reading,
        parent=target.parent,
        trial=target.trial,
        accepts=target.accepts,
        submitter=target.submitter,
        is_checked=target.is_checked,
        by=target.by,
    )
    drop_id = secrets.token_hex(8)
    temporary = hidden(target.path, drop_id)
    try:
        steps.copying(drop_id)
        try:
            _copy(reader, temporary, content, max_line_bytes)
            steps.naming(content.sha256)
            with _marked(target.path, content, drop_id):
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
        prompts=content.prompts,
        bad=content.bad,
        bad_lines=content.bad_lines,
        unobeyed=content.unobeyed,
    )


def is_named(temporary: Path) -> bool:
    """Return whether a complete copy got its final name: it has both names, or the hidden one is removed."""
    try:
        return temporary.lstat().st_nlink > 1
    except FileNotFoundError:
        return True


def clear_rests(path: Path, drop_id: str) -> None:
    """Remove the rest of a drop that was interrupted before it was made: its hidden copy and its marker."""
    marker = marker_of(path)
    with contextlib.suppress(OSError, ValueError):  # missing, or another user's
        raw = read_small(marker)
        # It is this user's and empty: the crash came before its content was written.
        is_ours = Marker.parse(raw).drop_id == drop_id or (not raw and marker.lstat().st_uid == os.geteuid())
        if is_ours and not os.path.lexists(path):
            disk.remove(marker)
    disk.remove(hidden(path, drop_id))


def _give_up(temporary: Path, drop_id: str, steps: Steps) -> None:
    """Undo a drop that did not get its final name; one that got it, just before a Ctrl-C, stays."""
    if not is_named(temporary):
        steps.copying(drop_id)  # first: without the hidden name, `naming` would mean that it was dropped
    disk.remove(temporary)


def drop_name(name: str) -> str:
    """Return the name in the inbox of a file that the user calls `name`.

    Raises:
        InputError: If it is not a valid name.
    """
    if form_of(name) is None:
        name += f".{JSONL}"
    if not name.isprintable() or name.startswith(".") or "/" in name or len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise InputError(f"'{printable(name)}' cannot be a job's name: give a plain one with --name")
    return name


def _copy(reader: IO[bytes], temporary: Path, content: _Content, max_line_bytes: int) -> None:
    """Write the hidden copy, complete and durable; on any failure it is removed."""
    disk.before("copy", str(temporary))
    try:  # includes `open`: a SIGTERM may come at its return; no other file has the name, which is random
        with open(temporary, "xb", opener=_open_closed) as writer:
            before = os.fstat(reader.fileno())
            _copy_checked(reader, writer, content, max_line_bytes, before)
            _check_unchanged(before, os.fstat(reader.fileno()), content.label)
            if content.is_checked and content.prompts == 0:
                raise InputError(_no_prompts(content))
            writer.flush()
            _open_to_daemon(writer.fileno(), temporary)
            disk.sync_file(writer.fileno(), temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
    reader: IO[bytes], writer: IO[bytes], content: _Content, max_line_bytes: int, before: os.stat_result
) -> None:
    """Copy a file unchanged, and check its lines (after the conversion, if they are not its own)."""
    digest = hashlib.sha256()
    whole = before.st_size if stat.S_ISREG(before.st_mode) else math.inf

    def copied() -> Iterator[bytes]:
        while block := reader.read(disk.BLOCK):
            digest.update(block)
            writer.write(block)
            content.size += len(block)
            if content.size > whole:  # it grows: if it grows as fast as it is read this would never end
                _check_unchanged(before, os.fstat(reader.fileno()), content.label)
            yield block

    try:
        _check_content(copied(), Path(writer.name), writer, content, max_line_bytes)
    except FormError as error:
        said = str(error)
        said = said.removeprefix("it") if content.form.is_plain and said.startswith("it is ") else f": {said}"
        raise InputError(f"{content.label}{said}; nothing was dropped") from None
    content.sha256 = digest.hexdigest()


def _check_content(
    copied: Iterator[bytes], copy: Path, writer: IO[bytes], content: _Content, max_line_bytes: int
) -> None:
    """Check the lines of a file while it is copied; of Parquet, whose beginning is its end, the copy."""
    form, reading = content.form, content.reading
    if not content.is_checked:
        for _ in copied:
            pass
    elif form.is_json:
        found = open_json(copied, form, MOST_UNPACKED_BYTES, is_data=reading.template is not None)
        if found.shape is not JsonShape.LINES and JSON not in content.accepts:
            raise FormError(why_not_lines(found.shape, content.accepts))
        _check_lines(found.blocks, content, max_line_bytes)
    elif form.kind == PARQUET:
        for _ in copied:
            pass
        writer.flush()
        with open(copy, "rb") as file:
            _check_rows(ParquetSheet(reading).rows(file), content)
    else:
        sheet = sheet_of(form, reading, max_line_bytes)
        _check_rows(sheet.rows(unfold(copied, form, MOST_UNPACKED_BYTES)), content)
        note_nameless(content.unobeyed, sheet.nameless)
        if sheet.cut:
            raise FormError(sheet.cut)


def _check_lines(blocks: Iterable[bytes], content: _Content, max_line_bytes: int) -> None:
    for raw in split_lines(blocks, max_line_bytes):
        content.lines += 1
        if len(raw) > max_line_bytes + 1:
            raise FormError(f"line {content.lines} is longer than {max_line_bytes} bytes ([spool] max_line_bytes)")
        if not is_blank_line(raw):
            _check_line(raw, content)


def _check_rows(rows: Iterable[Row], content: _Content) -> None:
    for row in rows:
        content.lines += 1
        if row.fault:
            _note_bad(content, row.fault)
        else:
            _check_line(row.line, content)


def _check_line(raw: bytes, content: _Content) -> None:
    line = raw.rstrip(b"\n").removeprefix(b"\xef\xbb\xbf" if content.lines == 1 else b"")
    try:
        request = parse_line(line, content.lines, content.reading)
    except LineError as error:
        _note_bad(content, str(error))
    else:
        content.prompts += 1
        if content.reading.template is None:
            note_unobeyed(content.unobeyed, request)


def _note_bad(content: _Content, why: str) -> None:
    content.bad += 1
    content.bad_lines = (*content.bad_lines, (content.lines, why))[:10]


def _no_prompts(content: _Content) -> str:
    if not content.bad_lines:
        return f"{content.label}: there is no prompt in it, so nothing was dropped"
    line, why = content.bad_lines[0]
    if "not UTF-8" in why:
        return f"{content.label} is {OTHER_ENCODING}; nothing was dropped; line {line}: {why}"
    which = f"none of its {content.bad} lines is" if content.bad > 1 else "its only line is not"
    return f"{content.label}: {which} a valid prompt, so nothing was dropped; line {line}: {why}"


def _taken(target: Path) -> TakenError:
    return TakenError(f"{target.name} is in the inbox already and is not accepted yet: wait, or give --name")


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
        raise _taken(target) from None
    except OSError:  # a filesystem without hard links; the marker still keeps other submitters out
        if os.path.lexists(target):
            raise _taken(target) from None
        temporary.rename(target)
        return
    _sync_name(temporary)


def _sync_name(temporary: Path) -> None:
    """Make a new link durable by syncing the file (an inbox of mode 3730 cannot be opened and synced itself)."""
    # The copy has its name: this must not be undone now.
    with contextlib.suppress(OSError), disk.opened(temporary, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        disk.sync_file(descriptor, temporary)


@contextlib.contextmanager
def _marked(target: Path, content: _Content, drop_id: str) -> Iterator[None]:
    """Make the marker of a file that comes next; it is removed if the file does not come.

    It is made with O_EXCL, so it is also the lock on the name.

    Raises:
        InputError: If another submitter's marker is there.
    """
    marker = marker_of(target)
    document: dict[str, object] = {
        "sha256": content.sha256,
        "bytes": content.size,
        **({"lines": content.lines} if content.is_checked else {}),
        "drop_id": drop_id,
        **({"parent": content.parent} if content.parent else {}),
        **({"submitter": content.submitter} if content.submitter else {}),
        **({"trial": content.trial} if content.trial else {}),
        **({"by": content.by} if content.by else {}),
    }
    with os.fdopen(_make_marker(marker, target), "wb") as file:
        try:
            file.write(json.dumps(document).encode() + b"\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            yield
        except BaseException:
            if _is_same(marker, file.fileno()) and not is_named(hidden(target, drop_id)):
                marker.unlink(missing_ok=True)
            raise


def _make_marker(marker: Path, target: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    disk.before("marker", str(marker))
    try:
        return os.open(marker, flags, 0o644)
    except FileExistsError:
        pass
    _remove_orphan(marker, target)
    try:
        return os.open(marker, flags, 0o644)
    except FileExistsError:
        if os.path.lexists(target):
            raise _taken(target) from None
        raise ComingError(
            f"{marker.name} is in the inbox already, its file is on its way: wait, or give --name"
        ) from None


def _remove_orphan(marker: Path, target: Path) -> None:
    """Remove a marker whose file has been missing for long; its lock protects a newer one from a second process."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    # This user may not read or remove it, or it is locked: it stays, and the name is taken.
    with contextlib.suppress(OSError), disk.opened(marker, flags) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_old = wall() - os.fstat(descriptor).st_mtime > ORPHAN_SECONDS
        if is_old and _is_same(marker, descriptor) and not os.path.lexists(target):
            marker.unlink()


def _is_same(path: Path, descriptor: int) -> bool:
    """Return whether a path still names the file that is open."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _os_sentence(error: OSError, target: Path) -> str:
    """Return the sentence about a failure of the disk; only where no disk is full may the place be the wrong one."""
    advice = (
        "delete something there, then submit again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT)
        else "is a coordinator set up there (--root)?"
    )
    return f"cannot drop into {printable(str(target.parent))}: {error.strerror}; {advice}"
