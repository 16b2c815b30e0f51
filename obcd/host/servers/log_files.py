"""Read the log files that supervisord writes and rotates for each program: the last lines, and new ones."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from obcd.errors import InputError
from obcd.host.servers.runtime import find_logs
from obcd.text import printable

#: Seconds between two checks for new lines.
LOOK_SECONDS = 0.25
#: Most bytes that are read from the end of a file; of a longer line only the end is shown.
TAIL_BYTES = 8 * 2**20
#: Supervisor's rotation: `gpu0.log`, `gpu0.log.1` (older) …
ROTATED = 3
#: Bytes at the end of a log in which a reason is looked for; most characters of a reason.
WORDS_BYTES, MAX_WORDS = 4096, 400
TIME = re.compile(r"\btime=\S+ |^\d{4}[-/]\d\d[-/]\d\d[ T]\S+ ")
NAME = re.compile(r"[A-Za-z0-9._-]+")


def find_log(runtime: Path, program: str) -> Path:
    """Return the log of a program of a host that runs or has run.

    Raises:
        InputError: If there is no log.
    """
    if not NAME.fullmatch(program):
        raise InputError(f"there is no program {printable(program)!r}")
    folders = [runtime / "logs", find_logs(runtime)]
    for folder in folders:
        path = folder / f"{program}.log"
        try:
            if path.is_file():
                return path
        except PermissionError:
            break
    raise InputError(
        f"{program} has no log that you may read in {folders[0]} or {folders[1]}: check its name (obcd host status), "
        "and run this as the user who runs obcd host, or with sudo"
    )


def last_words(runtime: Path, program: str) -> str:
    """Return the last line of a program's log if it may say why the program ended, else "".

    obcd's remarks and Ollama's lines per request do not say why. Times are removed: with them the same reason would
    differ at every start.
    """
    try:
        with find_log(runtime, program).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - WORDS_BYTES))
            lines = [_shown(line) for line in file.read().splitlines()]
    except (InputError, OSError):
        return ""
    said = [line for line in lines if line.strip() and " INFO " not in line and "[GIN]" not in line]
    if not said or said[-1] != next(line for line in reversed(lines) if line.strip()):
        return ""
    return TIME.sub("", said[-1]).removeprefix("obcd: ").strip()[:MAX_WORDS]


def last_lines(path: Path, count: int, until: int | None = None) -> list[str]:
    """Return the last lines of a log, including older files of the rotation, ready for a terminal.

    Args:
        until: Only lines before this byte; None means all.
    """
    lines = _tail(path, until)
    for number in range(1, ROTATED + 1):
        older = path.with_name(f"{path.name}.{number}")
        if len(lines) >= count or not older.is_file():
            break
        lines = _tail(older, None) + lines
    return [_shown(line) for line in lines[max(0, len(lines) - count) :]]


def _tail(path: Path, until: int | None) -> list[bytes]:
    with path.open("rb") as file:
        size = file.seek(0, 2) if until is None else until
        start = file.seek(max(0, size - TAIL_BYTES))
        return file.read(size - start).splitlines()


def _shown(line: bytes) -> str:
    """Return a line that is safe for a terminal: names of models and prompts in it can hold any characters."""
    text = line.rstrip(b"\r\n").decode("utf-8", "replace").expandtabs()
    return "\\".join(map(printable, text.split("\\")))


def follow(path: Path, position: int) -> Iterator[str]:
    """Yield lines as they are added, without end and across rotations.

    Args:
        position: How many bytes of the file have been shown.
    """
    while True:
        with path.open("rb") as file:
            file.seek(position)
            yield from _follow_file(path, file)
        position = 0


def _follow_file(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Yield lines added to one file, until another file has its name and it is read to its end."""
    rest = b""
    while True:
        is_last = not _is_current(path, file)  # checked before the read, so that all lines written until then are read
        data = file.read(TAIL_BYTES)
        *lines, rest = (rest + data).split(b"\n")
        yield from map(_shown, lines)
        if is_last and not data:
            return
        if not data:
            time.sleep(LOOK_SECONDS)


def _is_current(path: Path, file: IO[bytes]) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:  # between the two renames of a rotation
        return True
    return status.st_ino == os.fstat(file.fileno()).st_ino and status.st_size >= file.tell()
