"""When a state that lasts becomes an event: endpoints that do not serve, and a disk that stops all work. Pure."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from obcd.core.events import EventKind, NotableEvent
from obcd.text import duration, plural

#: Share of the limit after which an endpoint joins the event of another one: those of one host are lost together, but
#: are found at different moments.
JOINS = 0.8
#: Seconds without trouble after which a full disk is a new event.
CLEAR_SECONDS = 600.0
#: Most endpoints that an event names.
MOST_NAMED = 100


@dataclass(slots=True)
class Alarms:
    """Finds the events. Main thread only; `now` is in monotonic seconds, `at` in Unix seconds."""

    #: {endpoint or host that does not serve: when that began}
    _lost: dict[str, float] = field(default_factory=dict)
    #: Those of them that an event has named.
    _named: set[str] = field(default_factory=set)
    #: When the disk was in trouble last; None: never, or long ago.
    _disk_at: float | None = None

    def look(self, lost: Mapping[str, str], limit: float, disk: str, now: float, at: float) -> Iterator[NotableEvent]:
        """Yield the events that the present state makes.

        Args:
            lost: `{endpoint or host that does not serve: why, for people}`.
            limit: Seconds after which an endpoint counts as lost.
            disk: Why no work is started, if the disk is the reason; "" otherwise.
        """
        yield from self._endpoints(lost, limit, now, at)
        if disk:
            if self._disk_at is None:
                yield _event(EventKind.DISK, at, disk)
            self._disk_at = now
        elif self._disk_at is not None and now - self._disk_at >= CLEAR_SECONDS:
            self._disk_at = None

    def _endpoints(self, lost: Mapping[str, str], limit: float, now: float, at: float) -> Iterator[NotableEvent]:
        self._lost = {name: self._lost.get(name, now) for name in lost}
        self._named &= lost.keys()
        fresh = {name: now - since for name, since in self._lost.items() if name not in self._named}
        if not any(seconds >= limit for seconds in fresh.values()):
            return
        found = {name: seconds for name, seconds in fresh.items() if seconds >= JOINS * limit}
        self._named |= found.keys()
        shown = list(found)[:MOST_NAMED]
        first = shown[0]
        if len(found) == 1:
            text = f"{first} has not served for {duration(found[first])}: {lost[first]}"
        else:
            seconds = duration(min(found.values()))
            text = f"{plural(len(found), 'endpoint')} have not served for {seconds}; the first is {first}"
        facts = {name: {"seconds": round(found[name]), "reason": lost[name]} for name in shown}
        yield _event(EventKind.ENDPOINT, at, text, endpoints=facts, lost=len(found))


def _event(kind: EventKind, at: float, text: str, **facts: object) -> NotableEvent:
    facts["host"] = socket.gethostname()
    name = f"evt_{kind.partition('.')[0]}_{secrets.token_hex(8)}"
    return NotableEvent(id=name, kind=kind, at=round(at, 3), text=text, facts=facts)
