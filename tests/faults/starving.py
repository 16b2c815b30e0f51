"""A user of one test's own, to whom the kernel gives hardly any inotify instances or watches.

A user namespace has limits of its own below the user's (namespaces(7), /proc/sys/user): what is exhausted in there
is exhausted for nobody else, and ends with its processes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Run in the namespace, before the command: sets the limit, has a child of its own take all there is, and becomes the
#: command. The child lets go when the file that says so is there, or when the command has ended.
_SCRIPT = """
import ctypes, errno, os, sys, time
name, most, release, *command = sys.argv[1:]
with open(f"/proc/sys/user/{name}", "w") as limit:
    limit.write(most)
libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()
while name == "max_inotify_instances" and libc.inotify_init1(os.O_CLOEXEC) >= 0:
    pass
if name == "max_inotify_instances" and ctypes.get_errno() != errno.EMFILE:
    sys.exit("inotify_init1 failed otherwise than expected")
if os.fork() == 0:
    os.closerange(0, 3)
    while os.getppid() == parent and not os.path.exists(release):
        time.sleep(0.02)
    os._exit(0)
os.execv(command[0], command)
"""


def starve(limit: str, most: int, release: Path) -> list[str]:
    """Return what to put before a command that is to find `limit` exhausted until the file `release` is there.

    Args:
        limit: `max_inotify_instances`, of which all `most` are taken, or `max_inotify_watches`.
    """
    enter = ["unshare", "--user", "--map-root-user"]
    try:
        tried = subprocess.run(
            [*enter, "test", "-w", f"/proc/sys/user/{limit}"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no unshare(1), which makes user namespaces")
    if tried.returncode != 0:
        pytest.skip(f"no user namespace with limits of its own can be made here: {tried.stderr.strip()}")
    return [*enter, sys.executable, "-c", _SCRIPT, limit, str(most), str(release)]
