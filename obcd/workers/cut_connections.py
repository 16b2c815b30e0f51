"""Whether the whole server ended when a connection broke, or only this one connection.

A server that ends (a crash, a kill, a restart) cuts everything in flight at once, and no request can be blamed for that
from its own connection. Two signs: every other request at the server is cut within a moment too, or the server does not
listen, or no longer has the model in memory.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from obcd.clock import monotonic
from obcd.core.request.records import Signature
from obcd.ollama.control import ControlError, SilentError, ask_loaded
from obcd.ollama.loaded import find_loaded
from obcd.secret import Secret

#: Seconds within which connections are cut at once. The kernel closes those of an ended process together; a busy
#: machine notices some of them later.
MOMENT = 0.25
#: Seconds that a server may take to list its models, or to accept a connection.
LOOK_SECONDS = 2.0


class CutConnections:
    """The requests at one server, and the connections that were cut. Any thread may call it.

    Args:
        pause: Waits for so many seconds.
    """

    def __init__(self, url: str, pause: Callable[[float], object] | None = None) -> None:
        self._url = url
        self._pause = pause or threading.Event().wait
        self._lock = threading.Lock()
        #: {slot: when its request was sent}
        self._sent: dict[int, float] = {}
        #: When connections were cut, the oldest first.
        self._cuts: deque[float] = deque(maxlen=1000)

    def begin(self, slot: int) -> None:
        """Record that a slot sends a request."""
        with self._lock:
            self._sent[slot] = monotonic()

    def end(self, slot: int) -> None:
        """Record that a slot's request has an outcome that is not a cut."""
        with self._lock:
            self._sent.pop(slot, None)

    def is_server_gone(self, slot: int, signature: Signature | None, token: Secret | None) -> bool:
        """Record that a slot's connection was cut, and return whether the server ended; takes a moment.

        Args:
            signature: The model that the server listed as loaded; None if it was being loaded, or is never listed.
        """
        now = monotonic()
        with self._lock:
            self._sent.pop(slot, None)
            self._cuts.append(now)
        self._pause(MOMENT)
        with self._lock:
            is_together = sum(abs(at - now) <= MOMENT for at in self._cuts) > 1
            is_last = not any(sent_at < now for sent_at in self._sent.values())
        return (is_together and is_last) or not self._goes_on(signature, token)

    def _goes_on(self, signature: Signature | None, token: Secret | None) -> bool:
        """Return whether the server still has the model in memory; one that was started again has none."""
        try:
            loaded = ask_loaded(self._url, token, LOOK_SECONDS)
            return signature is None or find_loaded(loaded, signature.model) is not None
        except SilentError:
            return False
        except ControlError:  # perhaps a proxy that lets only some paths through
            return _listens(self._url)


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection(address, LOOK_SECONDS).close()
    except OSError:
        return False
    return True
