"""Control calls, made with `requests`: reachability, version, models, loaded models. They never follow a redirect, and
generate nothing except the one token that distinguishes a slow server from one that hangs.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError as BodyError
from urllib3.exceptions import ReadTimeoutError

from obcd.clock import monotonic
from obcd.config.endpoints import misplaced_path
from obcd.core.request.records import PATHS, Signature, canonical_model, token_body, unload_body
from obcd.errors import NoEndpointError
from obcd.ollama.description import Description, read_description
from obcd.ollama.loaded import Loaded, read_loaded
from obcd.secret import Secret
from obcd.text import printable

#: Seconds for a connection, and for a whole probe; version and tags take no lock in Ollama, so slowness means trouble.
CONNECT_SECONDS, PROBE_SECONDS = 5.0, 10.0
MAX_CONTROL_BYTES = 16 * 2**20
#: Most models of a list that are kept, and most characters of their names and digests.
MAX_MODELS, MAX_NAME = 1000, 200
#: {status: the advice}
NO_ENTRY = {
    401: "the token is missing or wrong: see token_file in [ollama_instances]",
    403: "check its address, the proxy in front of it, and token_file in [ollama_instances]",
}
#: If a token waited so many seconds for its model, the server has loaded the model for it; up to v0.24 the time of a
#: loaded model is up to 0.18 s.
RELOADED_SECONDS = 0.3
SILENT = "it accepts connections but does not answer"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Probe:
    """The findings of a control call.

    Attributes:
        failure: Why the endpoint cannot be used, None when it can.
        version: E.g. `0.33.0`; stand-in servers are recognized by it.
        digests: `{canonical model name: digest}` of its models.
        peer: The address at which it was reached, "" if it was not reached.
    """

    failure: str | None
    version: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    peer: str = ""


@dataclass(slots=True)
class _Line:
    """The connections of one probe: their sockets, to close them at the deadline, and the addresses they reached."""

    deadline: float
    sockets: list[socket.socket] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)


def probe(url: str, token: Secret | None = None) -> Probe:
    """Request version and models; never raise, and end in time, whatever the server sends.

    Args:
        token: Sent as `Authorization: Bearer …`.
    """
    try:
        return _call(token, lambda session, line: _ask(session, url, line))
    except ControlError as error:
        advice = misplaced_path(url)
        return Probe(f"{error}; {advice}" if advice else str(error))


def ask_loaded(url: str, token: Secret | None = None, seconds: float | None = None) -> tuple[Loaded, ...]:
    """Return the models that the server has in memory.

    Args:
        seconds: Time limit; None: as for a probe.

    Raises:
        ControlError: If the server does not return them.
    """
    return _call(token, lambda session, line: read_loaded(_exchange(session, f"{url}/api/ps", line.deadline)), seconds)


def ask_digests(url: str, token: Secret | None = None) -> dict[str, str]:
    """Return the server's models: `{canonical name: digest}`.

    Raises:
        ControlError: If the server does not list them.
    """
    return _call(token, lambda session, line: _digests(_ask_models(session, url, line)))


def ask_description(url: str, model: str, token: Secret | None = None) -> Description:
    """Return how the server describes a model; nothing is loaded.

    Raises:
        ControlError: If the server does not describe the model.
    """
    body = {"model": model}
    return _call(
        token, lambda session, line: read_description(_exchange(session, f"{url}/api/show", line.deadline, body))
    )


def ask_trained_context(url: str, model: str, token: Secret | None = None) -> int:
    """Return the longest context of a model itself, in tokens; 0 if the server does not state it.

    Raises:
        ControlError: If the server does not describe the model.
    """
    return ask_description(url, model, token).trained_context


def ask_version(url: str, token: Secret | None = None) -> str:
    """Return the server's version, e.g. `0.33.0`.

    Raises:
        ControlError: If the server does not state it.
    """
    return _call(
        token, lambda session, line: str(_exchange(session, f"{url}/api/version", line.deadline)["version"])[:MAX_NAME]
    )


def find_shared(models: Sequence[Loaded], url: str, model: str, token: Secret | None = None) -> Loaded | None:
    """Return the loaded model of another name that has the same weights, None if there is none.

    Ollama has one process for all names of the same weights, and lists only the name that loaded it (server/sched.go).
    """
    if not models:
        return None
    try:
        digests = ask_digests(url, token)  # a copy of a model has its digest
        copied = (item for item in models if digests.get(canonical_model(item.name), item.name) == digests.get(model))
        if copy := next(copied, None):
            return copy
        weights = ask_description(url, model, token).weights
        named = (item for item in models if weights and ask_description(url, item.name, token).weights == weights)
        return next(named, None)
    except ControlError:
        return None


def ask_one_token(url: str, signature: Signature, seconds: float, token: Secret | None = None) -> float:
    """Make the model compute one token, within so many seconds.

    Returns:
        The seconds that the token waited for the model to be loaded: 0.18 at most if it was loaded.

    Raises:
        SilentError: If there is no reply.
        ControlError: If the reply is an error, which shows that the server does not hang.
    """
    address = url + PATHS[signature.kind]
    reply = _call(
        token,
        lambda session, line: _exchange(session, address, line.deadline, token_body(signature)),
        seconds,
    )
    took = reply.get("load_duration", 0)
    return took * 1e-9 if isinstance(took, int) else 0.0


def unload(url: str, model: str, token: Secret | None = None) -> None:
    """Make the server end a model's process; `ask_loaded` no longer lists the model once the process has ended.

    Raises:
        ControlError: If the server does not accept that.
    """
    _call(token, lambda session, line: _exchange(session, f"{url}/api/chat", line.deadline, unload_body(model)))


class ControlError(NoEndpointError):
    """A control call failed; the message says why, without the endpoint's name."""


class SilentError(ControlError):
    """The server accepted the call and did not reply in time."""


def _call(token: Secret | None, ask: Callable[[requests.Session, _Line], T], seconds: float | None = None) -> T:
    """Make a control call, which ends in time, whatever the server sends.

    Args:
        seconds: Time limit for the whole call; None: as for a probe.

    Raises:
        ControlError: For every kind of failure; `SilentError` if the time limit is over.
    """
    line = _Line(monotonic() + (PROBE_SECONDS if seconds is None else seconds))
    try:
        with _session(token, line) as session:
            return ask(session, line)
    except requests.RequestException as error:
        failure = _sentence(error)
    except ReadTimeoutError:
        failure = SILENT
    except BodyError:  # `raw.read1` passes urllib3's own exceptions on
        failure = "the connection broke in the middle of its answer"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        failure = "it replies, but not like Ollama: is this the right port?"
    if failure == SILENT or monotonic() >= line.deadline:  # then obcd itself broke the connection
        raise SilentError(SILENT)
    raise ControlError(failure)


def _ask(session: requests.Session, url: str, line: _Line) -> Probe:
    version = _exchange(session, f"{url}/api/version", line.deadline).get("version", "")
    digests = _digests(_ask_models(session, url, line))
    return Probe(None, printable(str(version)[:60]), digests, line.peers[-1] if line.peers else "")


def _ask_models(session: requests.Session, url: str, line: _Line) -> list[dict[str, Any]]:
    return _exchange(session, f"{url}/api/tags", line.deadline).get("models") or []


def _digests(models: list[dict[str, object]]) -> dict[str, str]:
    """Return `{canonical model name: digest}` of the entries that can be models of Ollama."""
    digests: dict[str, str] = {}
    for item in models:
        name, digest = str(item["name"]), str(item.get("digest", ""))
        if len(name) <= MAX_NAME and name.isprintable():
            digests[canonical_model(name)] = printable(digest[:MAX_NAME])
        if len(digests) == MAX_MODELS:
            break
    return digests


@contextlib.contextmanager
def _session(token: Secret | None, line: _Line) -> Iterator[requests.Session]:
    """Provide a session whose connections break at the deadline.

    The time limits of `requests` apply between two bytes: a server that sends a byte now and then never exceeds them.
    """
    timer = threading.Timer(max(0.0, line.deadline - monotonic()), _break_off, (line.sockets,))
    timer.daemon = True
    timer.start()
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc from the environment
            if token is not None:
                session.headers["Authorization"] = f"Bearer {token.reveal()}"
            for scheme in ("http://", "https://"):
                session.mount(scheme, _watched_adapter(line))
            yield session
    finally:
        timer.cancel()


def _break_off(sockets: list[socket.socket]) -> None:
    for sock in list(sockets):
        with contextlib.suppress(OSError):  # closed meanwhile
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _watched_adapter(line: _Line) -> HTTPAdapter:
    """Return an adapter that records every connection."""

    def watched(pool: Any) -> type:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                line.sockets.append(self.sock)
                with contextlib.suppress(OSError):  # gone again
                    line.peers.append(str(self.sock.getpeername()[0]))
                if monotonic() >= line.deadline:
                    raise TimeoutError

        return type("WatchedPool", (pool,), {"ConnectionCls": Connection})

    adapter = HTTPAdapter()
    manager: Any = adapter.poolmanager
    manager.pool_classes_by_scheme = {"http": watched(HTTPConnectionPool), "https": watched(HTTPSConnectionPool)}
    return adapter


def _exchange(
    session: requests.Session, url: str, deadline: float, body: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Request a JSON object; by POST if there is a body."""
    left = max(0.001, deadline - monotonic())
    limits = (min(CONNECT_SECONDS, left), left)
    method = "GET" if body is None else "POST"
    with session.request(method, url, json=body, timeout=limits, allow_redirects=False, stream=True) as response:
        if response.is_redirect:
            raise requests.HTTPError(
                f"it answers with a redirect ({response.status_code}), which is not followed: configure its new address"
            )
        if response.status_code in (401, 403):
            raise requests.HTTPError(f"access denied (status {response.status_code}): {NO_ENTRY[response.status_code]}")
        if response.status_code != 200:
            raise requests.HTTPError(f"it answers with status {response.status_code}")
        raw = _read_body(response, deadline)
    document = json.loads(raw)
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


def probe_all(urls: Sequence[str], tokens: Sequence[Secret | None] = ()) -> list[Probe]:
    """Probe several endpoints at once; the slowest one determines the duration.

    Args:
        tokens: One for each, or none at all.
    """
    with ThreadPoolExecutor(max_workers=min(32, max(1, len(urls)))) as pool:
        return list(pool.map(probe, urls, tokens or [None] * len(urls)))
