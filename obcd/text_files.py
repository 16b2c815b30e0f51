"""Reading and writing of text files: written whole or not at all, and read line by line with a bound.

A file under its final name is always complete: temporary file in the same folder, fsync, rename, fsync of the
folder (without the two fsyncs a power cut leaves 0 bytes under the final name: measured on ext4 and XFS).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.text import printable


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that gives no result: a damaged file or line, an answer without JSON, a failed request.

    `place` names file and line, ready to print (`notes/responses.jsonl line 7`); `reason` never quotes an answer.
    """

    place: str
    reason: str


@contextmanager
def output_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Yield a temporary binary file that gets the name `path` when the block ends without an error.

    A symbolic link is kept and its target replaced. On any error the temporary file is removed and `path` is as it was.

    Raises:
        InputError: The file cannot be written, is not a regular file, or exists and `overwrite` is False.
    """
    final = Path(os.path.realpath(path))
    _refuse_unusable(final, path, overwrite=overwrite)
    temporary = final.parent / f".obcd-{secrets.token_hex(6)}.tmp"  # short: a 255-byte name has no room for a suffix
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            disk.sync_file(file.fileno(), final)
        _put_in_place(temporary, final, overwrite=overwrite)
        disk.sync_folder(final.parent)
    except FileExistsError as error:
        raise InputError(_exists_text(path)) from error
    except BrokenPipeError:  # of standard output or error, not of this file
        raise
    except OSError as error:
        raise InputError(f"cannot write {printable(str(path))}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextmanager
def output_stream(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Yield a temporary file that is copied to `stream` (e.g. standard output) when the block ends without an error."""
    with tempfile.TemporaryFile() as file:
        yield cast("BinaryIO", file)
        file.seek(0)
        shutil.copyfileobj(file, stream)
        stream.flush()


def bounded_lines(stream: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Yield lines, split at LF only; of a longer line only the first `max_bytes` + 1 bytes."""
    while data := stream.readline(max_bytes + 1):
        rest = data
        while len(rest) > max_bytes and not rest.endswith(b"\n"):
            rest = stream.readline(max_bytes + 1)
        yield data


def _refuse_unusable(final: Path, path: Path, *, overwrite: bool) -> None:
    """Raise before any work is done for a file that could not be written at its end."""
    name = printable(str(path))
    if not final.parent.is_dir():
        raise InputError(f"cannot write {name}: its folder does not exist, make it first")
    if not os.path.lexists(final):
        return
    if not final.is_file():  # a rename over /dev/null, as root, would break the machine
        raise InputError(f"cannot write {name}: it is not a regular file; name another, or - for standard output")
    if not overwrite:
        raise InputError(_exists_text(path))


def _exists_text(path: Path) -> str:
    return f"{printable(str(path))} exists and is not touched: name another file, or give --force to replace it"


def _put_in_place(temporary: Path, final: Path, *, overwrite: bool) -> None:
    """Give the finished file its name; without `overwrite` by a link, which unlike a rename never replaces a file."""
    if overwrite:
        os.replace(temporary, final)
        return
    try:
        os.link(temporary, final)
    except OSError:  # taken meanwhile; or no hard links here (FAT, some network shares) and the name is checked again
        if os.path.lexists(final):
            raise FileExistsError(final) from None
        os.replace(temporary, final)


def shown_path(path: Path) -> str:
    """Return a path relative to the working folder if it is inside it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
