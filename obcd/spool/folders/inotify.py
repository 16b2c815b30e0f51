"""Read the kernel's limits of file events (inotify(7)), and name the command that raises them."""

from __future__ import annotations

from pathlib import Path

#: The folder of the limits, one file each.
FOLDER = Path("/proc/sys/fs/inotify")
#: {limit of one user: its recommended value on a machine with several daemons}
GOOD_LIMITS = {"max_user_instances": 512, "max_user_watches": 65536}


def read_limit(name: str, folder: Path = FOLDER) -> int | None:
    """Return a limit of `GOOD_LIMITS`; None without inotify, or if a container does not show it."""
    try:
        return int((folder / name).read_text())
    except (OSError, ValueError):
        return None


def raise_limit(name: str, most: int) -> str:
    """Return the command that raises a limit above `most`, which is not enough."""
    return f"sudo sysctl fs.inotify.{name}={max(GOOD_LIMITS[name], 2 * most)}  # and into /etc/sysctl.d/ to keep it"
