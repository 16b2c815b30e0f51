"""Messages between two processes over a socket pair: the length, then a pickled value.

This is not multiprocessing.Queue (a killed reader keeps its lock) and not Connection (its `recv` waits for the rest of
a message, so a frozen writer would freeze the reader): the coordinator's side never blocks on a read. Both ends are
obcd's own processes; nothing from outside is ever unpickled.

The coordinator's side never blocks on a send either, because a stopped worker reads nothing. Bytes that do not fit into
the socket wait here and are sent by a later `send`, `receive` or `flush`. A child's sends block.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import struct
import threading
from typing import Any

from obcd.errors import ObcdError

_LENGTH = struct.Struct("!I")
#: A worker's largest message is a capped reply; a larger one means a broken stream.
MAX_MESSAGE_BYTES = 256 * 2**20
#: Most bytes that may wait for the other end; more means that it will never read again. A slot's request is 100 bytes.
MAX_WAITING_BYTES = 16 * 2**20
#: Bytes that are read at once; the buffer for them is made each time.
_READ = 2**16


class ClosedError(ObcdError):
    """The other end is gone."""


class Channel:
    """One end of the socket pair. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket, *, waits: bool = True) -> None:
        self._socket = sock
        self._waits = waits
        self._buffer = bytearray()
        self._waiting = bytearray()
        self._is_lost = False
        self._lock = threading.Lock()

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for room in the socket; always False at an end whose `send` blocks."""
        return bool(self._waiting)

    @property
    def is_lost(self) -> bool:
        """Whether the other end has stopped reading, so that nothing more can be sent."""
        return self._is_lost

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def send(self, message: Any) -> None:
        """Send one whole message; while the other end's buffer is full, block, or keep the rest until later.

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
        """Send as many of the waiting bytes as fit now.

        Raises:
            ClosedError: If the other end is gone.
        """
        with self._lock:
            self._send_waiting()

    def receive(self) -> list[Any]:
        """Read the available bytes without waiting for more, and return the messages that are complete.

        Also flushes.

        Raises:
            ClosedError: If the other end is gone and every complete message has been returned, or it does not read.
        """
        if self._waiting:
            with contextlib.suppress(ClosedError):  # messages that it sent before are still to be read
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
                self._is_lost = True  # bytes are missing from the stream now
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


def exit_at_the_end_of(channel: Channel) -> None:
    """End this process, also in the middle of its work, when the other end of the channel is gone."""
    threading.Thread(target=_exit_at_the_end_of, args=(channel,), daemon=True).start()


def _exit_at_the_end_of(channel: Channel) -> None:
    poll = select.poll()
    poll.register(channel, 0)  # no events: poll always reports that the other end is gone
    poll.poll()
    os._exit(1)


def channel_pair() -> tuple[Channel, socket.socket]:
    """Return the parent's end, which never blocks, and the socket of the other end for a child process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours, waits=False), theirs
