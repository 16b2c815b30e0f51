r"""Supervisor's event protocol, spoken by an event listener over its standard input and output.

    listener ── READY\n ──────────────────────────────► supervisord
             ◄─ header line, then `len` bytes of payload ─
             ── RESULT 2\nOK, READY\n ────────────────►

An event is answered before anything is done about it, so that supervisord never waits for what it brings about. Bytes
come in whatever pieces the pipe gives; nothing here blocks. Source: supervisor 4.3, docs/events.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from obcd.errors import ObcdError

READY = b"READY\n"
OK = b"RESULT 2\nOK"
#: No event that is subscribed to comes near it; more means that this is no supervisor.
MAX_BYTES = 2**20


class ProtocolError(ObcdError):
    """What came in is not supervisor's event protocol."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        name: E.g. `TICK_5`, `PROCESS_STATE_EXITED`.
    """

    name: str


class SupervisorEvents:
    """Takes bytes in, gives events out, and answers each.

    Args:
        send: Writes to supervisord; called from whoever calls `start` and `feed`.
    """

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._buffer = b""

    def start(self) -> None:
        """Tell supervisord that events may come."""
        self._send(READY)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that are complete with this data; each is answered already.

        Raises:
            ProtocolError: If it is not the protocol; nothing can be expected from this pipe any more.
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
            raise ProtocolError("an event of more than a megabyte came in: is this supervisor's event listener?")
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
