"""The file that node_exporter's textfile collector reads: written whole, readable by its user, and never an old one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: The collector reads only files of this suffix (node_exporter, collector/textfile.go); it runs as another user.
SUFFIX, MODE = ".prom", 0o644


def write_textfile(path: Path, content: bytes) -> None:
    """Write a file completely, or leave the old one; not durably, because it is worthless after a crash.

    Raises:
        OSError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(temporary, flags, MODE), "wb") as file:
            os.fchmod(file.fileno(), MODE)  # whatever the umask is
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
