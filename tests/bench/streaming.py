"""`streaming`: what it costs to have an answer streamed, so that one request in flight shows whether its server hangs.

obcd does not do that, and this says why: one request in 16 costs more than what is left to be saved. It asks a server
that answers nobody for one token instead (`core.endpoint.recovery_steps`).
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from obcd.ollama.client import encode_body
from obcd.ollama.transport import Transport
from tests.bench.figures import Figure
from tests.bench.servers import MODEL, Servers
from tests.bench.spool import fresh_spool

COUNT, SLOTS, SECONDS, TOKENS = 10, 16, 2.0, 250
#: Seconds between two looks at a stream that is not read as it comes.
LOOK_SECONDS = 0.25


def measure() -> list[Figure]:
    """Ask ten times for an answer of 250 words in two seconds, in each of three ways; one request at a time."""
    with (
        fresh_spool() as spool,
        Servers(1, SLOTS, SECONDS, spool.folder / "server.log", "--answer-tokens", TOKENS) as servers,
    ):
        (url,) = servers.urls
        whole, whole_seconds = _time(lambda: _ask_whole(url))
        streamed, _ = _time(lambda: _ask_streamed(url))
        looked, looked_seconds = _time(lambda: _ask_and_look(url))
    return [
        Figure("CPU of an answer of 250 tokens in one piece", whole, "ms"),
        Figure("of one that is streamed and read as it comes", streamed, "ms"),
        Figure("of one that is streamed and read four times a second", looked, "ms"),
        Figure("one in 16 streamed, read as it comes: more CPU a prompt", (streamed - whole) / SLOTS, "ms"),
        Figure("one in 16 streamed, read four times a second: more CPU a prompt", (looked - whole) / SLOTS, "ms"),
        Figure("its slot is given the next request later by", 1000 * (looked_seconds - whole_seconds), "ms"),
    ]


def _time(ask: Callable[[], dict[str, Any]]) -> tuple[float, float]:
    """Return the CPU milliseconds and the seconds of one answer."""
    ask()
    began, cpu = time.monotonic(), time.process_time()
    for _ in range(COUNT):
        assert ask()["done"]
    return 1000 * (time.process_time() - cpu) / COUNT, (time.monotonic() - began) / COUNT


def _body(*, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    return encode_body({"model": MODEL, "messages": messages, "stream": stream, "options": {"num_ctx": 8192}})


def _ask_whole(url: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Transport(url).post("/api/chat", _body(stream=False)).body)
    return document


def _ask_streamed(url: str) -> dict[str, Any]:
    return _fold(Transport(url).post("/api/chat", _body(stream=True)).body)


def _ask_and_look(url: str) -> dict[str, Any]:
    """Leave the stream in the kernel, and take all that came from time to time."""
    parts, body = urlsplit(url), _body(stream=True)
    head = f"POST /api/chat HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    received = bytearray()
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as sock:
        sock.sendall(head.encode() + body)
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += sock.recv(2**20)
            if not received.endswith(b"\r\n0\r\n\r\n"):
                time.sleep(LOOK_SECONDS)
    return _fold(_without_frames(bytes(received.partition(b"\r\n\r\n")[2])))


def _without_frames(chunked: bytes) -> bytes:
    """Return a body without the sizes of its chunks."""
    body, place = bytearray(), 0
    while size := int(chunked[place : (end := chunked.index(b"\r\n", place))], 16):
        body += chunked[end + 2 : end + 2 + size]
        place = end + size + 4
    return bytes(body)


def _fold(lines: bytes) -> dict[str, Any]:
    """Return the pieces of a stream as the one reply they come to."""
    pieces = json.loads(b"[" + lines.strip().replace(b"\n", b",") + b"]")
    last: dict[str, Any] = pieces[-1]
    return last | {
        "message": {"role": "assistant", "content": "".join(piece["message"]["content"] for piece in pieces)}
    }
