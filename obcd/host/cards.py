"""Reads the cards in a thread, again and again: a driver in trouble can hang for minutes, and the watch must not.

    turn(now) starts a reading when one is due, takes in what came, and says when the driver hangs
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from obcd.clock import duration, monotonic, timestamp, wall
from obcd.errors import ObcdError

#: Seconds between two readings, and after which one that does not end is trouble.
PERIOD, PATIENCE = 5.0, 15.0
#: How many Xid events are remembered.
KEPT_XIDS = 50

Reading = TypeVar("Reading")


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """A fault that the driver reported of a card (NVIDIA's Xid messages).

    Attributes:
        at: RFC 3339, when it was read.
    """

    uuid: str
    code: int
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards(Generic[Reading]):
    """What was read last.

    Attributes:
        readings: {UUID: what the driver says}; empty when it says nothing.
        trouble: Why nothing is known, "" when all is well.
    """

    readings: Mapping[str, Reading] = field(default_factory=dict)
    xids: tuple[Xid, ...] = ()
    trouble: str = ""

    def find(self, pin: str) -> Reading | None:
        """Return the readings of a card."""
        return self.readings.get(pin)


class CardReader(Generic[Reading]):
    """Reads cards at intervals, in a thread of its own.

    Args:
        read: Returns {UUID: readings}; may hang.
        poll_xids: Returns (UUID, Xid) pairs that are new; called in the same thread.
    """

    def __init__(
        self, read: Callable[[], Mapping[str, Reading]], poll_xids: Callable[[], list[tuple[str, int]]]
    ) -> None:
        self._read, self._poll_xids = read, poll_xids
        self._thread: threading.Thread | None = None
        self._started = 0.0
        self._found: Cards[Reading] = Cards()
        self.latest: Cards[Reading] = Cards()

    def turn(self, now: float) -> tuple[Xid, ...]:
        """Take in what came and start a reading when one is due; return the Xids that are new."""
        new: tuple[Xid, ...] = ()
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            new = self._found.xids
            kept = (*self.latest.xids, *new)[-KEPT_XIDS:]
            self.latest = Cards(readings=self._found.readings, xids=kept, trouble=self._found.trouble)
        elif self._thread is not None and now - self._started > PATIENCE:
            trouble = f"the driver does not answer for {duration(now - self._started)}"
            self.latest = Cards(xids=self.latest.xids, trouble=trouble)
        if self._thread is None and now >= self._started + PERIOD:
            self._start(now)
        return new

    def _start(self, now: float) -> None:
        self._started = now
        self._thread = threading.Thread(target=self._run, name="cards", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        at = timestamp(wall())
        try:
            readings = self._read()
            xids = tuple(Xid(uuid=uuid, code=code, at=at) for uuid, code in self._poll_xids())
            self._found = Cards(readings=readings, xids=xids)
        except ObcdError as error:
            self._found = Cards(trouble=str(error))


def read_once(read: Callable[[], Mapping[str, Reading]], patience: float = PATIENCE) -> Cards[Reading]:
    """Read the cards now, for a command; a driver that hangs costs no more than the patience."""
    reader: CardReader[Reading] = CardReader(read, list)
    reader.turn(monotonic() + PERIOD)
    thread = reader._thread
    if thread is not None:
        thread.join(patience)
    reader.turn(0.0)
    return reader.latest
