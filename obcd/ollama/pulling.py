"""Make a server fetch a model, by `POST /api/pull`, and follow its progress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import requests

from obcd.clock import monotonic
from obcd.errors import NoEndpointError
from obcd.secret import Secret
from obcd.text import duration, printable

#: Seconds for a connection, and without news: the check of a large file's digest sends nothing for minutes.
CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 1800.0
MAX_LINE_BYTES = 2**16
GO_ON = "the received part is kept: the next pull continues there"


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a pull.

    Attributes:
        status: Ollama's words, e.g. `pulling 6a0746a1ec1a`, `verifying sha256 digest`.
        digest: The digest of the file, "" if the line is not about a file.
        total_bytes, completed_bytes: The sizes of that file; 0 if they are not stated.
    """

    status: str
    digest: str = ""
    total_bytes: int = 0
    completed_bytes: int = 0


def stream_pull(url: str, model: str, token: Secret | None = None) -> Iterator[Progress]:
    """Pull a model and yield the progress; when the iterator ends, the server has the model.

    Raises:
        NoEndpointError: If the server refuses, breaks off or reports an error; partial files stay for the next pull.
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
        raise NoEndpointError(f"the server stopped sending; {GO_ON}") from None
    except requests.RequestException:
        raise NoEndpointError(f"the connection broke (server stopped, restarted, or not running); {GO_ON}") from None


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
        if monotonic() - moved_at > SILENCE_SECONDS:  # it sends lines, but no progress
            raise NoEndpointError(f"{model}: no progress for {duration(SILENCE_SECONDS)}; {GO_ON}")
    if response.status_code != 200:
        raise NoEndpointError(f"{model}: the server answers with status {response.status_code}")
    if last.status != "success":
        raise NoEndpointError(f"{model}: the server's reply ended early; {GO_ON}")


def _lines(response: requests.Response) -> Iterator[bytes]:
    """Yield the lines received, and an empty one for each piece of a line, so that the caller sees a server that drips.

    Raises:
        NoEndpointError: If a line is longer than any of Ollama's.
    """
    pending = b""
    for piece in response.iter_content(chunk_size=MAX_LINE_BYTES if response.status_code != 200 else 512):
        *lines, pending = (pending + piece).split(b"\n")
        if len(pending) > MAX_LINE_BYTES:
            raise NoEndpointError(f"the server sends a line of more than {MAX_LINE_BYTES} bytes: it is not Ollama")
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
