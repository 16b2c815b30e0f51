"""A limit on the memory that a library takes for what others wrote."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

_PAGES = Path("/proc/self/statm")


@contextlib.contextmanager
def memory_limit(most_bytes: int) -> Iterator[None]:
    """Let this process take at most so many bytes of addresses more than it has: what needs more gets a MemoryError.

    Without effect where the system does not say what the process has (not Linux), or has a lower limit itself.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        taken = int(_PAGES.read_text("ascii").split()[0]) * resource.getpagesize()
        limit = taken + most_bytes
        if before[0] == resource.RLIM_INFINITY or limit < before[0]:
            resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    except (OSError, ValueError):
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, before)
