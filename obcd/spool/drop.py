"""The submitter's side: put a file into the inbox so that it can only be seen whole.

The copy is written under a hidden name, the marker with its SHA-256 comes next, then the copy gets its name. Neither
replaces anything: of two who drop the same name at once, the one who made the marker goes on, the other is told. An
inbox of mode 3730 cannot be listed by its users, so nothing here reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from obcd.clock import wall
from obcd.core.lines import parse_line
from obcd.errors import InputError, LineError
from obcd.logs import printable
from obcd.spool.inbox import MARKER_SUFFIX, MAX_NAME_BYTES, ORPHAN_SECONDS, SUFFIX
from obcd.spool.intake import MAGIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A drop that lies in the inbox.

    Attributes:
        bad_lines: `[(line number, reason), …]`, at most the first ten, of lines that will become failures.
    """

    name: str
    profile: str
    drop_id: str
    prompts: int
    bad: int
    bad_lines: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class _Content:
    sha256: str = ""
    size: int = 0
    lines: int = 0
    prompts: int = 0
    bad: int = 0
    bad_lines: tuple[tuple[int, str], ...] = ()


def submit(inbox: Path, source: Path, profile: str = "", name: str = "", max_line_bytes: int = 2**20) -> Submitted:
    """Drop one file.

    Args:
        name: What to call it in the inbox; the source's own name when empty.

    Raises:
        InputError: If the file is not there, holds no prompt, or the inbox does not take it; nothing was dropped then.
    """
    target = (inbox / profile if profile else inbox) / _drop_name(name or source.name)
    if profile and not target.parent.is_dir():
        raise InputError(f"no folder {target.parent}: '{profile}' is no profile of the configuration")
    if os.path.lexists(target):
        raise _taken(target)
    content = _Content()
    drop_id = secrets.token_hex(8)
    temporary = target.with_name(f".{drop_id}.tmp")
    try:
        with _open_regular(source) as reader, open(temporary, "xb") as writer:
            _copy_checked(reader, writer, content, max_line_bytes)
            if content.prompts == 0:
                raise InputError(_no_prompts(source, content))
            writer.flush()
            os.fsync(writer.fileno())
        temporary.chmod(0o640 if temporary.stat().st_gid == target.parent.stat().st_gid else 0o644)
        with _marked(target, content, drop_id):
            _put(temporary, target)
    except OSError as error:
        raise InputError(_os_sentence(error, source, target)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return Submitted(
        name=target.name,
        profile=profile,
        drop_id=drop_id,
        prompts=content.prompts,
        bad=content.bad,
        bad_lines=content.bad_lines,
    )


def _drop_name(name: str) -> str:
    if not name.endswith(SUFFIX):
        name += SUFFIX
    if not name.isprintable() or name.startswith(".") or "/" in name or len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise InputError(f"'{printable(name)}' cannot be a job's name: give a plain one with --name")
    return name


def _copy_checked(reader: IO[bytes], writer: IO[bytes], content: _Content, max_line_bytes: int) -> None:
    digest = hashlib.sha256()
    while raw := reader.readline(max_line_bytes + 2):
        _check_magic(raw, content)
        digest.update(raw)
        writer.write(raw)
        content.size += len(raw)
        content.lines += 1
        if not raw.endswith(b"\n") and len(raw) > max_line_bytes:
            raise InputError(
                f"line {content.lines} is longer than {max_line_bytes} bytes ([spool] max_line_bytes): "
                "nothing was dropped"
            )
        if raw.strip():
            _check_line(raw, content)
    content.sha256 = digest.hexdigest()


def _check_magic(raw: bytes, content: _Content) -> None:
    if content.size == 0:
        for magic, what in MAGIC.items():
            if raw.startswith(magic):
                raise InputError(f"it is {what}: nothing was dropped")


def _check_line(raw: bytes, content: _Content) -> None:
    line = raw.rstrip(b"\n").removeprefix(b"\xef\xbb\xbf" if content.lines == 1 else b"")
    try:
        parse_line(line, content.lines)
    except LineError as error:
        content.bad += 1
        content.bad_lines = (*content.bad_lines, (content.lines, str(error)))[:10]
    else:
        content.prompts += 1


def _no_prompts(source: Path, content: _Content) -> str:
    if not content.bad_lines:
        return f"{source}: there is no prompt in it, so nothing was dropped"
    line, why = content.bad_lines[0]
    return f"{source}: not one of its {content.bad} lines is a prompt, so nothing was dropped; line {line}: {why}"


def _taken(target: Path) -> InputError:
    return InputError(f"{target.name} lies in the inbox already and is not taken yet: wait, or give --name")


def _open_regular(source: Path) -> IO[bytes]:
    """Open a file to read it through; a FIFO does not keep us waiting.

    Raises:
        InputError: If it is not a regular file.
    """
    descriptor = os.open(str(source), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{source} is not a regular file: write the prompts into one first; nothing was dropped")
    return os.fdopen(descriptor, "rb")


def _put(temporary: Path, target: Path) -> None:
    """Give the copy its name; what has that name already is never replaced.

    While both names are there the inbox waits (a second hard link); it looks again when the hidden one goes.

    Raises:
        InputError: If the name is taken.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # a filesystem without hard links; the marker still keeps other submitters out
        if os.path.lexists(target):
            raise _taken(target) from None
        temporary.rename(target)
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _marked(target: Path, content: _Content, drop_id: str) -> Iterator[None]:
    """Lay the marker beside a file that comes next; it goes again if the file does not come.

    Made with O_EXCL, it is also the lock on the name.

    Raises:
        InputError: If somebody else's lies there.
    """
    marker = target.with_name(target.name + MARKER_SUFFIX)
    document = {"sha256": content.sha256, "bytes": content.size, "lines": content.lines, "drop_id": drop_id}
    with os.fdopen(_make_marker(marker, target), "wb") as file:
        try:
            file.write(json.dumps(document).encode() + b"\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            yield
        except BaseException:
            if _is_same(marker, file.fileno()):
                marker.unlink(missing_ok=True)
            raise


def _make_marker(marker: Path, target: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
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
        raise InputError(
            f"{marker.name} lies in the inbox already, its file is on its way: wait, or give --name"
        ) from None


def _remove_orphan(marker: Path, target: Path) -> None:
    """Remove a marker that has lain without its file for long; its lock keeps a second remover from a newer one."""
    with contextlib.suppress(OSError):  # not ours to read or to remove, or locked: it stays, and the name is taken
        descriptor = os.open(marker, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_old = wall() - os.fstat(descriptor).st_mtime > ORPHAN_SECONDS
            if is_old and _is_same(marker, descriptor) and not os.path.lexists(target):
                marker.unlink()
        finally:
            os.close(descriptor)


def _is_same(path: Path, descriptor: int) -> bool:
    """Tell whether a path still names the file that is open."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _os_sentence(error: OSError, source: Path, target: Path) -> str:
    if error.filename == str(source):
        return f"cannot read {source}: {error.strerror}"
    return f"cannot drop into {target.parent}: {error.strerror}; is a coordinator set up there (--root)?"
