"""Ask an ASGI application as a browser would, without a server."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import dataclass
from typing import Any

from obcd.serving.door import Application, Message


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        packed = self.headers.get("content-encoding") == "gzip"
        return (gzip.decompress(self.body) if packed else self.body).decode()


def ask(
    application: Application, path: str = "/", *, method: str = "GET", is_tcp: bool = True, **headers: str
) -> Answered:
    """Send one request.

    Args:
        path: With its query.
        headers: With `_` in place of `-`; `host` is localhost if it is not given.
    """
    sent: list[Message] = []
    plain, _, query = path.partition("?")
    named = {"host": "localhost:8620", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": plain, "raw_path": plain.encode("utf-8", "surrogateescape"), "root_path": "",
        "query_string": query.encode("utf-8", "surrogateescape"),
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in named.items()],
        "client": ("127.0.0.1", 50000) if is_tcp else None,
        "server": ("127.0.0.1", 8620) if is_tcp else ("/run/obcd-page/page.sock", None),
    }  # fmt: skip

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await application(scope, receive, send)

    asyncio.run(run())
    start = sent[0]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Answered(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body)
