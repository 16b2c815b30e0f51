"""Probe /api/ps of every server of the host, each in its own thread, without waiting for any.

`GET /api/ps` takes the locks of Ollama's scheduler and runners: if it hangs, the scheduler is wedged
(ollama v0.33.0, server/sched.go). It neither loads nor generates; the other calls of this module do not either.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from obcd.clock import monotonic
from obcd.errors import EXHAUSTED
from obcd.host.watch.watch_rules import ProbeAnswer, WatchLimits
from obcd.ollama.loaded import Loaded, read_loaded
from obcd.text import printable

#: Seconds between two probes of a server that answers, and of one that does not (usually it is starting).
PERIOD, SHORT_PERIOD = WatchLimits().probe, 1.0
#: Seconds for a whole probe. An unload holds the runner's lock for up to 5 s, so only three hung probes in a row count.
#: With these numbers a server that hangs just after a probe gets TERM at most 16 s later.
LIMIT = 4.0
MAX_BYTES = 2**20
#: Exceptions from reading a response that is not Ollama's; OverflowError is `1e999` as a whole number.
STRANGE = (
    http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProbe:
    """The result of a probe; the fields are those of `watch_rules.Facts`.

    Attributes:
        version: Ollama's version, "" until it is known.
    """

    number: int = 0
    answer: ProbeAnswer = ProbeAnswer.UNKNOWN
    models: tuple[Loaded, ...] = ()
    version: str = ""


class Prober:
    """Probes some servers; only the requests run in other threads, all else in the caller's.

    Args:
        urls: {label: base URL}.
        period: Seconds between two probes of a server that answers.
    """

    def __init__(self, urls: Mapping[str, str], period: float = PERIOD) -> None:
        self._targets = {label: _Target(url, period) for label, url in urls.items()}

    def tick(self, now: float) -> None:
        """Take finished probes, end those that take too long, and start those that are due."""
        for target in self._targets.values():
            target.tick(now)

    def latest(self, label: str) -> ServerProbe:
        """Return the last probe of a server."""
        return self._targets[label].latest

    def forget(self, label: str) -> None:
        """Probe soon, with the version: the server is a new process."""
        self._targets[label].forget()

    def ask_all(self) -> dict[str, ServerProbe]:
        """Probe every server once, now, and return the results; takes up to `LIMIT` seconds."""
        asked = {label: _Asking(target.url, wants_version=True) for label, target in self._targets.items()}
        deadline = monotonic() + LIMIT
        for asking in asked.values():
            asking.thread.join(max(0.0, deadline - monotonic()))
        return {label: asking.outcome() for label, asking in asked.items()}


class _Target:
    """One server, and its probe under way."""

    def __init__(self, url: str, period: float) -> None:
        self.url = url
        self._period = period
        self.latest = ServerProbe()
        self._asking: _Asking | None = None
        self._due = 0.0

    def forget(self) -> None:
        if self._asking is not None:
            self._asking.outcome()  # of the old process: it must not count for the new one
        self._asking = None
        self._due = 0.0
        self.latest = ServerProbe(number=self.latest.number)

    def tick(self, now: float) -> None:
        asking = self._asking
        if asking is not None and (not asking.thread.is_alive() or now >= asking.started + asking.limit):
            found = asking.outcome()
            self._asking = None
            self.latest = ServerProbe(
                number=self.latest.number + 1, answer=found.answer, models=found.models,
                version=found.version or self.latest.version,
            )  # fmt: skip
            self._due = asking.started + (self._period if found.answer is ProbeAnswer.ANSWERED else SHORT_PERIOD)
        if self._asking is None and now >= self._due:
            self._asking = _Asking(self.url, wants_version=not self.latest.version)


class _Asking:
    """One probe under way in a thread; `outcome` ends it if it still runs."""

    def __init__(self, url: str, *, wants_version: bool) -> None:
        self.started = monotonic()
        self._address = urlsplit(url)
        self._wants_version = wants_version
        self._socket: socket.socket | None = None
        self._found: ServerProbe | None = None
        self.thread = threading.Thread(target=self._ask, name="probe", daemon=True)
        self.thread.start()

    @property
    def limit(self) -> float:
        """Return the limit of the whole probe: after the response to /api/ps, the version has its own limit."""
        return LIMIT if self._found is None else 2 * LIMIT

    def outcome(self) -> ServerProbe:
        """Return the result; a probe that is not finished counts as hung."""
        found = self._found
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                sock.shutdown(socket.SHUT_RDWR)
        return found or ServerProbe(answer=ProbeAnswer.HUNG)

    def _ask(self) -> None:
        try:
            self._found = ServerProbe(answer=ProbeAnswer.ANSWERED, models=read_loaded(self._get("/api/ps")))
        except TimeoutError:
            self._found = ServerProbe(answer=ProbeAnswer.HUNG)
        except OSError as error:  # refused, reset, closed without a response: it is starting or dying
            is_ours = error.errno in EXHAUSTED  # this process lacks resources, which says nothing about the server
            self._found = ServerProbe(answer=ProbeAnswer.UNKNOWN if is_ours else ProbeAnswer.REFUSED)
        except STRANGE:
            self._found = ServerProbe(answer=ProbeAnswer.STRANGE)
        else:
            self._ask_version(self._found)

    def _ask_version(self, found: ServerProbe) -> None:
        """Request the version too; its absence says nothing about the server's health."""
        if not self._wants_version:
            return
        with contextlib.suppress(OSError, *STRANGE):
            version = str(self._get("/api/version").get("version", ""))
            self._found = replace(found, version=printable(version[:60]))

    def _get(self, path: str) -> dict[str, object]:
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=LIMIT)
        try:
            connection.connect()
            self._socket = connection.sock
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            document = json.loads(response.read(MAX_BYTES))
        finally:
            self._socket = None
            connection.close()
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
