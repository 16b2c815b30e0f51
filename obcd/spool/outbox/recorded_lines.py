"""Read the results of a job while it runs, as lines of its outputs, in the order in which they are complete.

    jobs/<id>/ledger.log ─► RecordedLines ─► the clerk: NAME.partial/responses.jsonl (see `preview`)
                                       └───► obcd print JOB, obcd status JOB, of the daemon's user

It reads only what the coordinator has counted as recorded, so it shows no result that a power cut could take back.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from obcd.core.answer.outcomes import Response, Result
from obcd.core.answer.record_codec import decode, ordinal_of
from obcd.core.request.lines import parse_line
from obcd.core.request.records import Request
from obcd.core.user_limits import LINE_BYTES
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, OpenJob, Place, read_firsts, read_header
from obcd.spool.outbox.output_lines import id_of_failure, result_of_line


class RecordedLine(NamedTuple):
    """A line of the input that has its result.

    Attributes:
        request: The line's request, for a response; None for a failure.
        own: The user's id of the line.
    """

    result: Result
    request: Request | None
    own: object


class RecordedLines:
    """The lines of one job that have their results. One thread.

    Its files stay open: it reads the job to the end even if the job is published meanwhile. Memory: nine bytes for each
    request, or 17 if equal requests are sent once (`dedupe`).

    Attributes:
        header: The job's header.
        done: The requests whose results were read so far; equal requests that share one count each.

    Raises:
        OSError, ValueError, KeyError, TypeError: If the job's folder is gone or damaged.
        InputError: If a newer obcd wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ledger.NAME
        self._files = OpenJob(str(folder))
        self.header: JobHeader = read_header(folder)
        self._firsts = read_firsts(folder, self.header)
        self._equal = _equal_to(self._firsts)
        #: By ordinal, the place of its record as in `ledger.index_results`.
        self._places = array("Q", bytes(8 * self.header.requests))
        self._ledger: IO[bytes] | None = None
        self._offset = 0
        self.done = 0
        self._open()

    def __del__(self) -> None:
        file: IO[bytes] | None = getattr(self, "_ledger", None)  # the folder may have been gone
        if file is not None:
            file.close()

    @property
    def is_complete(self) -> bool:
        """Whether every request's result was read."""
        return self.done >= self.header.requests

    @property
    def is_removed(self) -> bool:
        """Whether the ledger was removed: the job is published, or about to be, and nothing is added any more."""
        return self._ledger is not None and os.fstat(self._ledger.fileno()).st_nlink == 0

    def read(self, done: int | None = None) -> Iterator[RecordedLine]:
        """Yield the lines that are complete and were not yielded before; a torn tail stays for the next call.

        Args:
            done: The number of requests whose results count as recorded: no more of them are read. None: all.

        Raises:
            OSError, struct.error, RecordError, LineError: If the folder is damaged.
        """
        self._open()
        if self._ledger is None:
            return
        for end, record in ledger.records_after(self._ledger, self._offset):
            start, ordinal = self._offset, ordinal_of(record)
            if not self._counts(ordinal):
                self._offset = end
                continue
            equal = self._equal.get(ordinal, ())
            if done is not None and self.done + 1 + len(equal) > done:
                return
            self._offset = end
            self._places[ordinal] = start + 1
            self.done += 1 + len(equal)
            seen = set[int]()  # equal requests may be answers of one line
            for each in (ordinal, *equal):
                first, places = self._files.read_group(each)
                if first not in seen:
                    seen.add(first)
                    yield from self._line(first, places, record if each == ordinal else None)

    def _counts(self, ordinal: int) -> bool:
        """Return whether a record counts: the first one of a request that was sent."""
        if not 0 <= ordinal < self.header.requests or self._places[ordinal]:
            return False
        return self._firsts is None or self._firsts[ordinal] == ordinal

    def _open(self) -> None:
        """Open the ledger; the first result of a job makes it."""
        if self._ledger is None and self._path.exists():
            self._ledger = open(self._path, "rb", buffering=2**18)  # noqa: SIM115 - closed with this object

    def _line(self, first: int, places: list[Place], record: bytes | None) -> Iterator[RecordedLine]:
        """Yield a line if all its answers are there; `record` is that of its only answer, if it has one."""
        numbers = range(first, first + len(places))
        origins = [number if self._firsts is None else self._firsts[number] for number in numbers]
        if not all(self._places[origin] for origin in origins):
            return
        if record is not None and len(places) == 1:
            results = [decode(record)]
        else:
            whose = zip(numbers, origins, places, strict=True)
            results = [self._result(number, origin, place) for number, origin, place in whose]
        place = places[-1]
        result = result_of_line(results, place)
        if isinstance(result, Response):
            request = parse_line(self._files.read_line(place), place.line, self.header.settings.reading)
            yield RecordedLine(result, request, request.id)
        else:
            raw = self._files.read_line(place) if place.length <= LINE_BYTES else None
            yield RecordedLine(result, None, id_of_failure(raw, place, self.header))

    def _result(self, number: int, origin: int, place: Place) -> Result:
        assert self._ledger is not None
        result = ledger.read_result(self._ledger.fileno(), self._places[origin])
        return result if origin == number else result.repeated(number, place.line)


def _equal_to(firsts: array[int] | None) -> dict[int, list[int]]:
    """Return `{request that is sent: the later ones that are equal to it}`."""
    found: dict[int, list[int]] = {}
    for ordinal, first in enumerate(firsts or ()):
        if first != ordinal:
            found.setdefault(first, []).append(ordinal)
    return found
