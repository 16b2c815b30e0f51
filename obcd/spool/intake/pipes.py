"""Keep what comes through a pipe as a file: a pipe is read once, and its job must be able to continue after a crash.

    root/read/<digest>/stdin.jsonl       until its job is published

The folder has the digest of the content, so that the same content through a pipe again is the same file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from codecs import BOM_UTF8
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO

from obcd.core.tables.file_format import CSV, PARQUET, SUFFIX, TSV, form_of
from obcd.core.tables.parquet_rows import MAGIC
from obcd.core.tables.unpacking import PACKINGS
from obcd.spool.folders import disk
from obcd.spool.folders.disk_space import find_shortage, read_space
from obcd.spool.folders.layout import Layout

FOLDER = "read"
#: Names that mean another file in each process.
_PER_PROCESS = ("/dev/stdin", "/dev/fd/", "/proc/")
#: The beginning of the name of a file that is not complete, and the digits of the digest in a folder's name.
_PARTIAL, _DIGITS = ".partial-", 16
#: {first bytes: the ending}
_BEGINNINGS = {packing.magic: f"{SUFFIX}.{word}" for word, packing in PACKINGS.items()} | {MAGIC: f".{PARQUET}"}
#: Bytes in which the header of a table is looked for.
_HEAD_BYTES = 2**16
#: Bytes between two checks of the free space.
_ROOM_BYTES = 2**26


def is_pipe(path: Path) -> bool:
    """Return whether a path can be read only once: a FIFO, a terminal, `/dev/stdin`, `<(…)`.

    Raises:
        OSError: If there is nothing of that name.
    """
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or os.path.abspath(path).startswith(_PER_PROCESS)


def name_of(path: Path) -> str:
    """Return the name of a pipe for its job: `stdin`, `pipe` for `/dev/fd/63`, or the name of a FIFO."""
    return "pipe" if os.path.abspath(path).startswith(_PER_PROCESS[1:]) else path.name


def keep(layout: Layout, stream: IO[bytes], name: str, columns: Container[str], min_free_bytes: int | None) -> Path:
    """Read a pipe to its end and keep what comes.

    Args:
        layout: The folders.
        stream: The pipe.
        name: The name of the file; without an ending it gets one by its content, as a pipe's name says nothing.
        columns: The columns of which a table needs one.
        min_free_bytes: `[spool] min_free_bytes`.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be read or kept; nothing is left of it then. With the errno of a full disk if it does not
            fit beside what must stay free.
    """
    folder = layout.root / FOLDER
    disk.make_folder(folder)
    partial = folder / f"{_PARTIAL}{os.getpid()}"
    try:
        digest, size = hashlib.sha256(), 0
        with open(partial, "wb") as file:
            while block := stream.read(disk.BLOCK):
                if size // _ROOM_BYTES != (size + len(block)) // _ROOM_BYTES:
                    _check_room(folder, min_free_bytes)
                size += len(block)
                digest.update(block)
                file.write(block)
            file.flush()
            disk.sync_file(file.fileno(), partial)
        if form_of(name) is None:
            name += _ending(partial, columns)
        kept = folder / digest.hexdigest()[:_DIGITS] / name
        disk.make_folder(kept.parent)
        disk.rename(partial, kept)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    return kept


def _ending(file: Path, columns: Container[str]) -> str:
    """Return the ending for the name of a file without one: of a packed file, Parquet, a table, or JSON lines."""
    with open(file, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
    for beginning, ending in _BEGINNINGS.items():
        if head.startswith(beginning):
            return ending
    header = head.removeprefix(BOM_UTF8).split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    for delimiter, kind in ((",", CSV), (";", CSV), ("\t", TSV)):
        if any(name.strip('"') in columns for name in header.split(delimiter)):
            return f".{kind}"
    return SUFFIX


def kept_files(layout: Layout) -> Iterator[Path]:
    """Yield the files that are kept."""
    folder = layout.root / FOLDER
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                yield from sorted(entry.iterdir())


def is_kept(layout: Layout, path: Path) -> bool:
    """Return whether a file was kept by `keep`."""
    return path.parent.parent == layout.root / FOLDER


def forget(layout: Layout, needed: Container[str]) -> None:
    """Delete all kept files but these, and the rest of interrupted runs."""
    for path in kept_files(layout):
        if str(path) not in needed:
            disk.remove_tree(path.parent)
    for path in (layout.root / FOLDER).glob(f"{_PARTIAL}*"):
        disk.remove(path)


def _check_room(folder: Path, min_free_bytes: int | None) -> None:
    why = find_shortage(folder, read_space(folder), min_free_bytes, is_short=False, owed=_ROOM_BYTES)
    if why:
        raise OSError(errno.ENOSPC, why, str(folder))
