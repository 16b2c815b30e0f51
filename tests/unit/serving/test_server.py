"""Connections that say nothing more are ended, wherever in a request they stop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from obcd.serving import server

uvicorn = pytest.importorskip("uvicorn")
from uvicorn.protocols.http import h11_impl  # noqa: E402 - only where it is installed
from uvicorn.server import ServerState  # noqa: E402

ASKED = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANNOUNCED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"


async def reply(scope: Any, receive: Any, send: Any) -> None:
    """Answer without reading the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def replies_to(pieces: list[bytes]) -> int:
    """Send pieces one after the other, then nothing; return the number of replies when the connection has ended."""
    config = uvicorn.Config(reply, ws="none", lifespan="off", log_config=None, timeout_keep_alive=server.SILENT_SECONDS)
    config.load()
    protocol, state = server._patient_protocol(h11_impl), ServerState()
    door = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with door:
        reader, writer = await asyncio.open_connection(*door.sockets[0].getsockname())
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)  # a packet of its own
        said = await asyncio.wait_for(reader.read(), 5.0)
        writer.close()
    return said.count(b" 200 OK")


@pytest.mark.parametrize(
    ("pieces", "replies"),
    [
        ([], 0),
        ([b"GET /"], 0),
        ([ASKED], 1),
        ([ASKED, b"GET /"], 1),
        ([ASKED, b"GET /", b" HTTP/1.1\r\n"], 1),
        ([ASKED, ASKED[:9], ASKED[9:]], 2),
        ([ANNOUNCED, b"x"], 1),
        ([ANNOUNCED, b"x" * 9, ASKED], 2),
    ],
)
def test_connection_that_says_nothing_more_ends(
    monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], replies: int
) -> None:
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.3)

    assert asyncio.run(replies_to(pieces)) == replies
