"""Read what a coordinator says of itself, from another process: its status file, and whether it still writes it."""

from __future__ import annotations

import os
import time
from typing import Any

from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout

#: Age of a status in seconds above which no coordinator is running.
STALE_SECONDS = 10.0
#: The same for a status that comes over a file system, which may show it late (nfs(5): acregmax).
SHARED_STALE_SECONDS = 75.0


def read_status(layout: Layout) -> Any:
    """Return the newest status of a spool's coordinator, which may run inside a Slurm job on another machine.

    Raises:
        OSError, ValueError: If there is none that can be read.
    """
    try:
        shared = disk.read_json(layout.shared_status)
    except (OSError, ValueError):
        return disk.read_json(layout.status)
    try:
        return max(shared, disk.read_json(layout.status), key=_updated)
    except (OSError, ValueError):
        return shared


def _updated(document: Any) -> float:
    try:
        return float(document["updated"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def stale_after(layout: Layout) -> float:
    """Return the age of a spool's status, in seconds, above which its coordinator does not run."""
    return SHARED_STALE_SECONDS if os.path.exists(layout.shared_status) else STALE_SECONDS


def is_running(layout: Layout) -> bool:
    """Return whether a coordinator runs on a spool; True where this user may not read its status."""
    try:
        return time.time() - float(read_status(layout)["updated"]) <= stale_after(layout)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
