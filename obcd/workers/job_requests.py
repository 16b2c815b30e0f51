"""Read requests from the folders of their jobs."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request, Signature, answers_of, nth_request, reseeded
from obcd.spool.job.job_folder import read_header, read_request_line

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


class JobRequests:
    """The settings of recent jobs, with which their lines are read. Any thread may call it."""

    def __init__(self, jobs: Path) -> None:
        self._jobs = jobs
        self._cache: OrderedDict[tuple[str, int], tuple[JobSettings, Signature, bool]] = OrderedDict()
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
        folder = self._jobs / job
        place, raw = read_request_line(folder, ordinal)
        settings, signature, needs_usage = self._settings(job, folder, number)
        # Parsing takes four times the memory of a line with pictures for a moment: one at a time.
        with self._long_lines if len(raw) > LONG_LINE_BYTES else contextlib.nullcontext():
            request = parse_line(raw, place.line, settings.reading)
        has_seed = answers_of(request, settings) > 1
        if has_seed:
            request = nth_request(request, settings, place.answer)
        if settings.empty == "retry":
            request = reseeded(request, settings, attempt)
        return Asked(request, settings, signature, has_seed, needs_usage)

    def _settings(self, job: str, folder: Path, number: int) -> tuple[JobSettings, Signature, bool]:
        with self._lock:
            key = job, number
            if key not in self._cache:
                header = read_header(folder)
                self._cache[key] = header.settings_under(number), header.signatures[number], bool(header.asks)
                while len(self._cache) > CACHED_JOBS:
                    self._cache.popitem(last=False)
            return self._cache[key]
