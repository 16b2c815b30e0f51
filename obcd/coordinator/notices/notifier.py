"""The notifier: a child process that sends notifications, so that no receiver delays the main loop.

    clerk ───────write_event──────► root/events/ ◄─look─ notifier ─► command, webhook, mail
    coordinator ─RaiseEvent───────────────────────────►  │
                ◄─EventTaken, Standing───────────────────┘

A notifier that dies is replaced, and finds in the folder what is left to send.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obcd.clock import monotonic, wall
from obcd.config.notify_values import NotifyPlan
from obcd.config.settings import Settings
from obcd.core.endpoint.retry import pause
from obcd.core.events import NotableEvent
from obcd.errors import InputError
from obcd.logs.setup import set_up_logging
from obcd.notifications.outgoing import Outgoing
from obcd.notifications.sender import Sender
from obcd.spool.folders.event_files import close_folder, folder_of, open_folder
from obcd.spool.folders.layout import Layout
from obcd.workers.channel import Channel, ClosedError, exit_at_the_end_of
from obcd.workers.pool import Child, try_to_start

logger = logging.getLogger(__name__)

#: First and longest pause before a notifier that died is replaced, in seconds.
RESTART_BASE, RESTART_LIMIT = 1.0, 60.0
#: Seconds that a notifier may go on at the end of the coordinator, to send what has just come.
FINISH_SECONDS = 5.0
#: The niceness of the notifier and of the programs that it starts.
NICENESS = 10
#: Most events that wait here while no notifier runs.
MOST_RAISED = 100


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Coordinator → notifier: the ways of each profile."""

    plan: NotifyPlan


@dataclass(frozen=True, slots=True)
class RaiseEvent:
    """Coordinator → notifier: an event that the coordinator has seen. It is not written yet."""

    event: NotableEvent


@dataclass(frozen=True, slots=True)
class FinishSending:
    """Coordinator → notifier: end as soon as nothing is under way and nothing can be sent at present."""


@dataclass(frozen=True, slots=True)
class EventTaken:
    """Notifier → coordinator: it has the event, on disk unless the disk refuses."""

    event: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Notifier → coordinator: what fails, for people; sent when it changes."""

    troubles: tuple[str, ...]


def run_notifier(sock: socket.socket, root: Path, jobs: Path) -> None:
    """Send until the channel closes, or until `FinishSending` and nothing is left; the target of the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ignore)  # SIG_IGN would go on to the programs that are started
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the fork server has it blocked
    with contextlib.suppress(OSError):  # a unit may forbid it
        os.nice(NICENESS)
    set_up_logging()
    channel = Channel(sock)
    exit_at_the_end_of(channel)
    sender = Sender(Outgoing(root, jobs))
    with contextlib.suppress(ClosedError):
        _serve(channel, sender)
    sender.close()


def _ignore(number: int, frame: object) -> None:
    """Ignore a signal: the coordinator decides when the notifier ends."""


def _serve(channel: Channel, sender: Sender) -> None:
    outgoing = sender.outgoing
    is_ending = False
    standing = Standing(())
    select.select([channel], [], [])  # the plan comes first
    while True:
        for message in _received(channel):
            match message:
                case SetPlan(plan):
                    outgoing.configure(plan)
                case RaiseEvent(event):
                    outgoing.add(event)
                    channel.send(EventTaken(event.id))
                case FinishSending():
                    is_ending = True
                case _:
                    raise TypeError(type(message).__name__)
        seconds = sender.turn(monotonic(), wall())
        if (now := Standing(outgoing.troubles())) != standing:
            standing = now
            channel.send(standing)
        if is_ending and not outgoing.is_sending:
            return
        select.select([channel.fileno(), sender.fileno()], [], [], seconds)


def _received(channel: Channel) -> list[Any]:
    ready, _, _ = select.select([channel], [], [], 0)
    return channel.receive() if ready else []


class Notifier:
    """The coordinator's side. Main thread only; `now` is in monotonic seconds.

    Args:
        is_used: Whether notifications are sent at all; not in `obcd batch`, whose user sees how it ends.
        start: Starts the child; None if the machine refuses.
    """

    def __init__(self, layout: Layout, *, is_used: bool = True, start: Callable[[], Any] | None = None) -> None:
        self._layout = layout
        self._is_used = is_used
        self._start = start or self._start_child
        self._plan: NotifyPlan = {}
        self._child: Any = None
        self._start_at = self._began = 0.0
        self._deaths = 0
        #: {id: event that no notifier has taken yet}
        self._raised: dict[str, NotableEvent] = {}
        self.troubles: tuple[str, ...] = ()

    @property
    def is_wanted(self) -> bool:
        """Whether the configuration wants notifications."""
        return any(ways.is_used for ways in self._plan.values())

    def configure(self, settings: Settings) -> None:
        """Use another configuration; the folder of events exists from now on exactly if notifications are wanted.

        Raises:
            InputError: If the folder cannot be made, or removed; the old configuration stays in force then.
        """
        plan = settings.notify_plan() if self._is_used else {}
        root = self._layout.root
        try:
            if any(ways.is_used for ways in plan.values()):
                open_folder(root)
            elif folder_of(root).is_dir():
                close_folder(root)
        except OSError as error:
            raise InputError(f"cannot prepare the folder {folder_of(root)}: {error.strerror}") from None
        is_new, self._plan = plan != self._plan, plan
        if not self.is_wanted:
            self._end_child()
            self._raised.clear()
        elif is_new:
            self._send(SetPlan(plan))

    def raise_event(self, event: NotableEvent) -> None:
        """Have the notifier write an event and send it; nothing happens if no notification is wanted."""
        if self.is_wanted and len(self._raised) < MOST_RAISED:
            self._raised[event.id] = event
            self._send(RaiseEvent(event))

    def filenos(self) -> list[int]:
        """Return the descriptors to wait on."""
        return [self._child.channel.fileno()] if self._child is not None else []

    @property
    def pids(self) -> Mapping[str, int | None]:
        """`{name of the child: its process id}`; empty if no notifications are wanted."""
        return {"notifier": self._child.pid if self._child is not None else None} if self.is_wanted else {}

    def tick(self, now: float, readable: Collection[int] | None = None) -> None:
        """Receive from the notifier, or start one.

        Args:
            readable: Descriptors that can be read; None: not known.
        """
        child = self._child
        if child is None:
            if self.is_wanted and now >= self._start_at:
                self._begin(now)
        elif readable is None or child.channel.wants_write or child.channel.fileno() in readable:
            self._receive(now)

    def replace_stopped(self, now: float) -> None:
        """Replace a notifier that was stopped from outside (SIGSTOP)."""
        if self._child is not None and self._child.is_stopped:
            self._bury(now)

    def stop(self, seconds: float = FINISH_SECONDS) -> None:
        """End the notifier; it may first send what has just come. The rest is sent after the next start."""
        child, until = self._child, monotonic() + seconds
        self._send(FinishSending())
        while self._child is not None and self._child is child:
            left = until - monotonic()
            if left <= 0:
                break
            ready, _, _ = select.select([child.channel], [], [], left)
            try:
                if ready:
                    child.channel.receive()
            except ClosedError:
                break
        self._end_child()

    def _begin(self, now: float) -> None:
        self._began = now
        self._start_at = now + RESTART_BASE  # if the machine refuses
        self._child = self._start()
        self._send(SetPlan(self._plan))
        for event in self._raised.values():
            self._send(RaiseEvent(event))

    def _start_child(self) -> Child | None:
        return try_to_start("notifier", run_notifier, self._layout.root, self._layout.jobs)

    def _send(self, message: SetPlan | RaiseEvent | FinishSending) -> None:
        if self._child is not None:
            with contextlib.suppress(ClosedError):  # the next `tick` notices
                self._child.channel.send(message)

    def _receive(self, now: float) -> None:
        try:
            messages = self._child.channel.receive()
        except ClosedError:
            self._bury(now)
            return
        for message in messages:
            match message:
                case EventTaken(event):
                    self._raised.pop(event, None)
                case Standing(troubles):
                    self.troubles = troubles
                case _:
                    raise TypeError(type(message).__name__)

    def _bury(self, now: float) -> None:
        """Remove a notifier that is gone; `tick` starts another one after a pause that grows."""
        logger.warning("the notifier is gone, another one starts", extra={"action": "notifier_lost"})
        self._end_child()
        self._deaths = self._deaths + 1 if now - self._began < RESTART_LIMIT else 1
        self._start_at = now + pause(self._deaths, RESTART_BASE, RESTART_LIMIT)

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
        self.troubles = ()
