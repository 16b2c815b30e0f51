"""The progress of an `obcd batch` for the program that started it: each state is a line of JSON in a pipe.

A program that does not read misses states, and does not hold up the work.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping

from obcd.coordinator.view import JobView

#: The environment variable with the number of the pipe's descriptor.
VARIABLE = "OBCD_PROGRESS_FD"
#: A longer line could be written in parts, and is not written: the least PIPE_BUF of POSIX is 512, that of Linux 4096.
MOST_BYTES = 4096
#: Most bytes that lie in a pipe.
CAPACITY = 2**16


class ProgressWriter:
    """The end of the process that works."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> ProgressWriter | None:
        """Return the writer if the program that started this process has opened a pipe for it, else None."""
        try:
            return cls(int(environ[VARIABLE]))
        except (KeyError, ValueError, OverflowError, OSError):
            return None

    def write(self, job: JobView) -> None:
        """Write a state, unless nobody reads."""
        line = json.dumps(job.to_json()).encode() + b"\n"
        if len(line) <= MOST_BYTES:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, line)


class ProgressPipe:
    """The end of the program that waits, in a `with` block around the start of the process.

    Attributes:
        writing: The descriptor that the process inherits.
    """

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._last: JobView | None = None

    def __enter__(self) -> ProgressPipe:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._reading)
        os.close(self.writing)

    def newest(self) -> JobView | None:
        """Return the newest state; None before the first."""
        try:
            lines = os.read(self._reading, CAPACITY).splitlines()
        except BlockingIOError:
            return self._last
        if lines:
            with contextlib.suppress(ValueError):
                self._last = JobView.from_json(json.loads(lines[-1]))
        return self._last
