"""Run the process that is connected to Ray, under time limits: what Ray does to it does not happen to its caller.

    obcd ray … ─► link ── order (JSON, argument) ──► obcd.ray.session ──► Ray
                       ◄── one JSON object a line ── stdout; what Ray itself writes: stderr, of which the end is kept

Ray tries for minutes to reach a head that is not there, retries a refused token, and ends its process when the head
stays away for a minute (measured with Ray 2.60).
"""

from __future__ import annotations

import json
import logging
import os
import re
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import IO, Self, cast

from obcd.clock import monotonic
from obcd.errors import ExitCode, NoEndpointError, ObcdError
from obcd.parent_death import VARIABLE as TIE
from obcd.text import printable

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "obcd.ray.session")
#: Seconds until the session must be connected; seconds after which a session that says nothing hangs; for its end.
CONNECT_SECONDS, SILENCE_SECONDS, END_SECONDS = 60.0, 120.0, 10.0
#: Bytes of what Ray wrote that are kept; most characters of Ray's words in a message.
TAIL_BYTES, MAX_WORDS = 16384, 300

UNAUTHENTICATED = (
    "the Ray cluster {place} requires a token and did not accept this user's: set RAY_AUTH_MODE=token, and "
    "RAY_AUTH_TOKEN_PATH to the file with the cluster's token (`ray get-auth-token` shows it on the head)"
)
NO_HEAD = (
    "no Ray head answers {place}: start one (ray start --head), or name it with --address HOST:PORT; "
    "`ray status` on the head shows its address"
)
#: What Ray writes when a token is missing or wrong. Such a session would retry: it is ended at once.
REFUSED = re.compile(r"InvalidAuthToken|Unauthenticated|no authentication token was found|AuthenticationError")
#: (what Ray writes, the message), the first that is found counts; recorded with Ray 2.60
CAUSES = (
    (REFUSED, UNAUTHENTICATED),
    (
        re.compile(r"Version mismatch: (.*)", re.DOTALL),
        "the Ray cluster {place} runs other versions of Ray or Python than obcd here: install the cluster's ({words})",
    ),
    (
        re.compile(r"Could not find any running Ray instance|Failed to connect to (GCS|Ray)|No Ray head|timed out"),
        NO_HEAD,
    ),
)


class Said(StrEnum):
    """The kinds of lines of a session."""

    CONNECTED = "connected"
    BEAT = "beat"  # it lives; with a document for `obcd ray status`
    LOG = "log"  # a line for the log
    RESULT = "result"  # it has done its work, and ends
    FAILED = "failed"  # it ends with a message; `code` is its exit code, None if Ray failed


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a session, e.g. `{"kind": "log", "level": 30, "text": "…"}`."""

    kind: Said
    document: Mapping[str, object]


class RaySession:
    """A session under way; leaving the block ends it.

    Args:
        order: What it is to do; see `obcd.ray.session`.
    """

    def __init__(self, order: Mapping[str, object]) -> None:
        self._place = place_of(str(order["address"]))
        self._process = subprocess.Popen(
            [*COMMAND, json.dumps(order)],
            env={**os.environ, "PYTHONSAFEPATH": "1", TIE: str(os.getpid()), "RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._tail = b""
        self._rest = b""
        self.is_connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def lines(self) -> Iterator[Line]:
        """Yield what it says, until it has its result.

        Raises:
            NoEndpointError: If it cannot be connected; the message is the reason.
            LostError: If it ends or hangs after that.
            ObcdError: What stops it for another reason.
        """
        limit = monotonic() + CONNECT_SECONDS
        with selectors.DefaultSelector() as selector:
            for stream in (self._process.stdout, self._process.stderr):
                selector.register(cast("IO[bytes]", stream), selectors.EVENT_READ)
            while selector.get_map():
                events = selector.select(max(0.0, limit - monotonic()))
                if not events and monotonic() >= limit:
                    raise self._failure("timed out")
                for key, _ in events:
                    stream = cast("IO[bytes]", key.fileobj)
                    data = os.read(stream.fileno(), 65536)
                    if not data:
                        selector.unregister(stream)
                    elif stream is self._process.stderr:
                        self._keep(data)
                    else:
                        for line in self._split(data):
                            limit = monotonic() + SILENCE_SECONDS
                            yield line
                            if line.kind is Said.RESULT:
                                return
        code = self._process.wait()  # both its pipes have ended
        raise self._failure(f"ended by signal {-code}" if code < 0 else "")

    def _keep(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if not self.is_connected and REFUSED.search(self._tail.decode("utf-8", "replace")):
            raise self._failure("")

    def _split(self, data: bytes) -> Iterator[Line]:
        *raw, self._rest = (self._rest + data).split(b"\n")
        for item in raw:
            try:
                document = json.loads(item)
                line = Line(Said(document.pop("kind")), document)
            except (ValueError, KeyError, AttributeError, TypeError):  # Ray writes to standard output too
                self._keep(item + b"\n")
                continue
            self.is_connected = self.is_connected or line.kind is Said.CONNECTED
            if line.kind is Said.FAILED:
                raise self._failed(line)
            if line.kind is Said.LOG:
                logger.log(
                    cast("int", document["level"]),
                    "%s",
                    document["text"],
                    extra=cast("dict[str, object]", document["extra"]),
                )
            yield line

    def _failed(self, line: Line) -> ObcdError:
        text, code = str(line.document["text"]), line.document["code"]
        if code is None:
            return self._failure(text)
        error = ObcdError(text)
        error.exit_code = ExitCode(cast("int", code))
        return error

    def _failure(self, words: str) -> NoEndpointError:
        return NoEndpointError(explain(self._tail.decode("utf-8", "replace") + "\n" + words, self._place))


def place_of(address: str) -> str:
    """Return how messages name a cluster."""
    return "on this machine (--address auto)" if address == "auto" else f"at {printable(address)}"


def explain(text: str, place: str) -> str:
    """Return why there is no connection to Ray, from what it wrote, as one sentence."""
    for pattern, sentence in CAUSES:
        if found := pattern.search(text):
            words = " ".join(found[found.lastindex].split())[:MAX_WORDS] if found.lastindex else ""
            return sentence.format(place=place, words=printable(words))
    said = [line.strip() for line in text.splitlines() if line.strip()]
    words = f"its last words: {printable(said[-1][:MAX_WORDS])}" if said else "it said nothing"
    return f"the connection to Ray {place} ended: see `ray status` and the logs of the head; {words}"
