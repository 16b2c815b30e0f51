from __future__ import annotations

import io
import logging
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.logs import setup as logs
from obcd.logs.journal import FIELDS, JournalHandler, PrefixFormatter, is_journal


class StandInJournal:
    """A datagram socket that reads entries as journald does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))

    def entries(self) -> list[dict[str, str]]:
        found = []
        while True:
            try:
                found.append(self._parse(self._socket.recv(2**20)))
            except BlockingIOError:
                return found

    def _parse(self, raw: bytes) -> dict[str, str]:
        entry: dict[str, str] = {}
        while raw:
            line, _, rest = raw.partition(b"\n")
            key, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack("<Q", rest[:8])
                value, rest = rest[8 : 8 + length], rest[8 + length :]
                assert rest[:1] == b"\n"
                rest = rest[1:]
            assert key.decode() not in entry
            entry[key.decode()] = value.decode()
            raw = rest
        return entry

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal() -> Iterator[StandInJournal]:
    folder = tempfile.mkdtemp(prefix="obcd-")  # short: a unix socket's path has at most 107 bytes
    stand_in = StandInJournal(Path(folder) / "socket")
    yield stand_in
    stand_in.close()
    shutil.rmtree(folder)


@pytest.fixture
def stderr() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(journal: StandInJournal, stderr: io.StringIO) -> Iterator[logging.Logger]:
    handler = JournalHandler(logging.StreamHandler(stderr), journal.path)
    logger = logging.Logger("obcd.test", logging.DEBUG)  # noqa: LOG001 - of this test alone, in no tree
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_record_is_one_entry_with_its_fields(log: logging.Logger, journal: StandInJournal, stderr: io.StringIO) -> None:
    extra = {"action": "request_failed", "job": "20261122T180105-3f9a1c", "line": 12, "endpoint": "gpu0:11434"}
    log.warning("line %d failed", 12, extra={**extra, "prompt": "secret"})

    assert journal.entries() == [
        {
            "MESSAGE": "line 12 failed",
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "obcd",
            "OBCD_ACTION": "request_failed",
            "OBCD_JOB": "20261122T180105-3f9a1c",
            "OBCD_LINE": "12",
            "OBCD_ENDPOINT": "gpu0:11434",
        }
    ]
    assert stderr.getvalue() == ""


@pytest.mark.parametrize(("level", "priority"), [(10, "7"), (20, "6"), (30, "4"), (40, "3"), (50, "2"), (25, "6")])
def test_level_becomes_a_priority(log: logging.Logger, journal: StandInJournal, level: int, priority: str) -> None:
    log.log(level, "x")

    (entry,) = journal.entries()
    assert entry["PRIORITY"] == priority


@pytest.mark.parametrize("text", ["two\nlines", "\n", "a=b\nPRIORITY=0\n", "über \U0001f600\n", "\x00\x1b[0m"])
def test_no_text_can_break_an_entry(log: logging.Logger, journal: StandInJournal, text: str) -> None:
    log.info("%s", text, extra={"job": text})

    (entry,) = journal.entries()
    assert (entry["MESSAGE"], entry["OBCD_JOB"], entry["PRIORITY"]) == (text, text, "6")


def test_lone_surrogates_are_escaped(log: logging.Logger, journal: StandInJournal) -> None:
    log.info("name %s", "a\udcff")

    assert journal.entries()[0]["MESSAGE"] == "name a\\udcff"


def test_traceback_stays_one_entry(log: logging.Logger, journal: StandInJournal) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")

    (entry,) = journal.entries()
    assert entry["MESSAGE"].startswith("it failed\nTraceback")
    assert entry["MESSAGE"].endswith("ValueError: no")


def test_what_is_too_big_goes_to_stderr_with_a_prefix_on_each_line(
    log: logging.Logger, journal: StandInJournal, stderr: io.StringIO
) -> None:
    log.error("%s\nend", "x" * 2**22)

    assert journal.entries() == []
    lines = stderr.getvalue().splitlines()
    assert [line[:4] for line in lines] == ["<3>x", "<3>e"]


@pytest.mark.parametrize("odd", ["\0", "\r", "\x0b", "\x1b[2J", "\x85", "\u2028", "\u202e", "\udcff"])
def test_entry_on_stderr_is_ended_by_nothing_but_its_own_line_feeds(odd: str) -> None:
    record = logging.makeLogRecord({"msg": f"a{odd}<0>b\\n\nc", "levelno": logging.ERROR})

    lines = PrefixFormatter().format(record).split("\n")

    assert lines == [f"<3>a{odd.encode('unicode_escape').decode()}<0>b\\n", "<3>c"]


def test_plain_line_is_one_line_and_a_traceback_keeps_its_own() -> None:
    try:
        raise ValueError("no\x1b[2J")
    except ValueError:
        record = logging.makeLogRecord(
            {"msg": "job %s", "args": ("a\nb\x1b[2Jü\\",), "levelname": "INFO", "exc_info": sys.exc_info()}
        )

    first, *rest = logs.PlainFormatter().format(record).split("\n")

    assert first.endswith(" INFO job a\\nb\\x1b[2Jü\\")
    assert (rest[0], rest[-1]) == ("Traceback (most recent call last):", "ValueError: no\\x1b[2J")


def test_journal_that_is_not_there_or_does_not_listen_costs_nothing(
    log: logging.Logger, journal: StandInJournal, stderr: io.StringIO
) -> None:
    for number in range(2000):  # more than a socket's queue holds
        log.info("%d", number)
    taken = len(journal.entries())
    journal.path.unlink()
    log.info("gone")

    assert taken < 2000
    assert len(stderr.getvalue().splitlines()) == 2000 - taken + 1
    assert stderr.getvalue().endswith("<6>gone\n")


def test_journal_is_told_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert not is_journal(file.fileno())
    assert not is_journal(99999)


@pytest.mark.parametrize("is_under_systemd", [True, False])
def test_set_up_logging_goes_where_stderr_goes(
    journal: StandInJournal, monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, is_under_systemd: bool
) -> None:
    root, obcd = logging.getLogger(), logging.getLogger("obcd")
    before = (list(root.handlers), root.level, obcd.level, logging.raiseExceptions)
    monkeypatch.setattr(logs, "is_journal", lambda: is_under_systemd)
    monkeypatch.setattr(logs, "JournalHandler", lambda stream: JournalHandler(stream, journal.path))
    monkeypatch.setattr("sys.stderr", stderr)
    try:
        logs.set_up_logging()
        logging.getLogger("obcd.x").info("ready", extra={"action": "ready"})
        logging.getLogger("obcd.x").debug("not told")
        for handler in root.handlers:
            handler.close()
    finally:
        root.handlers[:], logging.raiseExceptions = before[0], before[3]
        root.setLevel(before[1])
        obcd.setLevel(before[2])

    told = [entry["OBCD_ACTION"] for entry in journal.entries()]
    assert told == (["ready"] if is_under_systemd else [])
    assert stderr.getvalue().endswith("INFO ready\n") != is_under_systemd


def test_fields_are_a_fixed_list() -> None:
    record = logging.makeLogRecord({})
    assert not [name for name in FIELDS if hasattr(record, name)]
