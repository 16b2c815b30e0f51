r"""Supervisor's event protocol, for an event listener over its standard input and output.

    listener ── READY\n ──────────────────────────────► supervisord
             ◄─ header line, then `len` bytes of payload ─
             ── RESULT 2\nOK, READY\n ────────────────►

The listener acknowledges an event before it acts on it, so that supervisord never waits for the action. Bytes come in
the pieces that the pipe gives; no function here blocks. Source: supervisor 4.3, docs/events.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from obcd.errors import ObcdError

READY = b"READY\n"
OK = b"RESULT 2\nOK"
#: Every subscribed event is much smaller; more bytes mean that the sender is not supervisor.
MAX_BYTES = 2**20


class ProtocolError(ObcdError):
    """The input is not supervisor's event protocol."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        name: E.g. `TICK_5`, `PROCESS_STATE_EXITED`.
    """

    name: str


class SupervisorEvents:
    """Turns bytes into events, and acknowledges each.

    Args:
        send: Writes to supervisord; called in the thread that calls `start` and `feed`.
    """

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._buffer = b""

    def start(self) -> None:
        """Send supervisord that this listener is ready for events."""
        self._send(READY)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that are complete with this data; each has been acknowledged.

        Raises:
            ProtocolError: If it is not the protocol; this pipe cannot be used any more.
        """
        self._buffer += data
        events = []
        while (event := self._next_event()) is not None:
            self._send(OK + READY)
            events.append(event)
        return events

    def _next_event(self) -> Event | None:
        header, newline, rest = self._buffer.partition(b"\n")
        if len(self._buffer) > MAX_BYTES:
            raise ProtocolError("received an event of more than a megabyte: this is not supervisor's event protocol")
        if not newline:
            return None
        fields = _tokens(header)
        try:
            name, length = fields["eventname"], int(fields["len"])
        except (KeyError, ValueError):
            raise ProtocolError(f"not an event of supervisor: {header[:80]!r}") from None
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Event(name)


def _tokens(line: bytes) -> dict[str, str]:
    """Read `key:value key:value`."""
    pairs = (word.partition(":") for word in line.decode("utf-8", "replace").split())
    return {key: value for key, colon, value in pairs if colon}
