"""The submitter's side: put a file into the inbox so that it can only be seen whole.

The copy is written under a hidden name, the marker with its SHA-256 comes next, then the rename. An inbox of mode 3730
cannot be listed by its users, so nothing here reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from obcd.core.lines import parse_line
from obcd.errors import InputError, LineError
from obcd.logs import printable
from obcd.spool.inbox import MARKER_SUFFIX, MAX_NAME_BYTES, SUFFIX
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
        raise InputError(f"{target.name} lies in the inbox already and is not taken yet: wait, or give --name")
    content = _Content()
    drop_id = secrets.token_hex(8)
    temporary = target.with_name(f".{drop_id}.tmp")
    try:
        with open(source, "rb") as reader, open(temporary, "xb") as writer:
            _copy_checked(reader, writer, content, max_line_bytes)
            if content.prompts == 0:
                raise InputError(_no_prompts(source, content))
            writer.flush()
            os.fsync(writer.fileno())
        temporary.chmod(0o640 if temporary.stat().st_gid == target.parent.stat().st_gid else 0o644)
        marker = _write_marker(target, content, drop_id)
        try:
            temporary.rename(target)
        except OSError:
            marker.unlink(missing_ok=True)
            raise
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


def _write_marker(target: Path, content: _Content, drop_id: str) -> Path:
    marker = target.with_name(target.name + MARKER_SUFFIX)
    document = {"sha256": content.sha256, "bytes": content.size, "lines": content.lines, "drop_id": drop_id}
    temporary = target.with_name(f".{drop_id}.done.tmp")
    temporary.write_text(json.dumps(document) + "\n", "utf-8")
    temporary.chmod(0o644)
    temporary.replace(marker)
    return marker


def _os_sentence(error: OSError, source: Path, target: Path) -> str:
    if error.filename == str(source):
        return f"cannot read {source}: {error.strerror}"
    return f"cannot drop into {target.parent}: {error.strerror}; is a coordinator set up there (--root)?"
