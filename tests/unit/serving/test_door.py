from __future__ import annotations

import asyncio
from typing import Any

import pytest

from obcd.serving.allowed_hosts import AllowedHosts
from obcd.serving.door import MAX_PATH_BYTES, Door, Message, Receive, Scope, Send, is_local


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"1"')]})
    await send({"type": "http.response.body", "body": b"inside"})


def scope(**changes: object) -> dict[str, Any]:
    return {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"",
        "headers": [(b"host", b"localhost:8620")], "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8620), **changes,
    }  # fmt: skip


def knock(request: dict[str, Any], **given: Any) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(Door(application, AllowedHosts(), headers=[(b"x-own", b"1")], **given)(request, receive, send))
    return sent


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_own_request_reaches_the_application_and_gets_all_headers(method: str) -> None:
    start, body = knock(scope(method=method))

    assert (start["status"], body["body"]) == (200, b"inside")
    headers = dict(start["headers"])
    assert headers[b"etag"] == b'"1"'
    assert headers[b"x-own"] == b"1"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"x-frame-options"] == b"DENY"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": []}, 421),
        ({"headers": [(b"host", b"evil.example")]}, 421),
        ({"headers": [(b"host", b"localhost"), (b"host", b"localhost")]}, 421),
        ({"headers": [(b"host", b"10.0.0.1")], "client": None, "server": ("10.0.0.1", None)}, 421),
        ({"method": "POST"}, 405),
        ({"method": "OPTIONS"}, 405),
        ({"method": "<b>"}, 405),
        ({"query_string": b"x" * MAX_PATH_BYTES}, 414),
    ],
)
def test_other_requests_end_at_the_door(changes: dict[str, object], status: int) -> None:
    start, body = knock(scope(**changes))

    assert start["status"] == status
    assert b"inside" not in body["body"]
    assert b"<" not in body["body"]
    assert b"evil" not in body["body"]
    assert dict(start["headers"])[b"x-frame-options"] == b"DENY"


def test_refusal_of_head_has_no_body() -> None:
    start, body = knock(scope(method="HEAD", headers=[]))

    assert (start["status"], body["body"]) == (421, b"")


def test_websocket_never_opens() -> None:
    (message,) = knock(scope(type="websocket"))

    assert message["type"] == "websocket.close"


def test_only_a_unix_socket_is_local() -> None:
    assert is_local(scope(client=None, server=None))
    assert is_local(scope(client=None, server=("/run/obcd-page/page.sock", None)))
    assert not is_local(scope())
    assert not is_local(scope(client=None))
