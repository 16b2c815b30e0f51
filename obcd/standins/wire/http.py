"""A small HTTP/1.1 server on asyncio: keep-alive, chunked bodies both ways, cancellation when the client leaves.

It knows nothing of Ollama. It is small because a stand-in shares its two cores with the measured program: one task
per request, no thread, no log line, no header object until a header is read.

It is not a library because it must drip, cut and reset in the middle of a chunk, which server libraries prevent.

    client ──► Connection.data_received ──► Exchange ──► Application (a coroutine) ──► Exchange.send
                       connection lost ───────────────► the coroutine is cancelled
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus

from obcd.errors import ObcdError

#: bytes of request line and headers together; Go's net/http stops at 1 MiB
HEAD_LIMIT = 1 << 20

#: bytes of one request body; images come as base64 inside it
BODY_LIMIT = 256 << 20

#: the largest body with a Content-Length, in bytes: Go's net/http sends a larger one in chunks
UNCHUNKED = 2048

#: bytes waiting in a connection's output beyond which a streaming reply waits for the client to read
WRITE_LIMIT = 256 << 10

JSON_TYPE = "application/json; charset=utf-8"
NDJSON_TYPE = "application/x-ndjson"
SSE_TYPE = "text/event-stream"
TEXT_TYPE = "text/plain; charset=utf-8"
#: of the replies to unknown paths and verbs, which gin writes; of OpenAI's
GIN_TEXT_TYPE, OPENAI_TYPE = "text/plain", "application/json"

Application = Callable[["Exchange"], Awaitable[None]]

_REASONS = {status.value: status.phrase for status in HTTPStatus}


class RequestError(ObcdError):
    """The bytes are not an HTTP request that this server accepts; `status` is the answer before closing."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class DateLine:
    """The `Date` header, made at most once per second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def text(self) -> str:
        """Return e.g. `Sun, 22 Nov 2026 18:01:05 GMT`."""
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_DATE = DateLine()


class Exchange:
    """One request and the functions to answer it; used by one handler task, on the event loop's thread."""

    __slots__ = ("_chunked", "_connection", "_lowered", "body", "close", "head", "method", "path", "started")

    def __init__(self, connection: HttpConnection, method: str, target: str, head: str) -> None:
        self.method = method
        self.path = target.partition("?")[0]
        #: the header block as text, `Name: value` lines joined by CRLF
        self.head = head
        self._lowered = head.lower()
        self.body = b""
        #: close the connection after the reply
        self.close = False
        #: whether a byte of the reply was sent
        self.started = False
        self._chunked = True
        self._connection = connection

    def header(self, name: str) -> str | None:
        """Return the value of the first header of that name, or None; names are compared without regard to case."""
        return find_header(self.head, self._lowered, name)

    def has_header(self, name: str) -> bool:
        """Return quickly whether there may be a header of that name; False only if there is no such header."""
        return name.lower() + ":" in self._lowered

    def send(self, status: int, body: bytes, content_type: str = JSON_TYPE, extra: str = "") -> None:
        """Send a complete reply; "" as its type sends none, `extra` is further header lines, each ended by CRLF."""
        kind = f"Content-Type: {content_type}\r\n" if content_type else ""
        if len(body) > UNCHUNKED and self._connection.version != "HTTP/1.0" and self.method != "HEAD":
            framing = f"{kind}{extra}Transfer-Encoding: chunked\r\n"
            self.write(self._status_lines(status, framing) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            return
        head = self._status_lines(status, f"{kind}{extra}Content-Length: {len(body)}\r\n")
        self.write(head if self.method == "HEAD" else head + body)

    def start_stream(self, content_type: str) -> None:
        """Send the head of a reply of status 200 with unknown length."""
        self._chunked = "HTTP/1.0" not in self._connection.version
        framing = "Transfer-Encoding: chunked\r\n"
        if not self._chunked:  # an HTTP/1.0 client knows the end of the body only by the end of the connection
            self.close, framing = True, ""
        self.write(self._status_lines(200, f"Content-Type: {content_type}\r\n{framing}"))

    async def send_chunk(self, data: bytes) -> None:
        """Send one piece of a stream; waits while the client does not read."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if self._connection.is_full:
            await self._connection.drained()

    def end_stream(self) -> None:
        """Send the end of a stream."""
        if self._chunked:
            self.write(b"0\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self.started = True
        self._connection.write(data)

    def abort(self) -> None:
        """Drop the connection without an end of the reply; the client sees a reset."""
        self.close = True
        self._connection.abort()

    def end_server(self, seconds: float) -> None:
        """End the whole server: every connection is dropped; it listens again after so many seconds."""
        self._connection.end_server(seconds)

    def finish(self) -> None:
        """Close the connection after all written bytes are sent, and accept no further request on it."""
        self.close = True

    def _status_lines(self, status: int, headers: str) -> bytes:
        closing = "Connection: close\r\n" if self.close else ""
        reason = _REASONS.get(status, "Unknown")
        return f"HTTP/1.1 {status} {reason}\r\n{headers}Date: {_DATE.text()}\r\n{closing}\r\n".encode("latin-1")


def find_header(head: str, lowered: str, name: str) -> str | None:
    """Return the stripped value of the first header `name` in a block of header lines, or None.

    Args:
        head: the lines, joined by CRLF.
        lowered: the same in lower case.
        name: the header's name, in upper or lower case.
    """
    mark = name.lower() + ":"
    at = 0 if lowered.startswith(mark) else lowered.find("\r\n" + mark)
    if at < 0:
        return None
    start = head.index(":", at) + 1
    end = head.find("\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


class HttpConnection(asyncio.Protocol):
    """One client connection; answers its requests one after the other."""

    def __init__(
        self,
        application: Application,
        connections: set[HttpConnection],
        end_server: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.end_server = end_server
        self.version = "HTTP/1.1"
        self.is_full = False
        self._application = application
        self._connections = connections
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None  # the request whose body is not complete yet
        self._chunks: list[bytes] | None = None  # a chunked body so far
        self._length = 0
        self._task: asyncio.Task[None] | None = None
        self._drain: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; the loop calls this once."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(WRITE_LIMIT)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request in progress: its client is gone."""
        self._connections.discard(self)
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Record that the client does not read."""
        self.is_full = True

    def resume_writing(self) -> None:
        """Let a waiting stream continue."""
        self.is_full = False
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        self._drain = asyncio.get_running_loop().create_future()
        await self._drain

    def write(self, data: bytes) -> None:
        """Send bytes; drop them if the client has left, because the cancellation is under way."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Close at once; bytes that are not sent yet are lost."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Collect bytes until a request is complete, then start its task."""
        self._buffer += data
        if self._task is None:
            self._next_request()

    def _next_request(self) -> None:
        try:
            exchange = self._read_request()
        except RequestError as error:
            exchange = self._exchange or Exchange(self, "GET", "/", "")
            exchange.finish()
            exchange.send(error.status, f"{error.status} {_REASONS[error.status]}".encode(), TEXT_TYPE)
            self._close()
            return
        if exchange is not None:
            task = asyncio.get_running_loop().create_task(self._answer(exchange))
            self._task = task

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._application(exchange)
        except asyncio.CancelledError:
            if self._transport is not None:  # the server stops; a client that has left needs no answer
                self._transport.abort()
            return
        except Exception:
            # as Go's net/http after a panic in a handler: 500 without a body; the fault itself must be visible
            if not exchange.started:
                exchange.finish()
                exchange.send(500, b"", TEXT_TYPE)
            self._close()
            raise
        finally:
            self._task = None
        if exchange.close:
            self._close()
        elif self._buffer:
            self._next_request()

    def _close(self) -> None:
        self._buffer.clear()
        if self._transport is not None:
            self._transport.close()

    def _read_request(self) -> Exchange | None:
        """Return a complete request, or None while bytes are missing."""
        exchange = self._exchange
        if exchange is None:
            exchange = self._read_head()
            if exchange is None:
                return None
        if not self._read_body(exchange):
            self._exchange = exchange
            return None
        self._exchange, self._chunks, self._length = None, None, 0
        return exchange

    def _read_head(self) -> Exchange | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise RequestError(431)
            return None
        line, _, head = self._buffer[:end].decode("latin-1").partition("\r\n")
        del self._buffer[: end + 4]
        parts = line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise RequestError(400)
        self.version = parts[2]
        exchange = Exchange(self, parts[0], parts[1], head)
        self._read_framing(exchange)
        return exchange

    def _read_framing(self, exchange: Exchange) -> None:
        if exchange.has_header("connection"):
            wish = (exchange.header("Connection") or "").lower()
            exchange.close = "close" in wish or (self.version == "HTTP/1.0" and "keep-alive" not in wish)
        else:
            exchange.close = self.version == "HTTP/1.0"
        if (
            exchange.has_header("transfer-encoding")
            and (exchange.header("Transfer-Encoding") or "").lower() != "identity"
        ):
            self._chunks = []
        elif exchange.has_header("content-length"):
            text = exchange.header("Content-Length") or ""
            if not (text.isascii() and text.isdigit()):
                raise RequestError(400)
            self._length = int(text)
        if self._length > BODY_LIMIT:
            raise RequestError(413)
        if exchange.has_header("expect") and (exchange.header("Expect") or "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self, exchange: Exchange) -> bool:
        if self._chunks is not None:
            return self._read_chunks(exchange, self._chunks)
        if len(self._buffer) < self._length:
            return False
        exchange.body = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        return True

    def _read_chunks(self, exchange: Exchange, chunks: list[bytes]) -> bool:
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            try:
                size = int(self._buffer[:end].split(b";")[0], 16)
            except ValueError as error:
                raise RequestError(400) from error
            if size < 0:
                raise RequestError(400)
            if self._length + size > BODY_LIMIT:
                raise RequestError(413)
            if len(self._buffer) < end + size + 4:
                return False
            chunks.append(bytes(self._buffer[end + 2 : end + 2 + size]))
            del self._buffer[: end + size + 4]
            self._length += size
            if size == 0:  # trailers are not supported; no client sends them with JSON
                exchange.body = b"".join(chunks)
                return True


class HttpServer:
    """A listening socket and its connections.

    Args:
        on_end: called when a fault ends the server.
    """

    def __init__(self, application: Application, on_end: Callable[[], None] | None = None) -> None:
        self._application = application
        self._on_end = on_end
        self._return: asyncio.TimerHandle | None = None
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None
        self.host = ""
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: the address cannot be bound; nothing listens then.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpConnection(self._application, self._connections, self.end), host, port, backlog=1024
        )
        self.host, self.port = self._server.sockets[0].getsockname()[:2]

    def end(self, seconds: float) -> None:
        """Close everything as a server does that is killed, and listen again after so many seconds."""
        if self._return is None:
            self.stop()
            if self._on_end is not None:
                self._on_end()
            loop = asyncio.get_running_loop()
            self._return = loop.call_later(seconds, lambda: loop.create_task(self._start_again()))

    async def _start_again(self) -> None:
        self._return = None
        await self.start(self.host, self.port)

    def stop(self) -> None:
        """Close the socket and every connection at once, as Ollama does on SIGTERM (server/routes.go:2023)."""
        if self._return is not None:
            self._return.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
