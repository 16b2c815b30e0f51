"""Which machine this is: a loopback address in a record is only meaningful on the machine that wrote it."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

#: Both are hashed: copied images of virtual machines share the first, and machine-id(5) is not to be shown as it is.
#: The second is the kernel's, so that all containers of a machine have the same (proc(5), random/boot_id).
SOURCES = (Path("/etc/machine-id"), Path("/proc/sys/kernel/random/boot_id"))


def machine_id() -> str:
    """Return 32 characters that name this machine until it is started again; "" where the kernel names no start."""
    texts = [""] * len(SOURCES)
    for number, source in enumerate(SOURCES):
        with contextlib.suppress(OSError):
            texts[number] = source.read_text("ascii", "replace").strip()
    if not texts[-1]:
        return ""
    return hashlib.sha256("\n".join(("obcd", *texts)).encode()).hexdigest()[:32]
