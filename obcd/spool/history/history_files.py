"""The files of the history: `root/history/2026-11-22.jsonl`, one for each day in UTC; finished days are packed (`.gz`).

A line that a crash tore is skipped, and the next one begins on its own line. Nothing is synced: after a power cut the
last lines may be missing. Members of the daemon's group may read the files.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from obcd.clock import timestamp
from obcd.spool.folders import disk
from obcd.spool.history.history_line import CardColumns, EndpointColumns, HistoryLine, JobColumns

Columns = TypeVar("Columns", EndpointColumns, CardColumns, JobColumns)

#: The folder in the root.
FOLDER = "history"
#: Days that are kept, and their seconds.
KEEP_DAYS, DAY_SECONDS = 14, 86400.0
#: A file of the history: its day, and whether it is packed.
_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.jsonl(\.gz)?")
#: The beginning of a line, and of its columns.
_TIME, _COLUMNS = re.compile(rb'\{"time":(\d{1,12}(?:\.\d{1,6})?)'), b',"endpoints":{'
#: {type of a column: what a line of an earlier version has in it}; None for all other types
FILLINGS: Mapping[str, object] = {"tuple[str, ...]": "", "tuple[int, ...]": 0, "tuple[float, ...]": 0.0}
#: Where the search for a time in a file ends, and the part of a line that it reads.
SEARCH_BYTES, MAX_START_BYTES = 2**16, 64


def write_history(root: Path, line: HistoryLine) -> None:
    """Append a line; before the first one of a day, pack the days before and remove those that are too old.

    Raises:
        OSError: If the disk refuses; the line may be written in part then, and does not count.
    """
    folder = root / FOLDER
    folder.mkdir(mode=0o750, exist_ok=True)
    path = folder / f"{_day(line.time)}.jsonl"
    if not path.exists():
        _tidy(folder, line.time)
    _append(path, json.dumps(line.to_json(), separators=(",", ":")).encode() + b"\n")


def read_history(root: Path, since: float = 0.0, *, is_brief: bool = False) -> Iterator[HistoryLine]:
    """Yield the lines whose time is `since` or later, in the order in which they were written.

    Args:
        root: The root of the spool; without a history there are no lines.
        since: Unix seconds.
        is_brief: Whether endpoints, cards and jobs are left out: a tenth of the time, for totals.

    Raises:
        PermissionError: If this user may not read the history.
    """
    for day in sorted(set(_days(root / FOLDER))):
        if day < _day(max(0.0, since)):
            continue
        with _opened(root / FOLDER, day) as file:
            if isinstance(file, BufferedReader):
                _skip_before(file, since)
            for raw in _lines(file):
                line = _parse(raw, is_brief=is_brief)
                if line is not None and line.time >= since:
                    yield line


def _day(seconds: float) -> str:
    return timestamp(seconds)[:10]


def _days(folder: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):
            if found := _FILE.fullmatch(name):
                yield found[1]


def _append(path: Path, raw: bytes) -> None:
    with disk.opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o640) as descriptor:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a crash tore the last line
            raw = b"\n" + raw
        while raw:
            raw = raw[os.write(descriptor, raw) :]


def _tidy(folder: Path, now: float) -> None:
    """Pack the files of finished days and remove those of `KEEP_DAYS` ago."""
    today, oldest = _day(now), _day(max(0.0, now - KEEP_DAYS * DAY_SECONDS))
    for name in os.listdir(folder):
        found = _FILE.fullmatch(name)
        if found is None:
            continue
        if found[1] < oldest:
            disk.remove(folder / name)
        elif found[1] < today and not found[2]:
            with (
                open(folder / name, "rb") as file,
                disk.whole_file(folder / f"{name}.gz") as packed,
                gzip.open(packed, "wb") as target,
            ):
                shutil.copyfileobj(file, target)
            disk.remove(folder / name)


@contextlib.contextmanager
def _opened(folder: Path, day: str) -> Iterator[IO[bytes] | None]:
    """Open the file of a day, packed or not; None if it was removed meanwhile."""
    plain = folder / f"{day}.jsonl"
    for path, opens in ((plain, open), (folder / f"{day}.jsonl.gz", gzip.open)):
        with contextlib.suppress(FileNotFoundError), opens(path, "rb") as file:
            yield cast("IO[bytes]", file)
            return
    yield None


def _skip_before(file: BufferedReader, since: float) -> None:
    """Move to a place before the first line of a time: lines are in the order of their time, unless a clock was set."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > SEARCH_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        found = _TIME.match(file.readline(MAX_START_BYTES))
        if found is not None and float(found[1]) < since:
            low = middle
        else:
            high = middle
    file.seek(low)
    if low:
        file.readline()


def _lines(file: IO[bytes] | None) -> Iterator[bytes]:
    """Yield the lines of a file until its end, or until the place where it is damaged."""
    with contextlib.suppress(EOFError, gzip.BadGzipFile, zlib.error):
        yield from file or ()


def _parse(raw: bytes, *, is_brief: bool) -> HistoryLine | None:
    """Return a line; None for one that is torn, or of another version."""
    if is_brief:
        raw = _cut(raw)
    try:
        line = HistoryLine.from_json(json.loads(raw))
        if not is_brief:
            line = replace(
                line, endpoints=_filled(line.endpoints), cards=_filled(line.cards), active=_filled(line.active)
            )
    except (ValueError, AttributeError, RecursionError):
        return None
    return line if line.seconds >= 0 else None


def _cut(raw: bytes) -> bytes:
    """Return a whole line without its columns, which are last: they need not be parsed."""
    totals, columns, _ = raw.partition(_COLUMNS)
    return totals + b"}" if columns and raw.endswith(b"}\n") else raw


def _filled(columns: Columns) -> Columns:
    """Return columns of one length; those that a line of an earlier version does not have are filled.

    Raises:
        ValueError: If they have several lengths.
    """
    lengths = {name: len(getattr(columns, name)) for name in columns.__slots__}
    most = max(lengths.values())
    missing = [name for name, length in lengths.items() if length != most]
    if not missing:
        return columns
    if any(lengths[name] for name in missing):
        raise ValueError("columns of several lengths")
    kinds = {field.name: str(field.type) for field in fields(columns)}
    filled: dict[str, Any] = {name: (FILLINGS.get(kinds[name]),) * most for name in missing}
    return replace(columns, **filled)
