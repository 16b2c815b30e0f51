"""Read requests from the folders of their jobs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request, Signature, answers_of, nth_request, reseeded
from obcd.core.request.rows import Reading
from obcd.spool.job.job_folder import OpenJob, read_header

#: The number of jobs whose settings are kept; a job's settings never change.
CACHED_JOBS = 64
#: Lines above this size are parsed one at a time.
LONG_LINE_BYTES = 2**20


class Asked(NamedTuple):
    """One request, with everything that is needed to send it.

    Attributes:
        has_seed: Whether its line has several choices, each with a seed that the result names.
        needs_usage: Whether its result reports its own tokens, because the job is answered in OpenAI's form.
    """

    request: Request
    settings: JobSettings
    signature: Signature
    has_seed: bool = False
    needs_usage: bool = False


class _JobFacts(NamedTuple):
    """What all requests of a job with one signature have in common."""

    settings: JobSettings
    signature: Signature
    reading: Reading
    needs_usage: bool


class JobRequests:
    """The settings of recent jobs, and the open files of the last one. Any thread may call it."""

    def __init__(self, jobs: Path) -> None:
        self._jobs = jobs
        self._cache: OrderedDict[tuple[str, int], _JobFacts] = OrderedDict()
        self._last: tuple[str, OpenJob] | None = None
        self._lock = threading.Lock()
        self._long_lines = threading.Lock()

    def read(self, job: str, ordinal: int, number: int, attempt: int = 1) -> Asked:
        """Read one request from the job's folder.

        Args:
            number: The number of its signature among those of the job.
            attempt: The number of the attempt: another one has another seed where empty answers are tried again.

        Raises:
            OSError, ValueError, LookupError, TypeError, LineError: If the folder is damaged.
        """
        place, raw = self._files(job).read(ordinal)
        settings, signature, reading, needs_usage = self._facts(job, number)
        if len(raw) > LONG_LINE_BYTES:  # parsing takes four times the memory of a line with pictures: one at a time
            with self._long_lines:
                request = parse_line(raw, place.line, reading)
        else:
            request = parse_line(raw, place.line, reading)
        has_seed = answers_of(request, settings) > 1
        if has_seed:
            request = nth_request(request, settings, place.answer)
        if settings.empty == "retry":
            request = reseeded(request, settings, attempt)
        return Asked(request, settings, signature, has_seed, needs_usage)

    def close(self) -> None:
        """Close the open files: their job may be removed, and they would keep its space."""
        self._last = None

    def _files(self, job: str) -> OpenJob:
        last = self._last
        if last is None or last[0] != job:
            last = self._last = job, OpenJob(f"{self._jobs}/{job}")
        return last[1]

    def _facts(self, job: str, number: int) -> _JobFacts:
        with self._lock:
            known = self._cache.get((job, number))
            if known is None:
                header = read_header(self._jobs / job)
                settings, is_openai = header.settings_under(number), bool(header.asks)
                known = _JobFacts(settings, header.signatures[number], settings.reading, is_openai)
                self._cache[job, number] = known
                while len(self._cache) > CACHED_JOBS:
                    self._cache.popitem(last=False)
            return known
