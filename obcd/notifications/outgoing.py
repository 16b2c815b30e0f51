"""The events that are to be sent, and what becomes of each attempt.

    root/events/ ─look─► tasks ─due─► attempts (in threads) ─settle─► the file is removed when every way has succeeded

What fails is a route (a program, a receiver, the mail system) and not an event, so that the pauses grow by route: a
receiver that hangs costs one attempt for each pause, however many events wait for it. After a failure another event is
tried next, so that one that a receiver refuses does not hold up the others.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from obcd.clock import wall
from obcd.config.notify_values import NotifyPlan, NotifyWays
from obcd.core.endpoint.retry import pause
from obcd.core.events import EventKind, NotableEvent
from obcd.errors import ObcdError
from obcd.notifications.ways import DeliveryError, Route, Way, route_of, ways_of
from obcd.spool.folders.event_files import EventFile, find_events, folder_of, read_event, remove_event, write_event
from obcd.text import plural

logger = logging.getLogger(__name__)

#: First and longest pause of a route that fails, in seconds.
BASE_SECONDS, MOST_SECONDS = 5.0, 3600.0
#: The age of an event after which a failed attempt at it is the last one, in seconds.
GIVE_UP_SECONDS = 86400.0
#: Age of a change of the folder, in nanoseconds, from which on its time says that nothing has come since: a file
#: system's clock moves in steps of some milliseconds.
SETTLED_NS = 10**9


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that is due: send the event by this way."""

    event: NotableEvent
    way: Way
    ways: NotifyWays

    @property
    def route(self) -> Route:
        """Where it goes."""
        return route_of(self.way, self.ways)


@dataclass(slots=True)
class _Task:
    """An event that is not sent yet by some ways; small, because thousands may wait for a receiver that is down."""

    at: float
    profile: str
    left: set[Way]
    sent: set[str]


@dataclass(slots=True)
class _Trouble:
    """A route that fails: how often in a row, until when it pauses, and why."""

    failures: int = 0
    retry_at: float = 0.0
    reason: str = ""


@dataclass(slots=True)
class Outgoing:
    """Decides what is sent next. One thread only; `now` is in monotonic seconds, `at` in Unix seconds.

    Attributes:
        root, jobs: Folders of the spool.
    """

    root: Path
    jobs: Path
    plan: NotifyPlan = field(default_factory=dict)
    _tasks: dict[str, _Task] = field(default_factory=dict)
    #: {route: the ids of the events that wait for it, the next one first}
    _queues: dict[Route, dict[str, None]] = field(default_factory=dict)
    #: Events that could not be written to disk: they are sent all the same.
    _unwritten: dict[str, NotableEvent] = field(default_factory=dict)
    #: Events that are sent and whose files could not be removed.
    _done: set[str] = field(default_factory=set)
    #: Names of files that could not be read, which is logged once.
    _unreadable: set[str] = field(default_factory=set)
    #: Whether a file is to be read again although the folder does not change.
    _held: bool = False
    _seen_ns: int = 0
    _busy: set[Route] = field(default_factory=set)
    _troubles: dict[Route, _Trouble] = field(default_factory=dict)

    def configure(self, plan: NotifyPlan) -> None:
        """Use another configuration; what waits is sent by its ways, and at once."""
        self.plan = plan
        self._tasks.clear()
        self._queues.clear()
        self._troubles.clear()
        self._seen_ns = 0
        for event in list(self._unwritten.values()):
            self._take_in(event, frozenset())

    def add(self, event: NotableEvent) -> None:
        """Add an event: to the disk, or only here if the disk refuses, as it does when a full disk is the event."""
        try:
            write_event(self.root, event)
        except (OSError, ObcdError) as error:
            why = getattr(error, "strerror", None) or str(error)
            logger.warning(
                "an event cannot be written: %s; it is sent anyway", why, extra={"action": "event_unwritten"}
            )
            self._unwritten[event.id] = event
            self._take_in(event, frozenset())

    def look(self) -> None:
        """Find the events that have come into the folder."""
        try:
            changed_ns = os.stat(folder_of(self.root)).st_mtime_ns
        except OSError:
            return
        if changed_ns == self._seen_ns and not self._held:
            return
        self._seen_ns = changed_ns if wall() * 1e9 - changed_ns > SETTLED_NS else 0
        self._held = False
        fresh: list[EventFile] = []
        for name in find_events(self.root):
            if name in self._tasks or name in self._done:
                continue
            found = read_event(self.root, name)
            if found is not None and self._is_true(found.event):
                fresh.append(found)
                continue
            self._held = True
            if found is None and name not in self._unreadable:
                self._unreadable.add(name)
                extra = {"action": "event_unreadable"}
                logger.warning("%s.json is not an event that obcd wrote, or cannot be read", name, extra=extra)
        for item in sorted(fresh, key=lambda item: item.event.at):
            self._take_in(item.event, item.sent)

    def _is_true(self, event: NotableEvent) -> bool:
        """Return whether an event has happened: that of a publication is written just before the rename."""
        if event.kind not in (EventKind.PUBLISHED, EventKind.FAILURES):
            return True
        return not (self.jobs / event.job).exists()

    def _take_in(self, event: NotableEvent, sent: frozenset[str]) -> None:
        ways = self._ways(event.profile)
        left = {way for way in ways_of(event, ways) if way not in sent}
        if not left:
            self._forget(event.id)
            return
        self._tasks[event.id] = _Task(event.at, event.profile, left, set(sent))
        for way in left:
            self._queues.setdefault(route_of(way, ways), {})[event.id] = None

    def _ways(self, profile: str) -> NotifyWays:
        """Return the ways of a profile; of one that the configuration does not name any more, the top level's."""
        return self.plan.get(profile) or self.plan.get("") or NotifyWays()

    def due(self, now: float) -> list[Attempt]:
        """Return the attempts to begin now, at most one for each route; each is settled by `settle`."""
        found: list[Attempt] = []
        for route in list(self._queues):
            trouble = self._troubles.get(route)
            is_pausing = trouble is not None and now < trouble.retry_at
            if route not in self._busy and not is_pausing and (event := self._next(route)) is not None:
                self._busy.add(route)
                found.append(Attempt(event, route.way, self._ways(event.profile)))
        return found

    def _next(self, route: Route) -> NotableEvent | None:
        """Return the first event in a queue; one whose file was removed from outside is forgotten."""
        queue = self._queues[route]
        while queue:
            name = next(iter(queue))
            if (event := self._unwritten.get(name)) is not None:
                return event
            if (file := read_event(self.root, name)) is not None:
                return file.event
            del queue[name]
            if (task := self._tasks.get(name)) is not None:
                task.left.discard(route.way)
                if not task.left:
                    del self._tasks[name]
        del self._queues[route]
        return None

    def settle(self, attempt: Attempt, error: DeliveryError | None, now: float, at: float) -> None:
        """Record the outcome of an attempt; None means that the event was sent."""
        route, event = attempt.route, attempt.event
        self._busy.discard(route)
        extra = {"action": "notification_sent", "event": event.id, "way": attempt.way, "job": event.job}
        if error is None:
            self._troubles.pop(route, None)
            logger.info("a notification of %s was sent by %s", event.kind, route.label, extra=extra)
            self._end(event.id, route)
            return
        if error.is_final:
            extra["action"] = "notification_refused"
            logger.error("a notification of %s is not sent by %s: %s", event.kind, route.label, error, extra=extra)
            self._end(event.id, route)
            return
        queue = self._queues.get(route, {})
        if event.id in queue:  # to the end: another one is tried next
            del queue[event.id]
            queue[event.id] = None
        trouble = self._troubles.setdefault(route, _Trouble())
        trouble.failures += 1
        trouble.reason = str(error)
        trouble.retry_at = now + pause(trouble.failures, BASE_SECONDS, MOST_SECONDS, route.label)
        if trouble.failures == 1:
            extra["action"] = "notification_failed"
            text = "a notification of %s cannot be sent by %s: %s; obcd tries it again for a day"
            logger.warning(text, event.kind, route.label, error, extra=extra)
        self._give_up(route, at, str(error))

    def _give_up(self, route: Route, at: float, reason: str) -> None:
        """Give up what has waited for a day for a route that has just failed again."""
        old = [name for name in self._queues.get(route, ()) if at - self._tasks[name].at > GIVE_UP_SECONDS]
        if old:
            extra = {"action": "notification_given_up", "events": old[:10]}
            what = plural(len(old), "notification")
            logger.error("%s by %s given up after a day: %s", what, route.label, reason, extra=extra)
        for name in old:
            self._end(name, route)

    def _end(self, event: str, route: Route) -> None:
        """Record that nothing more is to be sent of an event on a route; after the last one its file is removed."""
        self._queues.get(route, {}).pop(event, None)
        task, file = self._tasks.get(event), read_event(self.root, event)
        sent = {*(file.sent if file is not None else ()), route.way}
        if task is not None:
            task.left.discard(route.way)
            sent |= task.sent
            task.sent = sent
            if not task.left:
                del self._tasks[event]
                self._forget(event)
                return
        if file is not None:  # without a task the configuration has changed meanwhile: the next look takes it in
            self._note(file.event, sent)

    def _note(self, event: NotableEvent, sent: set[str]) -> None:
        with contextlib.suppress(OSError, ObcdError):  # then it may be sent twice, which is allowed
            write_event(self.root, event, sent)

    def _forget(self, event: str) -> None:
        if self._unwritten.pop(event, None) is not None:
            return
        try:
            remove_event(self.root, event)
        except OSError as error:
            self._done.add(event)
            extra = {"action": "event_kept"}
            logger.warning("the file of a sent event cannot be removed: %s", error.strerror, extra=extra)

    @property
    def waiting(self) -> int:
        """The number of notifications that are not sent, those under way included."""
        return sum(map(len, self._queues.values()))

    @property
    def is_sending(self) -> bool:
        """Whether an attempt is under way."""
        return bool(self._busy)

    def next_due(self) -> float | None:
        """Return when the next route may be tried again; None if no pause is under way."""
        return min((item.retry_at for route, item in self._troubles.items() if route not in self._busy), default=None)

    def troubles(self) -> tuple[str, ...]:
        """Return the sentences for people on routes that fail."""
        return tuple(
            f"notifications by {route.label} fail: {item.reason}; {plural(len(queue), 'notification')} "
            f"{'waits' if len(queue) == 1 else 'wait'} for it, and obcd tries again by itself"
            for route, item in self._troubles.items()
            if (queue := self._queues.get(route))
        )
