"""POST an event to a webhook, signed; nothing that the receiver answers is followed or kept."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from obcd import __version__
from obcd.clock import wall
from obcd.core.events import NotableEvent
from obcd.core.webhook_signature import signed_headers, signing_key
from obcd.notifications.ways import DeliveryError
from obcd.secret import Secret

#: Seconds that one attempt may take, from the connection to the head of the reply.
LIMIT_SECONDS = 15.0


def post_event(
    url: str, secret: Secret, event: NotableEvent, seconds: float = LIMIT_SECONDS, clock: Callable[[], float] = wall
) -> None:
    """Send an event; the receiver has it when it answers with a status from 200 to 299.

    Args:
        url: As `checked_webhook` accepts it. No proxy of the environment is used.
        clock: Returns Unix seconds: the time of the attempt is signed.

    Raises:
        DeliveryError: If the receiver does not have it; final if it answers 410: it wants nothing any more.
    """
    parts, body = urlsplit(url), event.body()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"obcd/{__version__}",
        "Connection": "close",
        **signed_headers(signing_key(secret.reveal()), event.id, int(clock()), body),
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, seconds)
    with contextlib.closing(connection), _limited(connection, seconds) as is_over:
        try:
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DeliveryError(_reason(error, seconds, is_over=is_over.is_set())) from None
        if is_over.is_set():  # the broken connection looked like the end of the head
            raise DeliveryError(_reason(TimeoutError(), seconds, is_over=True))
    if 300 <= status < 400:
        raise DeliveryError(f"the receiver answers with a redirect ({status}), which obcd does not follow")
    if not 200 <= status < 300:
        raise DeliveryError(f"the receiver answers with status {status}", is_final=status == http.client.GONE)


def _connection(scheme: str, host: str, port: int | None, seconds: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port or 443, timeout=seconds, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port or 80, timeout=seconds)


@contextlib.contextmanager
def _limited(connection: http.client.HTTPConnection, seconds: float) -> Iterator[threading.Event]:
    """Break a connection after some seconds: its own limit begins again with every byte that the receiver sends.

    Yields:
        Set when it was broken.
    """
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        sock = connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):  # closed meanwhile; not SSLSocket's own shutdown, which another reads
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()


def _reason(error: Exception, seconds: float, *, is_over: bool) -> str:
    """Return why an attempt failed; never the text of an error that may quote the receiver."""
    if is_over or isinstance(error, TimeoutError):
        return f"the receiver does not answer within {seconds:.0f} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the receiver's certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake with the receiver failed"
    if isinstance(error, socket.gaierror):
        return "the receiver's name cannot be resolved"
    if isinstance(error, OSError) and error.strerror:
        return f"the receiver cannot be reached: {error.strerror.lower()}"
    return "the receiver does not answer in HTTP"
