"""Log records as entries of systemd's journal, with fields: `journalctl OBCD_JOB=20261122T180105-3f9a1c`. Floor 0.

An entry is one datagram in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): lines `KEY=value`; for a
value with a line feed: `KEY`, a line feed, the length as 64 bits little endian, the value. A traceback stays one entry.

Own code: systemd-python has to be compiled against libsystemd, whose socket blocks while the journal's queue is full
(systemd's journal-send.c, `journal_fd`).
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from pathlib import Path

from obcd.text import one_line

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "obcd"
#: {logging level: syslog priority}, sd-daemon(3)
PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}
#: Keys of a record's `extra` that go into the journal; `job` becomes OBCD_JOB. No other key does; no prompt ever does.
FIELDS = ("action", "job", "line", "endpoint", "profile", "fault", "repeats", "server")


class PrefixFormatter(logging.Formatter):
    """`<6>job accepted`; each line of a traceback has its own prefix, because each is a separate entry.

    The journal ends an entry at a NUL as well: systemd's journald-stream.c, `stdout_stream_scan`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one or more prefixed lines."""
        text = super().format(record)
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + one_line(line) for line in text.split("\n"))


class JournalHandler(logging.Handler):
    """Sends records to the journal; what it does not take (too big, no journal, busy) goes to stderr with a prefix.

    Never blocks: the journal's queue may be full, and the main loop must go on.
    """

    def __init__(self, fallback: logging.Handler, path: Path = SOCKET) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter())
        self._path = str(path)
        self._fallback = fallback
        fallback.setFormatter(PrefixFormatter())
        self._socket: socket.socket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            if self._socket is None:  # opened late: a process that may open no file must still be able to log that
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto(encode(record, self.format(record)), self._path)
        except OSError:
            self._fallback.handle(record)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
        super().close()


def encode(record: logging.LogRecord, message: str) -> bytes:
    """Return a record as a datagram of the native protocol."""
    fields = {
        "MESSAGE": message,
        "PRIORITY": PRIORITIES.get(record.levelno, 6),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        **{f"OBCD_{name.upper()}": getattr(record, name, "") for name in FIELDS},
    }
    return b"".join(_field(key, str(value)) for key, value in fields.items() if value not in ("", None))


def _field(key: str, text: str) -> bytes:
    value = text.encode("utf-8", "backslashreplace")
    if b"\n" not in value:
        return key.encode() + b"=" + value + b"\n"
    return key.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


def is_journal(stream_fd: int = 2) -> bool:
    """Return whether a descriptor is the journal: JOURNAL_STREAM is its `dev:inode`, systemd.exec(5)."""
    try:
        stat = os.fstat(stream_fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
