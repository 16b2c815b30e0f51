"""Requests to an ASGI application without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

FORM = {"content-type": "multipart/form-data; boundary=XX"}


@dataclass
class Reply:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        """OpenAI's code of an error."""
        return self.json["error"]["code"]


def form_of(content: bytes, purpose: str = "batch", filename: str = "in.jsonl") -> bytes:
    """Return the body of an upload."""
    head = f'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
    head += f'--XX\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    return head.encode("utf-8", "surrogatepass") + content + b"\r\n--XX--\r\n"


@dataclass
class Caller:
    """A client with a token."""

    application: Any
    token: str = ""

    def __call__(
        self, method: str, target: str, body: bytes | Iterable[bytes] = b"", headers: dict[str, str] | None = None,
        *, stops: str = "",
    ) -> Reply:  # fmt: skip
        """Send a request.

        Args:
            target: The path, with a query.
            stops: `silent` or `gone` behind the given blocks, in place of the end of the body.
        """
        return asyncio.run(self.send(method, target, body, headers, stops=stops))

    async def send(
        self, method: str, target: str, body: bytes | Iterable[bytes] = b"", headers: dict[str, str] | None = None,
        *, stops: str = "",
    ) -> Reply:  # fmt: skip
        blocks = [body] if isinstance(body, bytes) else list(body)
        messages = [
            {"type": "http.request", "body": block, "more_body": bool(stops) or at < len(blocks) - 1}
            for at, block in enumerate(blocks)
        ]
        reply = Reply()

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            if stops == "gone":
                return {"type": "http.disconnect"}
            await asyncio.sleep(3600)
            raise AssertionError

        async def respond(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                reply.body += message.get("body", b"")

        sent = {"authorization": f"Bearer {self.token}", **(headers or {})}
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": query.encode("utf-8", "surrogatepass"),
            "root_path": "",
            "headers": [
                (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
                for name, value in sent.items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 11480),
        }
        await self.application(scope, receive, respond)
        return reply
