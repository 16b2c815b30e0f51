"""No core dumps: the memory of obcd's processes holds prompts, answers and tokens.

Floor 0: imports nothing of obcd. Every process that is started from here on inherits both settings.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

#: Which parts of its memory a core dump of this process holds, as a mask (core(5)): none.
_FILTER = Path("/proc/self/coredump_filter")


def forbid_core_dumps() -> None:
    """Set the limit on core files to 0, and the content of a dump to nothing.

    Linux passes a dump to a program (`kernel.core_pattern` with a pipe) whatever the limit is: systemd-coredump keeps
    the limit by itself; other programs do not, and get a dump without memory. The process stays as readable to its own
    user as any other (no PR_SET_DUMPABLE): `obcd status`, psutil and a debugger read its `/proc` entries.
    """
    with contextlib.suppress(OSError, ValueError):  # a unit may forbid the call; then it sets LimitCORE=0 itself
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # not Linux, or no /proc
        _FILTER.write_text("0", "ascii")
