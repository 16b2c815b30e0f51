"""Control calls, by `requests`: is it there, which version, which models. Never generates, never follows a redirect."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError as BodyError
from urllib3.exceptions import ReadTimeoutError

from obcd.clock import monotonic
from obcd.core.records import canonical_model
from obcd.logs import printable

#: Seconds for a connection, and for a whole probe; version and tags take no lock in Ollama: slowness means trouble.
CONNECT_SECONDS, PROBE_SECONDS = 5.0, 10.0
MAX_CONTROL_BYTES = 16 * 2**20
#: What is kept of a list of models: so many, with names and digests of so many characters.
MAX_MODELS, MAX_NAME = 1000, 200
SILENT = "it accepts connections but does not answer"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a control call found.

    Attributes:
        failure: Why the endpoint cannot be used, None when it can.
        version: E.g. `0.33.0`; stand-in servers say what they are in it.
        digests: `{canonical model name: digest}` of what it has.
    """

    failure: str | None
    version: str = ""
    digests: dict[str, str] = field(default_factory=dict)


def probe(url: str) -> Probe:
    """Ask for version and models; never raises, and ends by itself, whatever the server sends."""
    deadline = monotonic() + PROBE_SECONDS
    try:
        return _ask(url, deadline)
    except requests.RequestException as error:
        failure = _sentence(error)
    except ReadTimeoutError:
        failure = SILENT
    except BodyError:  # what `raw.read1` raises comes from urllib3 as it is
        failure = "the connection broke in the middle of its answer"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        failure = "it answers, but not as Ollama does: is this the right port?"
    return Probe(failure if monotonic() < deadline else SILENT)  # then it was we who broke the connection


def _ask(url: str, deadline: float) -> Probe:
    with _session(deadline) as session:
        version = _get(session, f"{url}/api/version", deadline).get("version", "")
        models = _get(session, f"{url}/api/tags", deadline).get("models") or []
    return Probe(None, printable(str(version)[:60]), _digests(models))


def _digests(models: list[dict[str, Any]]) -> dict[str, str]:
    """Return `{canonical model name: digest}` of what can be a model of Ollama."""
    digests: dict[str, str] = {}
    for item in models:
        name, digest = str(item["name"]), str(item.get("digest", ""))
        if len(name) <= MAX_NAME and name.isprintable():
            digests[canonical_model(name)] = printable(digest[:MAX_NAME])
        if len(digests) == MAX_MODELS:
            break
    return digests


@contextlib.contextmanager
def _session(deadline: float) -> Iterator[requests.Session]:
    """Give a session whose connections break at the deadline.

    The time limits of `requests` are between two bytes: a server that sends one now and then never exceeds them.
    """
    sockets: list[socket.socket] = []
    timer = threading.Timer(max(0.0, deadline - monotonic()), _break_off, (sockets,))
    timer.daemon = True
    timer.start()
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc from the environment
            for scheme in ("http://", "https://"):
                session.mount(scheme, _watched_adapter(sockets, deadline))
            yield session
    finally:
        timer.cancel()


def _break_off(sockets: list[socket.socket]) -> None:
    for sock in list(sockets):
        with contextlib.suppress(OSError):  # closed meanwhile
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _watched_adapter(sockets: list[socket.socket], deadline: float) -> HTTPAdapter:
    """Return an adapter that adds the socket of every connection to the list."""

    def watched(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)
                if monotonic() >= deadline:
                    raise TimeoutError

        return type("WatchedPool", (pool,), {"ConnectionCls": Connection})

    adapter = HTTPAdapter()
    manager: Any = adapter.poolmanager
    manager.pool_classes_by_scheme = {"http": watched(HTTPConnectionPool), "https": watched(HTTPSConnectionPool)}
    return adapter


def _get(session: requests.Session, url: str, deadline: float) -> dict[str, Any]:
    left = max(0.001, deadline - monotonic())
    limits = (min(CONNECT_SECONDS, left), left)
    with session.get(url, timeout=limits, allow_redirects=False, stream=True) as response:
        if response.is_redirect:
            raise requests.HTTPError(
                f"it answers with a redirect ({response.status_code}), which is not followed: configure its new address"
            )
        if response.status_code != 200:
            raise requests.HTTPError(f"it answers with status {response.status_code}")
        body = _read_body(response, deadline)
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _read_body(response: requests.Response, deadline: float) -> bytes:
    body = bytearray()
    read = getattr(response.raw, "read1", response.raw.read)  # urllib3 1 has no read1: it waits for the whole block
    while block := read(65536, decode_content=True):
        body += block
        if len(body) > MAX_CONTROL_BYTES:
            raise ValueError("larger than any list of models")
        if monotonic() > deadline:
            raise requests.Timeout
    return bytes(body)


def _sentence(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return str(error)
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within the time limit"
    if isinstance(error, requests.Timeout):
        return SILENT
    if "Name or service not known" in str(error) or "NameResolution" in str(error):
        return "its name cannot be resolved"
    if "refused" in str(error):
        return "connection refused: no server listens there"
    return f"not reachable ({type(error).__name__})"


def probe_all(urls: list[str]) -> list[Probe]:
    """Probe several endpoints at once; the slowest one decides how long it takes."""
    with ThreadPoolExecutor(max_workers=min(32, max(1, len(urls)))) as pool:
        return list(pool.map(probe, urls))
