"""The kernel's limits of file events (inotify(7)): how many a user has, and the command that gives more."""

from __future__ import annotations

from pathlib import Path

#: Where they are, one file each.
FOLDER = Path("/proc/sys/fs/inotify")
#: {limit of one user: how much of it a machine with several daemons should give}
GOOD_LIMITS = {"max_user_instances": 512, "max_user_watches": 65536}


def read_limit(name: str, folder: Path = FOLDER) -> int | None:
    """Return a limit of `GOOD_LIMITS`; None where there is no inotify, or a container does not show it."""
    try:
        return int((folder / name).read_text())
    except (OSError, ValueError):
        return None


def raise_limit(name: str, most: int) -> str:
    """Return the command that gives more than `most`, which is not enough."""
    return f"sudo sysctl fs.inotify.{name}={max(GOOD_LIMITS[name], 2 * most)}  # and into /etc/sysctl.d/ to keep it"
