"""Which machine this is: a loopback address in a record is only meaningful on the machine that wrote it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

#: The first one that holds something counts: a machine without systemd may have no machine-id(5), and a unit with
#: ProcSubset=pid does not see the kernel's own.
SOURCES = (Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id"))


def machine_id(sources: Sequence[Path] = SOURCES) -> str:
    """Return 32 characters that name this machine, "" if nothing does.

    They are a hash, because machine-id(5) is not to be shown as it is, and of the host name too: the images of nodes
    and virtual machines are often copies, with one machine-id for all.
    """
    for source in sources:
        with contextlib.suppress(OSError):
            if text := source.read_text("ascii", "replace").strip():
                return hashlib.sha256(f"obcd\n{text}\n{os.uname().nodename}".encode()).hexdigest()[:32]
    return ""
