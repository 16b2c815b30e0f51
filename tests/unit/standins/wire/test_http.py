"""The HTTP server, fed bytes without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from obcd.standins.wire import http
from obcd.standins.wire.http import Exchange, HttpConnection, find_header


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: object) -> None:
        self.sent += cast("bytes", data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


async def echo(exchange: Exchange) -> None:
    exchange.send(200, f"{exchange.method} {exchange.path} ".encode() + exchange.body)


def talk(*parts: bytes, application: http.Application = echo) -> Wire:
    """Feed bytes part by part to a new connection and return its wire."""

    async def story() -> Wire:
        wire = Wire()
        connection = HttpConnection(application, set())
        connection.connection_made(wire)
        for part in parts:
            connection.data_received(part)
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        return wire

    return asyncio.run(story())


def bodies(wire: Wire) -> list[bytes]:
    return [reply.partition(b"\r\n\r\n")[2] for reply in wire.sent.split(b"HTTP/1.1 ")[1:]]


POST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_bytes", [POST, CHUNKED])
def test_request_is_whole_however_its_bytes_come(request_bytes: bytes) -> None:
    for cut in range(1, len(request_bytes)):
        wire = talk(request_bytes[:cut], request_bytes[cut:])
        assert bodies(wire) == [b"POST /a hello"]
        assert not wire.closed


def test_requests_in_one_packet_are_answered_in_order() -> None:
    assert bodies(talk(POST + CHUNKED + POST)) == [b"POST /a hello"] * 3


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET / SPDY/3\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (http.HEAD_LIMIT + 1), b"431"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(request_bytes: bytes, status: bytes) -> None:
    wire = talk(request_bytes)

    assert wire.sent.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in wire.sent
    assert wire.closed


@pytest.mark.parametrize(
    ("head", "closed"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_connection_is_kept_as_the_client_wishes(head: bytes, closed: bool) -> None:
    assert talk(head).closed is closed


def test_expected_continue_is_sent_before_the_body() -> None:
    wire = talk(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", b"ok")

    assert wire.sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_head_has_the_length_and_no_body() -> None:
    sent = talk(b"HEAD /x HTTP/1.1\r\n\r\n").sent

    assert b"Content-Length: 8\r\n" in sent
    assert sent.endswith(b"\r\n\r\n")


async def count_down(exchange: Exchange) -> None:
    exchange.start_stream("text/plain")
    for word in (b"two", b"one"):
        await exchange.send_chunk(word)
    exchange.end_stream()


def test_stream_is_chunked_and_plain_for_an_old_client() -> None:
    new, old = (talk(b"GET / HTTP/1.%d\r\n\r\n" % minor, application=count_down) for minor in (1, 0))

    assert bodies(new) == [b"3\r\ntwo\r\n3\r\none\r\n0\r\n\r\n"]
    assert bodies(old) == [b"twoone"]
    assert (new.closed, old.closed) == (False, True)


def test_client_that_leaves_cancels_its_request() -> None:
    ended: list[str] = []

    async def hang(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(exchange.path)
            raise

    async def story() -> None:
        connections: set[HttpConnection] = set()
        connection = HttpConnection(hang, connections)
        connection.connection_made(Wire())
        connection.data_received(b"GET /slow HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0)
        connection.connection_lost(None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert connections == set()
        assert ended == ["/slow"]  # here, since the end of the loop would cancel it too

    asyncio.run(story())


def test_slow_reader_holds_a_stream_back() -> None:
    async def story() -> tuple[bytes, bytes]:
        wire = Wire()
        connection = HttpConnection(count_down, set())
        connection.connection_made(wire)
        connection.pause_writing()
        connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        early = wire.sent
        connection.resume_writing()
        for _ in range(5):
            await asyncio.sleep(0)
        return early, wire.sent

    early, late = asyncio.run(story())

    assert early.endswith(b"two\r\n")
    assert late.endswith(b"one\r\n0\r\n\r\n")


def test_fault_in_a_handler_is_an_empty_500_and_is_not_hidden() -> None:
    async def break_down(exchange: Exchange) -> None:
        raise ZeroDivisionError

    async def story() -> tuple[bytes, list[str]]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        note: Callable[..., None] = lambda _, context: seen.append(type(context["exception"]).__name__)  # noqa: E731
        loop.set_exception_handler(note)
        wire = Wire()
        connection = HttpConnection(break_down, set())
        connection.connection_made(wire)
        connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        return wire.sent, seen

    sent, seen = asyncio.run(story())

    assert sent.startswith(b"HTTP/1.1 500")
    assert sent.endswith(b"\r\n\r\n")
    assert seen == ["ZeroDivisionError"]


def test_headers_are_found_without_case_and_only_whole() -> None:
    head = "Host: a\r\nX-Content-Length: 7\r\ncontent-length:  5 "

    assert find_header(head, head.lower(), "Content-Length") == "5"
    assert find_header(head, head.lower(), "host") == "a"
    assert find_header(head, head.lower(), "Length") is None


def test_body_of_more_than_2_kib_comes_in_chunks_as_from_go() -> None:
    async def long(exchange: Exchange) -> None:
        exchange.send(200, b"x" * int(exchange.path[1:]))

    short, large = (talk(f"GET /{size} HTTP/1.1\r\n\r\n".encode(), application=long).sent for size in (2048, 2049))
    old = talk(b"GET /2049 HTTP/1.0\r\n\r\n", application=long).sent

    assert b"Content-Length: 2048" in short
    assert large.partition(b"\r\n\r\n")[2] == b"801\r\n" + b"x" * 2049 + b"\r\n0\r\n\r\n"
    assert b"Transfer-Encoding: chunked" in large
    assert b"Content-Length: 2049" in old
