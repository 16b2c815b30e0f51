"""The cache of answers (`cache = true`): one SQLite file in the root that all workers and all their threads share.

    worker ─find(key)──► <root>/cache.sqlite ◄─forget(before)─── the sweeper's clerk (`keep_days`)
           ─keep(key)──►        0600, WAL    ◄─measure, clear─── obcd cache

Own code: most of it decides what may be cached, who may open the file, and how the work goes on without it; of a
library for caches only the statements for one key would be of use.

It only saves work: each fault of it (damaged, locked, full) is reported once, and the work goes on without it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from obcd.clock import monotonic
from obcd.core.answer.outcomes import ModelAnswer
from obcd.core.answer.record_codec import decode_answer, encode_answer
from obcd.errors import ObcdError
from obcd.spool.folders import disk

#: Maximum size in bytes; the oldest answers are deleted first.
MOST_BYTES = 2**31
#: Share that is freed when it is nearly full, and the share that counts as nearly full.
FREED_SHARE, FULL_SHARE = 0.2, 0.9
#: Seconds that a worker waits for the write of another one, while its slot is idle; and that a command waits.
BUSY_SECONDS, PATIENT_SECONDS = 0.25, 30.0
#: Seconds until a cache that could not be opened, or was damaged, is tried again.
RETRY_SECONDS = 60.0
#: Seconds until a locked cache is tried again: otherwise all slots of a worker would wait for it, one after the other.
LOCKED_SECONDS = 2.0
#: Rows per transaction of a deletion: workers wait for its end.
ROWS_AT_ONCE = 500
#: {SQLite's name of an error: the reason for people}
REASONS = {
    "SQLITE_BUSY": "another process keeps it locked",
    "SQLITE_LOCKED": "another process keeps it locked",
    "SQLITE_FULL": "there is no space for it",
    "SQLITE_NOTADB": "it is damaged",
    "SQLITE_CORRUPT": "it is damaged",
    "SQLITE_READONLY": "it cannot be written",
    "SQLITE_CANTOPEN": "it cannot be opened",
    "SQLITE_IOERR": "the disk fails",
}
#: Errors after which the connection is still usable.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL")
#: Version of the tables; a file with another version is not used.
LAYOUT = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, at REAL NOT NULL, model TEXT NOT NULL, crc INTEGER NOT NULL,
                                    fields BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (at);
"""


@dataclass(frozen=True, slots=True)
class Size:
    """The content of a cache.

    Attributes:
        answers, bytes: The number of answers, and the size of the file.
        oldest, newest: The times at which they were computed, in Unix seconds; None if there are no answers.
        models: `{model: number of its answers}`.
    """

    answers: int = 0
    bytes: int = 0
    oldest: float | None = None
    newest: float | None = None
    models: dict[str, int] = field(default_factory=dict)


class AnswerCache:
    """The access of a worker to the cache; any thread. It opens the file at the first call.

    Args:
        tell: Called with the reason, a sentence without its end, if the cache cannot be used; once for each reason.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path = path
        self._tell = tell
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._retry_at = 0.0
        self._told: set[str] = set()

    def find(self, key: bytes) -> ModelAnswer | None:
        """Return a cached answer, None if there is none, or no cache."""
        answer: ModelAnswer | None = None
        with self._used() as connection:
            wanted = "SELECT crc, fields FROM answers WHERE key = ?"
            row = connection.execute(wanted, (key,)).fetchone() if connection is not None else None
            if row is not None and zlib.crc32(row[1]) == row[0]:
                answer = decode_answer(row[1])
            elif row is not None:
                self._say("it is damaged")
        return answer

    def keep(self, key: bytes, answer: ModelAnswer, *, replaces: bool = False) -> None:
        """Store an answer; an existing one stays, unless this one `replaces` it."""
        raw = encode_answer(answer)
        row = (key, answer.finished, answer.model, zlib.crc32(raw), raw)
        with self._used() as connection:
            if connection is not None:
                otherwise = "REPLACE" if replaces else "IGNORE"
                connection.execute(f"INSERT OR {otherwise} INTO answers VALUES (?, ?, ?, ?, ?)", row)  # noqa: S608

    @contextlib.contextmanager
    def _used(self) -> Iterator[sqlite3.Connection | None]:
        """Yield the connection, None if there is none; errors inside are reported and suppressed."""
        with self._lock:
            connection = self._connected()
            try:
                yield connection
            except (sqlite3.Error, OSError, ValueError, TypeError) as error:
                self._say(reason_of(error))
                name = _name_of(error)
                if name not in _PASSING:
                    self._close()
                if name != "SQLITE_FULL":  # a full one can still be read
                    self._retry_at = monotonic() + (LOCKED_SECONDS if name in _PASSING else RETRY_SECONDS)

    def _connected(self) -> sqlite3.Connection | None:
        if monotonic() < self._retry_at:
            return None
        if self._connection is not None and not self._path.exists():  # removed: the open file is of no use
            self._close()
        if self._connection is None:
            try:
                self._connection = connect(self._path, BUSY_SECONDS)
            except (sqlite3.Error, OSError) as error:
                self._retry_at = monotonic() + RETRY_SECONDS
                self._say(reason_of(error))
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _say(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            self._tell(reason)


def connect(path: Path, timeout: float) -> sqlite3.Connection:
    """Open the cache, and make it if it is missing, for the daemon's user alone, because it holds answers.

    Args:
        timeout: Seconds to wait for writes of other processes.

    Raises:
        OSError: If it cannot be made, is a link or not a file, or belongs to another user.
        sqlite3.Error: If it is damaged, or locked.
    """
    with disk.opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK) as descriptor:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if status.st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        _set_up(connection, monotonic() + timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, until: float) -> None:
    """Configure a connection, and make the tables if there are none yet.

    If workers start together, one makes the tables, and SQLite refuses the others at once, whatever the timeout is.
    """
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last answers, and nothing else
    connection.execute("PRAGMA secure_delete = ON")  # deleted data is overwritten
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA max_page_count = {MOST_BYTES // _pragma(connection, 'page_size')}")
            if _pragma(connection, "user_version") == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_TABLE} PRAGMA user_version = {LAYOUT}; COMMIT;")
        except sqlite3.OperationalError as error:
            if _name_of(error) not in _PASSING or monotonic() >= until:
                raise
            threading.Event().wait(0.01)
        else:
            break
    if _pragma(connection, "user_version") != LAYOUT:
        raise OSError("another version of obcd made it")


def forget(path: Path, before: float) -> int:
    """Delete answers computed before a time (Unix seconds, 0: none), and the oldest if the cache is nearly full.

    Returns:
        The number of deleted answers.

    Raises:
        OSError: If it cannot be used, whatever the reason.
    """
    if not path.exists():
        return 0
    with _opened(path) as connection:
        gone = _delete(connection, "at < ?", (before,)) if before else 0
        used = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
        if used > FULL_SHARE * _pragma(connection, "max_page_count"):
            count = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
            place = (int(count * FREED_SHARE),)
            row = connection.execute("SELECT at FROM answers ORDER BY at LIMIT 1 OFFSET ?", place).fetchone()
            gone += _delete(connection, "at <= ?", row) if row is not None else 0
        if gone:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone


def measure(path: Path) -> Size:
    """Return the content of the cache; zeros if there is none.

    Raises:
        OSError: If it cannot be read, whatever the reason.
    """
    if not path.exists():
        return Size()
    with _opened(path) as connection:
        count, oldest, newest = connection.execute("SELECT count(*), min(at), max(at) FROM answers").fetchone()
        models = dict(connection.execute("SELECT model, count(*) FROM answers GROUP BY model ORDER BY 2 DESC, 1"))
    size = sum(file.stat().st_size for file in _files(path) if file.exists())
    return Size(count, size, oldest, newest, models)


def clear(path: Path) -> int | None:
    """Delete all answers, even while workers use the cache.

    Returns:
        The number of answers; None for a damaged cache, whose files are removed.

    Raises:
        OSError: If it cannot be used, e.g. if it is locked for long or belongs to another user.
    """
    if not path.exists():
        return 0
    try:
        with _opened(path) as connection:
            gone = _delete(connection, "TRUE", ())
            with contextlib.suppress(sqlite3.Error):  # the file keeps its size while others read; it is empty
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return gone
    except DamagedError:
        for file in _files(path):
            file.unlink(missing_ok=True)
        return None


class DamagedError(ObcdError, OSError):
    """The file is not a database, or a damaged one."""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the cache for a command; an error of SQLite becomes an `OSError`."""
    try:
        with contextlib.closing(connect(path, PATIENT_SECONDS)) as connection:
            yield connection
    except sqlite3.Error as error:
        kind = DamagedError if _name_of(error) in ("SQLITE_NOTADB", "SQLITE_CORRUPT") else OSError
        raise kind(0, reason_of(error), str(path)) from None


def _files(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]


def _pragma(connection: sqlite3.Connection, what: str) -> int:
    return int(connection.execute(f"PRAGMA {what}").fetchone()[0])


def _delete(connection: sqlite3.Connection, which: str, values: tuple[float | bytes, ...]) -> int:
    """Delete some rows at a time, so that users of the cache need not wait for all of them."""
    gone, more = 0, ROWS_AT_ONCE
    while more == ROWS_AT_ONCE:
        one = f"SELECT rowid FROM answers WHERE {which} LIMIT {ROWS_AT_ONCE}"  # noqa: S608 - a constant
        more = connection.execute(f"DELETE FROM answers WHERE rowid IN ({one})", values).rowcount  # noqa: S608
        gone += more
    return gone


def _name_of(error: Exception) -> str:
    """Return the name of SQLite's primary code, "" for another error."""
    name = getattr(error, "sqlite_errorname", "")
    return next((known for known in REASONS if name.startswith(known)), name)


def reason_of(error: Exception) -> str:
    """Return why the cache cannot be used, for people; never quotes its content."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    name = _name_of(error)
    return REASONS.get(name, name or "it is damaged")
