"""Having a server fetch a model, by `POST /api/pull`, and following how far it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import requests

from obcd.clock import monotonic
from obcd.errors import NoEndpointError
from obcd.secret import Secret
from obcd.text import duration, printable

#: Seconds for a connection, and without anything new: checking the digest of a large file says nothing for minutes.
CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 1800.0
MAX_LINE_BYTES = 2**16
GO_ON = "what came stays: the next pull goes on where it was"


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a pull.

    Attributes:
        status: Ollama's words, e.g. `pulling 6a0746a1ec1a`, `verifying sha256 digest`.
        digest: "" when it is not about a file.
        total_bytes, completed_bytes: Of that file; 0 when they are not told.
    """

    status: str
    digest: str = ""
    total_bytes: int = 0
    completed_bytes: int = 0


def stream_pull(url: str, model: str, token: Secret | None = None) -> Iterator[Progress]:
    """Pull a model and yield what the server tells; when it returns, the model is there.

    Raises:
        NoEndpointError: If the server refuses, breaks off or says an error; partial files stay for the next pull.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc from the environment
            if token is not None:
                session.headers["Authorization"] = f"Bearer {token.reveal()}"
            with session.post(
                f"{url}/api/pull", json={"model": model, "stream": True}, stream=True,
                timeout=(CONNECT_SECONDS, SILENCE_SECONDS), allow_redirects=False,
            ) as response:  # fmt: skip
                yield from _progress(response, model)
    except requests.Timeout:
        raise NoEndpointError(f"the server went silent; {GO_ON}") from None
    except requests.RequestException:
        raise NoEndpointError(f"the server broke off (it was ended or restarted, or does not run); {GO_ON}") from None


def _progress(response: requests.Response, model: str) -> Iterator[Progress]:
    last, moved_at = Progress(""), monotonic()
    for line in _lines(response):
        document = _read_line(line)
        if document is not None:
            if "error" in document or response.status_code != 200:
                raise NoEndpointError(f"{model}: {_words(document.get('error', response.status_code))}")
            progress = Progress(
                status=_words(document.get("status", "")),
                digest=_words(document.get("digest", "")),
                total_bytes=_count(document.get("total")),
                completed_bytes=_count(document.get("completed")),
            )
            if progress != last:
                last, moved_at = progress, monotonic()
                yield progress
        if monotonic() - moved_at > SILENCE_SECONDS:  # it talks, but of nothing new
            raise NoEndpointError(f"{model}: nothing more came for {duration(SILENCE_SECONDS)}; {GO_ON}")
    if response.status_code != 200:
        raise NoEndpointError(f"{model}: the server answers with status {response.status_code}")
    if last.status != "success":
        raise NoEndpointError(f"{model}: the server ended in the middle; {GO_ON}")


def _lines(response: requests.Response) -> Iterator[bytes]:
    """Yield the lines that came, an empty one for each piece of a line: a server that drips is not waited for in vain.

    Raises:
        NoEndpointError: If one is longer than any of Ollama's.
    """
    pending = b""
    for piece in response.iter_content(chunk_size=MAX_LINE_BYTES if response.status_code != 200 else 512):
        *lines, pending = (pending + piece).split(b"\n")
        if len(pending) > MAX_LINE_BYTES:
            raise NoEndpointError(f"the server sends a line of more than {MAX_LINE_BYTES} bytes: it is no Ollama")
        yield from lines or [b""]
    yield pending


def _read_line(line: bytes) -> dict[str, object] | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _words(value: object) -> str:
    return printable(str(value)[:300])


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
