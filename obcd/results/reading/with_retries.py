"""A published job and its retries as one result again.

    notes/               lines 1 2 3 4 5, answered 1 3 5, failed 2 4: its retry.jsonl
    notes.retry/         lines 1 2 of that file, answered 1, failed 2: its own retry.jsonl
    notes.retry.<id>/    line 1 of that, answered: it is line 4 of notes

A retry is a job beside the other whose input is the other's retry.jsonl, byte for byte: line k of it is the k-th line
that failed. Whoever drops such a file by hand makes one too; what `obcd retry` dropped names the one job it is of. It
counts if it is the same submitter's, root's or the daemon's own.
Reads manifests of the same folder only, each once.
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
#: A manifest is a page; one that is longer makes no retry.
MAX_MANIFEST_BYTES = 4 * 2**20

#: Retries of retries that are followed: each holds files open while the one before it is read.
MOST_RETRIES = 50

#: (line of the job's own prompt file, what became of it)
_Line = tuple[int, Answer | LeftOut]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What a manifest says that is needed here; "" where it is silent. Times are RFC 3339 in UTC, so they sort."""

    path: Path
    id: str
    parent: str
    accepted_at: str
    published_at: str
    input: str  # SHA-256
    retry: str  # SHA-256 of retry.jsonl
    uid: int | None  # who dropped it
    daemon: int  # who published it

    @property
    def rank(self) -> tuple[str, str]:
        """Return what jobs sort by: the time they came."""
        return self.accepted_at, self.id

    @property
    def is_void(self) -> bool:
        """Return whether it answered nothing: then what is asked after it is what was asked in it."""
        return bool(self.retry) and self.input == self.retry

    def is_retry_of(self, other: _Job) -> bool:
        """Return whether these are the other's failed lines, asked later; so no job is in the end its own retry."""
        if not other.retry or self.input != other.retry or self.rank <= other.rank:
            return False
        if self.uid not in (other.uid, 0, self.daemon):  # a stranger's answers are not for this job
            return False
        # Where all lines failed, an unnamed one may be the same drop from before: then there was no retry.jsonl yet.
        return self.parent == other.id if self.parent else self.accepted_at >= other.published_at


@dataclass(frozen=True, slots=True)
class _Family:
    """The jobs of a folder: `{path: job}`, and `{path: its retries}`, where each job is the retry of one at most."""

    jobs: dict[Path, _Job]
    retries: dict[Path, list[_Job]]

    @classmethod
    def of(cls, jobs: list[_Job]) -> _Family:
        # Of those with the same failed lines (one drop that fails night after night) it is the newest one's.
        jobs.sort(key=attrgetter("rank"))
        failed: dict[str, list[_Job]] = {}  # {SHA-256 of a retry.jsonl: who has it, the oldest first}
        retries: dict[Path, list[_Job]] = {}
        for job in jobs:
            parent = next((other for other in reversed(failed.get(job.input, ())) if job.is_retry_of(other)), None)
            if parent is not None:
                retries.setdefault(parent.path, []).append(job)
            if job.retry:
                failed.setdefault(job.retry, []).append(job)
        return cls({job.path: job for job in jobs}, retries)

    def below(self, path: Path, *, is_all: bool) -> list[_Job]:
        """Return a job's retries and those of the void ones among them, whose lines are the same; or all below it."""
        found, left = [], [path]
        while left:
            for job in self.retries.get(left.pop(), ()):
                found.append(job)
                if is_all or job.is_void:
                    left.append(job.path)
        return sorted(found, key=attrgetter("rank"), reverse=True)


class Retries:
    """Finds the retries of published jobs; what it read of a folder it keeps."""

    def __init__(self) -> None:
        self._families: dict[Path, _Family] = {}

    def of(self, folder: PublishedFolder) -> list[PublishedFolder]:
        """Return the retries of a job that are published beside it, the newest first: all that asked what failed."""
        return self._below(folder, is_all=False)

    def below(self, folder: PublishedFolder) -> list[PublishedFolder]:
        """Return the retries of a job, theirs, and so on."""
        return self._below(folder, is_all=True)

    def is_void(self, folder: PublishedFolder) -> bool:
        """Return whether a retry answered nothing."""
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
    """Return what these DIRs hold, like `find_sources`, without the retries that are told with another job of it.

    Raises:
        InputError: See `find_sources`.
    """
    found = [source for folder in folders for source in find_sources(folder, ignore)]
    published = [source for source in found if isinstance(source, PublishedFolder)]
    told = {item.path for source in published for item in retries.below(source)}
    return [
        source
        for source in found
        if not (told and isinstance(source, PublishedFolder) and Path(os.path.realpath(source.path)) in told)
    ]


def read_whole(source: Source, retries: Retries) -> Iterator[Answer | LeftOut]:
    """Yield a source's answers and failures in the order of the prompts.

    In the place of a failure stands the answer of a retry, the newest that has one; else how the newest failed.
    """
    if isinstance(source, PublishedFolder):
        for _, item in _read_lines(source, retries, MOST_RETRIES):
            yield item
    else:
        yield from read_answers(source)


def _read_lines(folder: PublishedFolder, retries: Retries, most: int) -> Iterator[_Line]:
    return heapq.merge(_answered(folder), _asked_again(folder, retries, most), key=itemgetter(0))


def _answered(folder: PublishedFolder) -> Iterator[_Line]:
    """Yield what the job answered itself; damage has the number of the line before it."""
    line = 0
    for item in read_answers(folder):
        if isinstance(item, Answer) and item.line is not None:
            line = item.line
        yield line, item


def _asked_again(folder: PublishedFolder, retries: Retries, most: int) -> Iterator[_Line]:
    """Yield what became in the end of the lines that failed."""
    found = retries.of(folder)
    if found and not most:
        raise InputError(
            f"{folder.name} is the last of {MOST_RETRIES} retries of retries, and has another one: drop the lines that "
            "still fail as a job of their own"
        )
    # Of void ones the newest says how the lines failed last; any number of them may be there, and each is open files.
    used = [retry for retry in found if retry == found[0] or not retries.is_void(retry)]
    again = [_Walk(_read_lines(retry, retries, most - 1)) for retry in used]
    line = 0
    for number, failure in enumerate(read_failures(folder), 1):
        items = [item for walk in again for item in walk.up_to(number)]
        yield from ((line, item) for item in items if _line_of(item) is None)
        if not isinstance(failure, FailedLine):  # which line it was nobody knows any more
            yield line, failure
            continue
        line = failure.line
        results = [item for item in items if _line_of(item) == number]
        answers = (item for item in results if isinstance(item, Answer))
        yield line, _placed(next(answers, None) or next(iter(results), failure), failure, folder)


class _Walk:
    """Goes through the lines of a retry beside those of the job it is of."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._next = next(lines, None)

    def up_to(self, number: int) -> Iterator[Answer | LeftOut]:
        """Yield what is left of the lines to this one."""
        while self._next is not None and self._next[0] <= number:
            yield self._next[1]
            self._next = next(self._lines, None)


def _line_of(item: Answer | LeftOut) -> int | None:
    return item.line if isinstance(item, Answer | FailedLine) else None


def _placed(item: Answer | LeftOut, failure: FailedLine, folder: PublishedFolder) -> Answer | LeftOut:
    """Return a retry's result as that of the line that had failed: with its number and its id."""
    if item is failure:
        return failure
    place = f"{item.place}, line {failure.line} of {folder.name}"
    if not isinstance(item, Answer):
        return replace(failure, place=place, reason=item.reason)
    # The id of a line that has none is its number, which the retry counted anew.
    has_own = item.request_id not in (item.line, f"line-{item.line}")
    known = {"line": failure.line, "id": item.request_id if has_own else failure.id}
    return replace(item, place=place, line=failure.line, record={**item.record, **known}, by_retry=True)


def _read_job(path: Path) -> _Job | None:
    """Return what a folder's manifest says; None if it is no finished job's, or damaged."""
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
