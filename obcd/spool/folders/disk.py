"""Change the spool durably or not at all.

Only one sequence survives a power cut on ext4 and XFS: write, fsync the file, rename, fsync the folder. These helpers
are that sequence. `before` is a seam: tests stop the process just before the n-th call.

Some modules make their calls themselves. Three call `before` first, because their changes count as well: the ledger,
which appends and cuts; `retention`, which works by directory descriptors; `dropping`, which links. The others do not,
because a crash at any point costs nothing: files in a hidden folder or under a temporary name (`reading`, `control`)
count only after a rename; status folders, the cache, the ballast, locks, `status.json` and `counters.json` are made
again; and removed files (control files, markers) are empty or dealt with already.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from io import DEFAULT_BUFFER_SIZE, BufferedReader, FileIO
from pathlib import Path
from typing import IO, Any

#: Bytes per read.
BLOCK = 2**20


def _nothing(operation: str, path: str) -> None:
    """Do nothing; tests replace it by a crash."""


#: Called with the operation's name and its path before each state-changing call.
before: Callable[[str, str], None] = _nothing


@contextlib.contextmanager
def opened(path: Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    """Yield a descriptor that is closed at the end and in every program that starts meanwhile; `flags` of open(2)."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable."""
    before("fsync_folder", str(path))
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def sync_file(descriptor: int, path: Path | str) -> None:
    """Make the data that was written through a descriptor durable."""
    before("fsync", str(path))
    os.fsync(descriptor)


def sync_filesystem(path: Path) -> None:
    """Make everything durable that was written to a filesystem: for many small files, each of whose fsyncs waits.

    Raises:
        OSError: If data could not be written (syncfs(2), Linux 5.8); where there is no syncfs, sync(2) reports nothing.
    """
    before("syncfs", str(path))
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        if syncfs(descriptor):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder, durably; an existing one is not an error."""
    before("mkdir", str(path))
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        return
    sync_folder(path.parent)


def make_folders(path: Path) -> None:
    """Make a folder and the missing ones above it, durably, with the permissions that the umask leaves.

    A process that was killed before its sync may have made an existing one, so all folders above are synced again.
    """
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            make_folder(folder, 0o777)
        else:
            with contextlib.suppress(OSError):  # a folder of another user that this process may not read
                sync_folder(folder)


def rename(source: Path, target: Path) -> None:
    """Rename within one filesystem and make both folders durable; replaces a file, never a folder that is not empty."""
    before("rename", str(target))
    source.rename(target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def remove(path: Path) -> None:
    """Remove a file; a missing one is not an error."""
    before("unlink", str(path))
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a folder with its content, by descriptor (never following links); a missing one is not an error."""
    before("rmtree", str(path))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o640) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name complete and durable, or not at all.

    Yields:
        A buffered binary file, open for writing beside the final name.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    before("write", str(path))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb", buffering=2**18) as file:
            yield file
            file.flush()
            sync_file(file.fileno(), path)
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, document: object, mode: int = 0o640) -> None:
    """Write a JSON document completely and durably, readable by people."""
    with whole_file(path, mode) as file:
        file.write(json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def show_json(path: Path, document: object, mode: int = 0o640) -> None:
    """Write a JSON document completely but not durably: for data that is shown now and worthless after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    temporary.replace(path)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path, flags: int = 0, buffer_bytes: int = DEFAULT_BUFFER_SIZE) -> BufferedReader:
    """Open a regular file for reading; a FIFO or device in its place does not block.

    Args:
        flags: Further flags of open(2), e.g. `os.O_NOFOLLOW`.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("not a regular file")
    return BufferedReader(FileIO(descriptor), buffer_bytes)


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        OSError, ValueError: If it is missing, not a regular file, or not JSON.
    """
    with open_regular(path) as file:
        content = file.read()
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
