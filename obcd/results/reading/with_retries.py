"""Read a published job and its retries as one result.

    notes/               lines 1 2 3 4 5, answered 1 3 5, failed 2 4: its retry.jsonl
    notes.retry/         lines 1 2 of that file, answered 1, failed 2: its own retry.jsonl
    notes.retry.<id>/    line 1 of that, answered: it is line 4 of notes

A retry is a job in the same folder whose input is the retry.jsonl of the first job, byte for byte: its line k is the
k-th line that failed. A user who drops such a file by hand makes a retry too; a retry by `obcd retry` names its job. A
retry counts if it belongs to the same submitter, to root or to the daemon's user.
Reads only manifests of the same folder, each once.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from pathlib import Path

from obcd.errors import InputError
from obcd.results.reading.answers import Answer, FailedLine, read_answers, read_failures
from obcd.results.reading.sources import PublishedFolder, Source, find_sources
from obcd.spool.folders import disk
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.text import printable
from obcd.text_files import LeftOut

RETRY = "retry.jsonl"
#: Maximum size of a manifest; a job with a larger one is not a retry.
MAX_MANIFEST_BYTES = 4 * 2**20

#: Maximum depth of retries of retries: each keeps files open while the one before it is read.
MOST_RETRIES = 50

#: (line of the job's own prompt file, its result)
_Line = tuple[int, Answer | LeftOut]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The values of a manifest that are needed here; "" if one is missing. Times are RFC 3339 in UTC, so they sort."""

    path: Path
    id: str
    parent: str
    accepted_at: str
    published_at: str
    input: str  # SHA-256
    retry: str  # SHA-256 of retry.jsonl
    uid: int | None  # the submitter
    daemon: int  # the user who published it

    @property
    def rank(self) -> tuple[str, str]:
        """Return the sort key of jobs: the time of acceptance."""
        return self.accepted_at, self.id

    @property
    def is_void(self) -> bool:
        """Return whether it answered no line: then the input of its retry is its own input."""
        return bool(self.retry) and self.input == self.retry

    def is_retry_of(self, other: _Job) -> bool:
        """Return whether these are the failed lines of `other`, sent later; so no job is its own retry in the end."""
        if not other.retry or self.input != other.retry or self.rank <= other.rank:
            return False
        if self.uid not in (other.uid, 0, self.daemon):  # answers of another user do not count
            return False
        # If all lines failed, a job without a parent may be the same drop, earlier: then there was no retry.jsonl yet.
        return self.parent == other.id if self.parent else self.accepted_at >= other.published_at


@dataclass(frozen=True, slots=True)
class _Family:
    """The jobs of a folder: `{path: job}`, and `{path: its retries}`; each job is the retry of at most one."""

    jobs: dict[Path, _Job]
    retries: dict[Path, list[_Job]]

    @classmethod
    def of(cls, jobs: list[_Job]) -> _Family:
        # Of several jobs with the same failed lines (one drop that fails every night) it is the retry of the newest.
        jobs.sort(key=attrgetter("rank"))
        failed: dict[str, list[_Job]] = {}  # {SHA-256 of a retry.jsonl: jobs that have it, the oldest first}
        retries: dict[Path, list[_Job]] = {}
        for job in jobs:
            parent = next((other for other in reversed(failed.get(job.input, ())) if job.is_retry_of(other)), None)
            if parent is not None:
                retries.setdefault(parent.path, []).append(job)
            if job.retry:
                failed.setdefault(job.retry, []).append(job)
        return cls({job.path: job for job in jobs}, retries)

    def below(self, path: Path, *, is_all: bool) -> list[_Job]:
        """Return a job's retries and those of the void ones among them, whose lines are equal; or all below it."""
        found, left = [], [path]
        while left:
            for job in self.retries.get(left.pop(), ()):
                found.append(job)
                if is_all or job.is_void:
                    left.append(job.path)
        return sorted(found, key=attrgetter("rank"), reverse=True)


class Retries:
    """Finds the retries of published jobs; caches the manifests of each folder."""

    def __init__(self) -> None:
        self._families: dict[Path, _Family] = {}

    def of(self, folder: PublishedFolder) -> list[PublishedFolder]:
        """Return the retries of a job that are published beside it, the newest first: all that sent its failures."""
        return self._below(folder, is_all=False)

    def below(self, folder: PublishedFolder) -> list[PublishedFolder]:
        """Return the retries of a job, the retries of these, and so on."""
        return self._below(folder, is_all=True)

    def is_void(self, folder: PublishedFolder) -> bool:
        """Return whether a retry answered no line."""
        path = Path(os.path.realpath(folder.path))
        job = self._beside(path.parent).jobs.get(path)
        return job is not None and job.is_void

    def _below(self, folder: PublishedFolder, *, is_all: bool) -> list[PublishedFolder]:
        if not os.path.lexists(folder.path / RETRY):
            return []
        path = Path(os.path.realpath(folder.path))
        before = "".join(folder.name.rpartition("/")[:2])
        found = self._beside(path.parent).below(path, is_all=is_all)
        return [PublishedFolder(job.path, before + printable(job.path.name)) for job in found]

    def _beside(self, parent: Path) -> _Family:
        if parent not in self._families:
            try:
                entries = [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False)]
            except OSError:
                entries = []
            found = (_read_job(path) for path in entries if not path.name.startswith("."))
            self._families[parent] = _Family.of([job for job in found if job is not None])
        return self._families[parent]


def find_wholes(folders: Iterable[Path], retries: Retries, ignore: Path | None = None) -> list[Source]:
    """Return the sources in these DIRs, like `find_sources`, without the retries that another job of them includes.

    Raises:
        InputError: See `find_sources`.
    """
    found = [source for folder in folders for source in find_sources(folder, ignore)]
    published = [source for source in found if isinstance(source, PublishedFolder)]
    included = {item.path for source in published for item in retries.below(source)}
    return [
        source
        for source in found
        if not (included and isinstance(source, PublishedFolder) and Path(os.path.realpath(source.path)) in included)
    ]


def read_whole(source: Source, retries: Retries) -> Iterator[Answer | LeftOut]:
    """Yield a source's answers and failures in the order of the prompts.

    A failure is replaced by the answer of a retry, the newest that has one; otherwise by the failure of the newest.
    """
    if isinstance(source, PublishedFolder):
        for _, item in _read_lines(source, retries, MOST_RETRIES):
            yield item
    else:
        yield from read_answers(source)


def _read_lines(folder: PublishedFolder, retries: Retries, most: int) -> Iterator[_Line]:
    return heapq.merge(_answered(folder), _asked_again(folder, retries, most), key=itemgetter(0))


def _answered(folder: PublishedFolder) -> Iterator[_Line]:
    """Yield the job's own answers; a damaged line has the number of the line before it."""
    line = 0
    for item in read_answers(folder):
        if isinstance(item, Answer) and item.line is not None:
            line = item.line
        yield line, item


def _asked_again(folder: PublishedFolder, retries: Retries, most: int) -> Iterator[_Line]:
    """Yield the final results of the lines that failed."""
    found = retries.of(folder)
    if found and not most:
        raise InputError(
            f"{folder.name} is the last of {MOST_RETRIES} retries of retries, and has another one: drop the lines that "
            "still fail as a new job"
        )
    # Of void retries only the newest counts, for the last failures: there may be many, and each needs open files.
    used = [retry for retry in found if retry == found[0] or not retries.is_void(retry)]
    again = [_Walk(_read_lines(retry, retries, most - 1)) for retry in used]
    line = 0
    for number, failure in enumerate(read_failures(folder), 1):
        items = [item for walk in again for item in walk.up_to(number)]
        yield from ((line, item) for item in items if _line_of(item) is None)
        if not isinstance(failure, FailedLine):  # its line is unknown
            yield line, failure
            continue
        line = failure.line
        results = [item for item in items if _line_of(item) == number]
        answers = (item for item in results if isinstance(item, Answer))
        yield line, _placed(next(answers, None) or next(iter(results), failure), failure, folder)


class _Walk:
    """Reads the lines of a retry in step with the lines of its job."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._next = next(lines, None)

    def up_to(self, number: int) -> Iterator[Answer | LeftOut]:
        """Yield the remaining lines up to this one."""
        while self._next is not None and self._next[0] <= number:
            yield self._next[1]
            self._next = next(self._lines, None)


def _line_of(item: Answer | LeftOut) -> int | None:
    return item.line if isinstance(item, Answer | FailedLine) else None


def _placed(item: Answer | LeftOut, failure: FailedLine, folder: PublishedFolder) -> Answer | LeftOut:
    """Return a retry's result as the result of the line that had failed: with its number and its id."""
    if item is failure:
        return failure
    place = f"{item.place}, line {failure.line} of {folder.name}"
    if not isinstance(item, Answer):
        record = item.record if isinstance(item, FailedLine) else {}
        return replace(failure, place=place, reason=item.reason, record=record)
    # A line without an id has its number as id, and the retry has numbered its lines from 1.
    has_own = item.request_id not in (item.line, f"line-{item.line}")
    known = {"line": failure.line, "id": item.request_id if has_own else failure.id}
    return replace(item, place=place, line=failure.line, record={**item.record, **known}, by_retry=True)


def _read_job(path: Path) -> _Job | None:
    """Return the job of a folder's manifest; None if the manifest is damaged or not that of a finished job."""
    try:
        with disk.open_regular(path / MANIFEST, os.O_NOFOLLOW) as stream:
            daemon = os.fstat(stream.fileno()).st_uid
            raw = stream.read(MAX_MANIFEST_BYTES + 1)
        document = json.loads(raw) if len(raw) <= MAX_MANIFEST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.keys() & {"rejected", "repeats"}:
        return None
    return _Job(
        path=path,
        id=_text(document, "job"),
        parent=_text(document, "parent"),
        accepted_at=_text(document, "times", "accepted_at"),
        published_at=_text(document, "times", "published_at"),
        input=_text(document, "input", "sha256"),
        retry=_text(document, "outputs", RETRY, "sha256"),
        uid=_uid(document.get("submitter")),
        daemon=daemon,
    )


def _uid(submitter: object) -> int | None:
    uid = submitter.get("uid") if isinstance(submitter, dict) else None
    return uid if type(uid) is int else None


def _text(document: object, *keys: str) -> str:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, str) else ""
