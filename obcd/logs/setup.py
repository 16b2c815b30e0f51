"""Set up logging: one event a line, with its action and ids; prompts and answers stay out at every level.

Under systemd (stderr is the journal) a record is an entry with its priority and with its ids as fields; elsewhere it is
a line with the time. Levels: error, somebody must act; warning, somebody may want to know; info, a normal event.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback

from obcd.logs.burst_filter import BurstFilter
from obcd.logs.journal import JournalHandler, is_journal
from obcd.text import one_line


class PlainFormatter(logging.Formatter):
    """`2026-11-22 18:01:05 INFO obcd.coordinator: job accepted`, for people and log files."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the record as one line, whatever its message holds."""
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return that line and the lines of a traceback."""
        return "\n".join(one_line(line) for line in super().format(record).split("\n"))


def set_up_logging(level: int = logging.INFO, *, to_journal: bool = False) -> None:
    """Send obcd's own log to stderr; a second call does nothing. Every process that logs calls it first.

    Args:
        to_journal: Log to the journal although stderr is a pipe of another program (supervisor's under systemd).
    """
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(PlainFormatter())
    handler = JournalHandler(stream) if to_journal or is_journal() else stream
    atexit.register(BurstFilter(handler).flush)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("obcd").setLevel(level)
    logging.raiseExceptions = False  # a closed stderr must not end the daemon


def fault_text(error: BaseException) -> str:
    """Return the type and place of an exception without its text, which may quote a prompt."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {os.path.basename(frame[0].filename)}:{frame[0].lineno}" if frame else ""
    return type(error).__name__ + place
