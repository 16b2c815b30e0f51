"""Messages between two processes over a socket pair: length, then a pickled value.

Not multiprocessing.Queue (a killed reader keeps its lock) and not Connection (its `recv` waits for the rest of a
message, so a frozen writer would freeze the reader): the coordinator's side never blocks on a read. Both ends are our
own processes; nothing from outside is ever unpickled.
"""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from typing import Any

_LENGTH = struct.Struct("!I")
#: A worker's largest message is a capped reply; larger means a broken stream.
MAX_MESSAGE_BYTES = 256 * 2**20
_READ = 2**18


class ClosedError(Exception):
    """The other end is gone."""


class Channel:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def send(self, message: Any) -> None:
        """Send one message whole; waits while the other end's buffer is full.

        Raises:
            ClosedError: If the other end is gone.
        """
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            with self._lock:
                self._socket.sendall(_LENGTH.pack(len(payload)) + payload)
        except OSError:
            raise ClosedError from None

    def receive(self) -> list[Any]:
        """Return the messages that are complete by now, reading what is there without waiting for more.

        Raises:
            ClosedError: If the other end is gone and every complete message was returned before.
        """
        try:
            chunk = self._socket.recv(_READ, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            raise ClosedError from None
        if not chunk:
            raise ClosedError
        self._buffer += chunk
        return list(self._complete())

    def close(self) -> None:
        """Close this end; safe to call twice."""
        self._socket.close()

    def _complete(self) -> Any:
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise ClosedError
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            yield pickle.loads(memoryview(self._buffer)[_LENGTH.size : end])  # noqa: S301 - our own process wrote it
            del self._buffer[:end]


def channel_pair() -> tuple[Channel, socket.socket]:
    """Return our end, and the other's socket to hand to a child process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
