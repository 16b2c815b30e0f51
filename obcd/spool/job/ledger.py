"""The ledger: a job's append-only file of results, one line each, `crc32hex SP json LF`.

    8c7b2f01 {"ordinal":0,"line":1,"outcome":"response","attempts":1,…}

There is one writer. A torn or zero-filled tail after a crash is normal: reading stops at the first record with a wrong
CRC or LF, and the rest is cut off before anything is appended. The first valid record of an ordinal counts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from obcd.core.answer.counts import Counts
from obcd.core.answer.outcomes import Result
from obcd.core.answer.record_codec import decode, decode_counts, ordinal_of
from obcd.core.answer.tally import Tally
from obcd.errors import RecordError
from obcd.spool.folders import disk

logger = logging.getLogger(__name__)

NAME = "ledger.log"
#: Length of `crc32hex SP`.
_HEAD = 9


def frame(record: bytes) -> bytes:
    """Return one line of the ledger; `record` is JSON without LF."""
    return b"%08x %b\n" % (zlib.crc32(record), record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The state of a ledger.

    Attributes:
        done: One byte per ordinal, 1 if there is a result.
        size: Bytes up to the end of the last valid record.
        counts: Sums over the results.
        weights: `{model: digest of the weights that answered}`, if the job is bound to one digest.
        failures: `{class: number of failures of it}`.
        records: Number of valid records.
        uncounted: The results whose records the coordinator's counters do not have yet.
    """

    done: bytes
    size: int
    counts: Counts = field(default_factory=Counts)
    weights: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    records: int = 0
    uncounted: Tally = field(default_factory=Tally)


def read_valid(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset after the record, its JSON) for each valid record, up to the first damaged one."""
    try:
        file = open(path, "rb", buffering=2**18)  # noqa: SIM115 - closed below; opening alone may fail
    except FileNotFoundError:
        return
    with file:
        offset = 0
        for line in file:
            offset += len(line)
            record = line[_HEAD:-1]
            if line[-1:] != b"\n" or line[:_HEAD] != b"%08x " % zlib.crc32(record):
                return
            yield offset, record


def replay(path: Path, requests: int, times: Sequence[int] | None = None, counted: int | None = None) -> Replay:
    """Read a ledger and cut off its damaged tail, durably; a missing ledger is an empty one.

    Args:
        times: By ordinal, how many requests have its result (see `request_key`); None: it alone has.
        counted: Number of records that the coordinator's counters have; None: all.
    """
    done, size, counts = bytearray(requests), 0, Counts()
    weights: dict[str, str] = {}
    failures: dict[str, int] = {}
    records, uncounted = 0, Tally()
    for size, raw in read_valid(path):  # noqa: B007 - size is what remains after the loop
        records += 1
        ordinal, result, of_weights, kind = decode_counts(raw)
        if 0 <= ordinal < requests and not done[ordinal]:
            done[ordinal] = 1
            added = result.times(times[ordinal] if times is not None else 1)
            counts.add(added)
            if kind:
                failures[kind] = failures.get(kind, 0) + added.failures
            if counted is not None and records > counted:
                uncounted.add(added, kind)
            if of_weights is not None:
                weights.setdefault(*of_weights)
    _cut(path, size)
    return Replay(
        done=bytes(done),
        size=size,
        counts=counts,
        weights=weights,
        failures=failures,
        records=records,
        uncounted=uncounted,
    )


def index_results(path: Path, requests: int) -> array[int]:
    """Return, per ordinal, the offset of its record in the ledger plus one; 0 if there is none."""
    places, start = array("Q", bytes(8 * requests)), 0
    for end, record in read_valid(path):
        ordinal = ordinal_of(record)
        if 0 <= ordinal < requests and not places[ordinal]:
            places[ordinal] = start + 1
        start = end
    return places


def read_result(descriptor: int, place: int) -> Result:
    """Read the result at a place that `index_results` gave.

    Raises:
        RecordError: If there is no valid record.
    """
    chunk, size = b"", 4096
    while not chunk.endswith(b"\n"):
        chunk = os.pread(descriptor, size, place - 1)
        end = chunk.find(b"\n")
        if end >= 0:
            chunk = chunk[: end + 1]
        elif len(chunk) < size:
            raise RecordError("a record of a ledger has no end")
        size *= 4
    return decode(chunk[_HEAD:])


class LedgerWriter:
    """Appends to one job's ledger. One thread.

    Args:
        folder: The job's folder.
        size: Length of the valid part (`Replay.size`); the rest is a failed write, and is cut off.

    Raises:
        OSError: If the file cannot be opened or cut.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._path = folder / NAME
        disk.before("open", str(self._path))
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        #: Length of the durable part.
        self.size = size
        self._written = 0
        try:
            if os.fstat(self._descriptor).st_size != size:
                os.ftruncate(self._descriptor, size)
        except OSError:
            os.close(self._descriptor)
            raise

    def append(self, records: list[bytes]) -> None:
        """Write records and make them durable.

        Raises:
            OSError: As `write` and `sync`.
        """
        self.write(records)
        self.sync()

    def write(self, records: list[bytes]) -> None:
        """Append records: they survive this process now, but not yet a crash of the machine.

        Raises:
            OSError: No record counts that was not synced. Close this writer, and give these records to a new one of the
                same `size`: after a failed sync the kernel may have dropped the data that this descriptor wrote.
        """
        block = b"".join(map(frame, records))
        disk.before("append", str(self._path))
        view = memoryview(block)
        while view:  # a full disk gives a short write first, then ENOSPC
            view = view[os.write(self._descriptor, view) :]
        self._written += len(block)

    def sync(self) -> None:
        """Make the written records durable; they count only when this returns.

        Raises:
            OSError: As `write`.
        """
        disk.before("fdatasync", str(self._path))
        os.fdatasync(self._descriptor)
        self.size, self._written = self.size + self._written, 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _cut(path: Path, size: int) -> None:
    with contextlib.suppress(FileNotFoundError), disk.opened(path, os.O_WRONLY) as descriptor:
        torn = os.fstat(descriptor).st_size - size
        if torn:
            extra = {"action": "ledger_cut", "job": path.parent.name}
            logger.warning("cut %d damaged bytes off the end of %s", torn, path, extra=extra)
            disk.before("ftruncate", str(path))
            os.ftruncate(descriptor, size)
            disk.sync_file(descriptor, path)
