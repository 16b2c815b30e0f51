"""Messages between two processes over a socket pair: length, then a pickled value.

Not multiprocessing.Queue (a killed reader keeps its lock) and not Connection (its `recv` waits for the rest of a
message, so a frozen writer would freeze the reader): the coordinator's side never blocks on a read. Both ends are our
own processes; nothing from outside is ever unpickled.

The coordinator's side never blocks on a send either: a worker that was stopped reads nothing. What does not fit into
the socket waits here and goes with a later `send`, `receive` or `flush`. A child's sends wait.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import threading
from typing import Any

from obcd.errors import ObcdError

_LENGTH = struct.Struct("!I")
#: A worker's largest message is a capped reply; larger means a broken stream.
MAX_MESSAGE_BYTES = 256 * 2**20
#: What may wait for the other end, in bytes; more means that it will never read again. A slot's request is 100 bytes.
MAX_WAITING_BYTES = 16 * 2**20
#: What is read at once, in bytes; the buffer for it is made each time.
_READ = 2**16


class ClosedError(ObcdError):
    """The other end is gone."""


class Channel:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket, *, waits: bool = True) -> None:
        self._socket = sock
        self._waits = waits
        self._buffer = bytearray()
        self._waiting = bytearray()
        self._is_lost = False
        self._lock = threading.Lock()

    @property
    def wants_write(self) -> bool:
        """Whether something waits for room in the socket; never at an end that waits in `send`."""
        return bool(self._waiting)

    @property
    def is_lost(self) -> bool:
        """Whether the other end does not read, so that nothing more can be sent."""
        return self._is_lost

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def send(self, message: Any) -> None:
        """Send one message whole; while the other end's buffer is full, wait, or keep it until later.

        Raises:
            ClosedError: If the other end is gone, or has not read for too long.
        """
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        framed = _LENGTH.pack(len(payload)) + payload
        with self._lock:
            if not self._waits:
                self._waiting += framed
                self._send_waiting()
                return
            try:
                self._socket.sendall(framed)
            except OSError:
                raise ClosedError from None

    def flush(self) -> None:
        """Send what waits, as much of it as fits now.

        Raises:
            ClosedError: If the other end is gone.
        """
        with self._lock:
            self._send_waiting()

    def receive(self) -> list[Any]:
        """Return the messages that are complete by now, reading what is there without waiting for more.

        Flushes too.

        Raises:
            ClosedError: If the other end is gone and every complete message was returned before, or it does not read.
        """
        if self._waiting:
            with contextlib.suppress(ClosedError):  # what it said before it went is still to be read
                self.flush()
        if self._is_lost:
            raise ClosedError
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

    def _send_waiting(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._socket.send(self._waiting, socket.MSG_DONTWAIT)]
        except (BlockingIOError, InterruptedError):
            if len(self._waiting) > MAX_WAITING_BYTES:
                self._waiting.clear()
                self._is_lost = True  # the stream has a hole now
                raise ClosedError from None
        except OSError:
            self._waiting.clear()
            raise ClosedError from None

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
    """Return our end, which never blocks, and the other's socket to hand to a child process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours, waits=False), theirs
