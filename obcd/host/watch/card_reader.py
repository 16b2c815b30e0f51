"""Read the cards in a thread at intervals: a reading takes up to 3 s if the driver fails, too long for a turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from obcd.clock import monotonic, timestamp, wall
from obcd.host.cards.card import Readings
from obcd.host.watch.watch_rules import WatchLimits

#: Seconds from one reading to the next.
PERIOD = WatchLimits().reading
#: How many Xid events are kept.
KEPT_XIDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """A fault of a card that the driver reported (NVIDIA's Xid messages).

    Attributes:
        uuid: "" if the driver does not name the card.
        at: When it was read, in RFC 3339.
    """

    uuid: str
    code: int
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class XidCount:
    """The number of a card's faults since the reader was made, and the code of the last one."""

    count: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReport:
    """One report of the driver.

    Attributes:
        readings: {UUID: readings}; {} if the cards are unknown.
        at: When the reading began, in monotonic seconds.
        xids: The last ones; `xid_counts` has the number of all, and the last code, of each card that had one.
    """

    at: float = 0.0
    readings: Mapping[str, Readings] = field(default_factory=dict)
    xids: tuple[Xid, ...] = ()
    xid_counts: Mapping[str, XidCount] = field(default_factory=dict)


class CardReader:
    """Reads cards at intervals.

    Args:
        read: Returns {UUID: readings} within seconds; never raises.
        poll_xids: Returns new (UUID, Xid) pairs; called in the same thread.
        period: Seconds from one reading to the next.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, Readings]],
        poll_xids: Callable[[], list[tuple[str, int]]],
        period: float = PERIOD,
    ) -> None:
        self._read, self._poll_xids, self._period = read, poll_xids, period
        self._thread: threading.Thread | None = None
        self._due = 0.0
        self._found = CardReport()
        self.latest = CardReport()

    def tick(self, now: float) -> tuple[Xid, ...]:
        """Take the result of a finished reading, start one that is due, and return the new Xids."""
        new: tuple[Xid, ...] = ()
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            new = self._found.xids
            found, self._found = self._found, CardReport()  # reported once, even if a thread ends without a new report
            self.latest = CardReport(
                at=found.at,
                readings=found.readings,
                xids=(*self.latest.xids, *new)[-KEPT_XIDS:],
                xid_counts=_count(self.latest.xid_counts, new),
            )
        if self._thread is None and now >= self._due:
            self._due = now + self._period
            self._thread = threading.Thread(target=self._run, name="cards", daemon=True)
            self._thread.start()
        return new

    def _run(self) -> None:
        began, readings = monotonic(), self._read()
        at = timestamp(wall())
        xids = tuple(Xid(uuid=uuid, code=code, at=at) for uuid, code in self._poll_xids())
        self._found = CardReport(at=began, readings=readings, xids=xids)


def _count(before: Mapping[str, XidCount], new: Iterable[Xid]) -> Mapping[str, XidCount]:
    counts = dict(before)
    for xid in new:
        earlier = counts.get(xid.uuid)
        counts[xid.uuid] = XidCount(count=1 if earlier is None else earlier.count + 1, last=xid.code)
    return counts
