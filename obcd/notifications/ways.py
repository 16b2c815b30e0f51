"""The ways by which an event can be sent, and which of them one event takes. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from obcd.config.notify_values import LOGIN, SUBMITTER, NotifyWays
from obcd.core.events import EventKind, NotableEvent
from obcd.errors import ObcdError
from obcd.users import find_user_name


class Way(StrEnum):
    """A way to send."""

    COMMAND = "command"
    WEBHOOK = "webhook"
    MAIL = "mail"


class DeliveryError(ObcdError):
    """An event was not sent; the message is the reason.

    Attributes:
        is_final: Whether another attempt cannot succeed either.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Route(NamedTuple):
    """Where something is sent: what fails for one event there fails for the next one too.

    Attributes:
        target: The command's words, the URL, or "".
    """

    way: Way
    target: str

    @property
    def label(self) -> str:
        """The route for people; a URL may hold a secret, so that only its host is shown."""
        match self.way:
            case Way.COMMAND:
                return f"the command {self.target.partition(chr(0))[0]}"
            case Way.WEBHOOK:
                return f"the webhook at {urlsplit(self.target).hostname}"
            case Way.MAIL:
                return "mail"


def route_of(way: Way, ways: NotifyWays) -> Route:
    """Return the route of one way of a profile."""
    match way:
        case Way.COMMAND:
            return Route(way, "\0".join(ways.command))
        case Way.WEBHOOK:
            return Route(way, ways.webhook)
        case Way.MAIL:
            return Route(way, "")


def recipients(event: NotableEvent, ways: NotifyWays) -> list[str]:
    """Return who gets a mail: `submitter` is a login here, and nobody where the event has no submitter."""
    found: dict[str, None] = {}
    for name in ways.mail_to:
        login = find_user_name(event.uid) if name == SUBMITTER and event.uid >= 0 else ""
        known = login if name == SUBMITTER else name
        if known and (name != SUBMITTER or LOGIN.fullmatch(known)):
            found[known] = None
    return list(found)


def ways_of(event: NotableEvent, ways: NotifyWays) -> frozenset[Way]:
    """Return the ways that an event takes."""
    if event.kind not in ways.events and event.kind != EventKind.TEST:
        return frozenset()
    wanted = {Way.COMMAND: ways.command, Way.WEBHOOK: ways.webhook, Way.MAIL: recipients(event, ways)}
    return frozenset(way for way, value in wanted.items() if value)
