"""The account of a simulated server: every generation request with its times, and the use of the slots.

Tests and benchmarks rely on these numbers instead of the client's, so they are taken where slots are assigned and
freed. An account grows until it is reset or full; entries that do not fit are counted as `dropped`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

from obcd.clock import monotonic

#: entries kept of each list; about 200 MB when full
LIMIT = 1_000_000


def prompt_key(prompt: str) -> str:
    """Return the name of a prompt in the account: the first 16 hex characters of its SHA-256.

    The prompt is the content of the last message (chat) or `prompt` (generate), in UTF-8.
    """
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class PromptTokens(NamedTuple):
    """The tokens of a prompt: those that were evaluated, and those that came from the prefix cache."""

    evaluated: int
    cached: int


class RequestShown(TypedDict):
    """A request as /simulated/requests shows it; see `RequestRecord`."""

    prompt: str
    attempt: int
    arrived: float
    started: float | None
    finished: float | None
    outcome: str | None
    evaluated_tokens: int | None
    cached_tokens: int | None


class RequestsShown(TypedDict):
    """The body of GET /simulated/requests."""

    in_flight: int
    max_in_flight: int
    waiting: int
    max_waiting: int
    preloads: int
    dropped: int
    requests: list[RequestShown]


class SlotsShown(TypedDict):
    """The body of GET /simulated/slots; changes are `[(time, busy, waiting), …]`."""

    slots: int
    busy: int
    waiting: int
    now: float
    busy_slot_seconds: float
    changes: list[tuple[float, int, int]]


@dataclass(slots=True)
class RequestRecord:
    """One generation request in the account; times are monotonic seconds of the server."""

    prompt: str  # see `prompt_key`
    attempt: int  # number of times this prompt has come, over all servers of the process; counted from 1
    arrived: float
    number: int = 0  # counted from 1 at each server
    started: float | None = None  # got its slot
    finished: float | None = None
    outcome: str | None = None  # `answered`, `cancelled` (the client left), `failed`
    tokens: PromptTokens | None = None  # of a generation that was answered

    def as_json(self) -> RequestShown:
        """Return the record as /simulated/requests shows it."""
        return {
            "prompt": self.prompt,
            "attempt": self.attempt,
            "arrived": self.arrived,
            "started": self.started,
            "finished": self.finished,
            "outcome": self.outcome,
            "evaluated_tokens": None if self.tokens is None else self.tokens.evaluated,
            "cached_tokens": None if self.tokens is None else self.tokens.cached,
        }


class Attempts:
    """Counts how often each prompt has come, over all servers of a process."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}  #: {prompt key: number of times}

    def next(self, key: str) -> int:
        """Return 1 for the first time that a prompt comes, 2 for the second time, and so on."""
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        return count

    def reset(self) -> None:
        """Forget every prompt."""
        self._counts.clear()


class AccountFile:
    """A file of arrivals and ends, written as they happen, so that it is complete even if the server is killed.

    Each is one complete line after those that other servers wrote to the same file:
    `{"pid": 812, "server": 0, "request": 17, "prompt": "9f86d081884c7d65", "event": "arrived", "at": 8123.25}`.
    `event` is `arrived` or an outcome; `at` is monotonic seconds of the machine; `request` counts from 1. The line of a
    generation that was answered ends with `"evaluated_tokens": 31, "cached_tokens": 480`, of its prompt.

    Raises:
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, server: int, record: RequestRecord, event: str, at: float) -> None:
        """Write a line; it is in the file when this returns, even if the process then dies."""
        line: dict[str, object] = {"pid": os.getpid(), "server": server, "request": record.number}
        line |= {"prompt": record.prompt, "event": event, "at": at}
        if record.tokens is not None:
            line |= {"evaluated_tokens": record.tokens.evaluated, "cached_tokens": record.tokens.cached}
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


class Account:
    """The account of one server; used on the event loop's thread only.

    Args:
        slots: of the server.
        attempts: counted over all servers of the process.
        limit: entries kept of each list; 0 only counts.
        file: a file to which arrivals and ends are also written.
        server: the server's number in its process, for that file.
    """

    def __init__(
        self,
        slots: int,
        attempts: Attempts,
        limit: int = LIMIT,
        *,
        file: AccountFile | None = None,
        server: int = 0,
    ) -> None:
        self._slots = slots
        self._attempts = attempts
        self._limit = limit
        self._file = file
        self._server = server
        self._arrivals = 0
        self._open: dict[int, RequestRecord] = {}  #: {id of a record: the record}, requests in progress
        self._busy = 0  # requests that hold a slot
        self._waiting = 0  # requests received that hold no slot yet
        self.reset()

    def reset(self) -> None:
        """Start a new experiment: forget finished requests and attempts; those in progress stay."""
        self._attempts.reset()
        self._records = list(self._open.values())
        self._max_busy, self._max_waiting = self._busy, self._waiting
        self._changed = monotonic()
        self._busy_seconds = 0.0
        self._changes = [(self._changed, self._busy, self._waiting)]
        self._dropped = 0
        self._preloads = 0

    def count_preload(self) -> None:
        """Record a request that only loads or unloads."""
        self._preloads += 1

    def arrive(self, prompt: str) -> RequestRecord:
        """Record a generation request, which now waits for a slot."""
        key = prompt_key(prompt)
        self._arrivals += 1
        record = RequestRecord(key, self._attempts.next(key) if self._limit else 1, monotonic(), self._arrivals)
        self._write(record, "arrived", record.arrived)
        self._open[id(record)] = record
        if len(self._records) < self._limit:
            self._records.append(record)
        else:
            self._dropped += 1
        self._waiting += 1
        self._max_waiting = max(self._max_waiting, self._waiting)
        self._note_change(record.arrived)
        return record

    def count_text(self, text: str) -> int:
        """Return how often a further text of a request has come; the request stands in the account by its first one."""
        return self._attempts.next(prompt_key(text)) if self._limit else 1

    def start(self, record: RequestRecord) -> None:
        """Record that a request got its slot."""
        record.started = monotonic()
        self._waiting -= 1
        self._note_change(record.started, taken=1)

    def finish(self, record: RequestRecord, outcome: str, tokens: PromptTokens | None = None) -> None:
        """Record the end of a request, and the tokens of its prompt; its slot, if it had one, is free again."""
        record.finished, record.outcome, record.tokens = monotonic(), outcome, tokens
        self._write(record, outcome, record.finished)
        del self._open[id(record)]
        if record.started is None:
            self._waiting -= 1
            self._note_change(record.finished)
        else:
            self._note_change(record.finished, taken=-1)

    def requests(self) -> RequestsShown:
        """Return the body of GET /simulated/requests."""
        return {
            "in_flight": self._busy,
            "max_in_flight": self._max_busy,
            "waiting": self._waiting,
            "max_waiting": self._max_waiting,
            "preloads": self._preloads,
            "dropped": self._dropped,
            "requests": [record.as_json() for record in self._records],
        }

    def slots(self) -> SlotsShown:
        """Return the body of GET /simulated/slots; `now` and the changes are on the same monotonic clock."""
        now = monotonic()
        return {
            "slots": self._slots,
            "busy": self._busy,
            "waiting": self._waiting,
            "now": now,
            "busy_slot_seconds": self._busy_seconds + self._busy * (now - self._changed),
            "changes": self._changes,
        }

    def _write(self, record: RequestRecord, event: str, at: float) -> None:
        if self._file is not None:
            self._file.write(self._server, record, event, at)

    def _note_change(self, now: float, taken: int = 0) -> None:
        self._busy_seconds += self._busy * (now - self._changed)
        self._changed = now
        self._busy += taken
        self._max_busy = max(self._max_busy, self._busy)
        if len(self._changes) < self._limit:
            self._changes.append((now, self._busy, self._waiting))
        else:
            self._dropped += 1
