"""One kept-alive HTTP connection to one Ollama server: `http.client` connects and reads bodies, obcd handles the heads.

A short reply comes in one piece, with its length: `_find_reply` takes it apart. `http.client` reads every other one,
with heads that obcd bounds and parses itself, because the standard library's parser is one for e-mail.

There are no redirects, no proxies from the environment and no compression; the size of a reply is limited. Closing the
connection is the only way to cancel a request at Ollama, so `abort` does that, from any thread.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from obcd.errors import ObcdError
from obcd.secret import Secret

#: Largest reply accepted, in bytes. A 128k-token answer with logprobs is some 30 MiB.
MAX_REPLY_BYTES = 64 * 2**20
#: Most bytes that may be read from the socket without useful data: a whole head with all its `100 Continue`s, a block
#: of the body, the trailer. `http.client` itself has no bound on the number of interim heads and trailer lines.
ALLOWANCE = 2**20
#: Longest line of a head, in bytes, and most fields in it; as in `http.client`.
_MAX_LINE, _MAX_FIELDS = 2**16, 100
#: The reply is read in blocks of this size, in bytes.
_BLOCK = 2**16
#: TCP keep-alive (idle, interval, count): it detects after a minute that a host has vanished, while a long answer is
#: computed without a byte of traffic.
_KEEPALIVE = ((socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_KEEPIDLE = getattr(socket, "TCP_KEEPIDLE", None)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply over HTTP before it is judged."""

    status: int
    body: bytes
    retry_after: float = 0.0


class RefusedError(ObcdError):
    """No connection could be made: nothing was sent."""


class CutError(ObcdError):
    """The connection broke after the request was sent, or the reply is not HTTP."""


class TooLargeError(ObcdError):
    """The reply is larger than `MAX_REPLY_BYTES`."""


class AbortedError(ObcdError):
    """Another thread called `abort`; carries its reason."""


class _Metered(io.RawIOBase):
    """The bytes of a socket, limited to the allowed number.

    Args:
        first: Bytes that were read from it before.
    """

    def __init__(self, raw: io.RawIOBase, first: bytes) -> None:
        self._raw = raw
        self._first = first
        self.allowed = ALLOWANCE

    def readable(self) -> bool:
        """Return True, as the buffer above requires."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read once.

        Raises:
            HTTPException: If the server sends more than is allowed.
        """
        if self._first:
            count: int | None = min(len(buffer), len(self._first))
            buffer[:count], self._first = self._first[:count], self._first[count:]
        else:
            count = self._raw.readinto(buffer)
        self.allowed -= count or 0
        if self.allowed < 0:
            raise http.client.HTTPException("endless")
        return count

    def close(self) -> None:
        """Close the socket's file; safe to call twice."""
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A reply that is bounded, whatever the server sends.

    Args:
        first: Its first bytes, which were read from the socket before.
    """

    def __init__(self, sock: socket.socket, first: bytes) -> None:
        super().__init__(sock, method="POST")
        self._meter = _Metered(self.fp.detach(), first)
        self.fp = io.BufferedReader(self._meter)
        self.fields: dict[str, str] = {}

    def begin(self) -> None:
        """Read the head, and find from it how the body is framed, as `http.client` does (RFC 9112, 6.3).

        Raises:
            HTTPException, OSError, ValueError: If the head is invalid or incomplete.
        """
        version, self.status, self.reason = self._read_head()
        while self.status // 100 == 1:  # an interim head
            version, self.status, self.reason = self._read_head()
        if not version.startswith(("HTTP/1.", "HTTP/0.9")):
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        length, connection = self.fields.get("content-length", ""), self.fields.get("connection", "").lower()
        is_known = length.isascii() and length.isdigit() and not self.chunked
        self.length = int(length) if is_known else None
        if self.status in (http.client.NO_CONTENT, http.client.NOT_MODIFIED):
            self.length = 0
        stays_open = "keep-alive" in connection if self.version == 10 else "close" not in connection
        self.will_close = not stays_open or (not self.chunked and self.length is None)

    def _read_head(self) -> tuple[str, int, str]:
        """Read version, status and reason, and `fields`: `{name in lower case: its first value}`."""
        opening: tuple[str, int, str] = self._read_status()  # type: ignore[attr-defined]
        self.fields = fields = dict[str, str]()
        for _ in range(_MAX_FIELDS + 1):
            line = self.fp.readline(_MAX_LINE + 1)
            if len(line) > _MAX_LINE:
                raise http.client.LineTooLong("header line")
            if line in (b"\r\n", b"\n", b""):
                return opening
            name, _, value = line.decode("latin-1").partition(":")
            fields.setdefault(name.lower(), value.strip())
        raise http.client.HTTPException("too many fields")

    def read_capped(self) -> bytes:
        """Read the body to its end, in bounded pieces.

        Raises:
            TooLargeError: If it is larger than `MAX_REPLY_BYTES`.
            HTTPException, OSError, ValueError: If the body is incomplete or framed wrongly.
        """
        body = bytearray()
        while True:
            if max(self.length or 0, len(body) + (self._chunk_left() or 0)) > MAX_REPLY_BYTES:
                raise TooLargeError
            self._meter.allowed = ALLOWANCE
            block = self.read1(_BLOCK)
            if not block:
                break
            body += block
            if (self._chunk_left() or 0) < 0:  # `http.client` takes a negative size for "all there is"
                raise http.client.HTTPException("negative chunk size")
            if len(body) > MAX_REPLY_BYTES:
                raise TooLargeError
        if self.length:  # `read1` does not report that the end is missing
            raise http.client.IncompleteRead(b"", self.length)
        return bytes(body)

    def _chunk_left(self) -> int | None:
        """Return the rest of the current chunk in bytes, None while `http.client` has its marker for "not known"."""
        return self.chunk_left if isinstance(self.chunk_left, int) else None


class Transport:
    """One connection to a server. One thread calls `post`; any thread may call `abort`."""

    def __init__(self, url: str, connect_timeout: float = 5.0, token: Secret | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        #: The server's name in requests.
        self._name = parts.netloc.rpartition("@")[2]
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        #: Seconds to wait for the next connection; any thread may change it.
        self.connect_timeout = connect_timeout
        #: Sent with every request as `Authorization: Bearer …`; any thread may change it.
        self.token = token
        self._connection: http.client.HTTPConnection | None = None
        self._sock: socket.socket | None = None  # http.client forgets it when the reply says `Connection: close`
        self._poll = select.poll()  # of the socket
        self._abort_reason = ""

    def post(self, path: str, body: bytes) -> Reply:
        """Send one request and wait for the whole reply, as long as it takes.

        A kept-alive connection that the server has closed meanwhile is replaced before anything is sent. A request that
        was sent is never sent again from here: a server that a prompt crashes looks like one that closed an idle
        connection.

        Raises:
            RefusedError, CutError, TooLargeError, AbortedError: The connection is closed then.
        """
        if self._abort_reason:
            raise AbortedError(self._abort_reason)
        try:
            if self._is_stale():
                self.close()
            return self._exchange(path, body)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an invalid number
            self.close()
            if self._abort_reason:
                raise AbortedError(self._abort_reason) from None
            raise CutError(type(error).__name__) from None
        except BaseException:
            self.close()
            raise

    def arm(self) -> None:
        """Forget an earlier `abort`: later calls of `post` are new requests."""
        self._abort_reason = ""

    def abort(self, reason: str) -> None:
        """Break the current exchange; `post` raises AbortedError with this reason until `arm` is called."""
        self._abort_reason = reason
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                # Not SSLSocket's own shutdown, which removes the TLS state while another thread reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next `post` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._sock = None

    def _is_stale(self) -> bool:
        """Return whether an idle connection became readable: usually it was closed, and it is never usable."""
        return self._sock is not None and bool(self._poll.poll(0))

    def _exchange(self, path: str, body: bytes) -> Reply:
        connection = self._connection or self._connect()
        if self._abort_reason:  # `abort` was called before there was a socket to shut down
            raise AbortedError(self._abort_reason)
        connection.sock.sendall(self._head(path, len(body)) + body)
        first = connection.sock.recv(_BLOCK)
        reply = _find_reply(first)
        if reply is not None:
            return reply
        with contextlib.closing(_Response(connection.sock, first)) as response:
            response.begin()
            ends_by_close = response.length is None and not response.chunked
            payload = response.read_capped()
            if ends_by_close and self._abort_reason:  # the shutdown in `abort` looked like the end of the body
                raise AbortedError(self._abort_reason)
        if response.will_close:
            self.close()
        return Reply(response.status, payload, _retry_after(response.fields.get("retry-after", "")))

    def _head(self, path: str, length: int) -> bytes:
        token = f"Authorization: Bearer {self.token.reveal()}\r\n" if self.token is not None else ""
        return (
            f"POST {self._prefix}{path} HTTP/1.1\r\nHost: {self._name}\r\nAccept-Encoding: identity\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n{token}\r\n"
        ).encode("ascii")

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self.connect_timeout, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self.connect_timeout)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise RefusedError(_connect_sentence(error)) from None
        sock = connection.sock
        sock.settimeout(None)  # from here on the caller of `abort` enforces the limit of the whole request
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if _KEEPIDLE is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _KEEPIDLE, 30)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connection, self._sock = connection, sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        return connection


def _find_reply(raw: bytes) -> Reply | None:
    """Return the reply if these bytes are all of it, and a plain one, as most are; None if anything is special."""
    if not raw.startswith(b"HTTP/1.1 200 "):
        return None
    end = raw.find(b"\r\n\r\n")
    head = raw[: end + 2].lower() if end >= 0 else b""
    if head.count(b"content-length:") != 1 or b"transfer-encoding" in head or b"connection" in head:
        return None
    _, name, rest = head.partition(b"\r\ncontent-length:")
    length = rest.partition(b"\r\n")[0].strip(b" \t")
    body = raw[end + 4 :]
    if not name or not length.isdigit() or len(length) > 9 or int(length) != len(body) or len(body) > MAX_REPLY_BYTES:
        return None
    return Reply(200, body)


def _connect_sentence(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, TimeoutError):
        return "no connection within the time limit"
    return error.strerror.lower() if error.strerror else type(error).__name__


def _retry_after(value: str) -> float:
    return min(float(value), 3600.0) if value.isascii() and value.isdigit() else 0.0
