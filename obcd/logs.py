"""Logging: one event a line, with its action and ids; prompts and answers stay out at every level.

Under systemd (stderr is the journal) every line carries its priority as `<N>`; elsewhere it carries the time.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback

#: {logging level: syslog priority}, sd-daemon(3)
PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


class PlainFormatter(logging.Formatter):
    """`2026-11-22 18:01:05 INFO obcd.coordinator: job accepted`, for people and log files."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


class JournalFormatter(logging.Formatter):
    """`<6>job accepted`; each line of a traceback has its own prefix, since each is an entry of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one or more prefixed lines."""
        text = super().format(record)
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in text.split("\n"))


def is_journal(stream_fd: int = 2) -> bool:
    """Tell whether a descriptor is the journal: JOURNAL_STREAM is `dev:inode` of it, systemd.exec(5)."""
    try:
        stat = os.fstat(stream_fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def set_up_logging(level: int = logging.INFO) -> None:
    """Send obcd's own log to stderr, once; called first thing in every process that logs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter() if is_journal() else PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("obcd").setLevel(level)
    logging.raiseExceptions = False  # a closed stderr must not end the daemon


def fault_text(error: BaseException) -> str:
    """Return an exception's type and place without its text, which may quote a prompt."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {os.path.basename(frame[0].filename)}:{frame[0].lineno}" if frame else ""
    return type(error).__name__ + place


def printable(name: str) -> str:
    r"""Escape what a terminal or log must not receive: control characters, bidi overrides, backslashes (as `\x1b`)."""
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape", "backslashreplace").decode()
        for char in name
    )
