"""What `[notify]` may hold, and the ways of one profile as one value. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from obcd.config.endpoints import HOST_NAME, is_loopback
from obcd.secret import Secret

#: The recipient that stands for the login of the user who dropped the job's file.
SUBMITTER = "submitter"
#: A login of this machine, which its mail system delivers to, and an address. Neither holds a character that means
#: something in a header or to a shell, and neither begins with a hyphen.
LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,63}@(?P<host>[A-Za-z0-9.-]{1,253})")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyWays:
    """How the events of one profile are sent, and which.

    Attributes:
        events: Values of `EventKind`.
        command: The program and its arguments; empty for none.
        webhook: A URL; "" for none. `secret` signs what is sent to it; None only before it was read.
        mail_to: Recipients: addresses, logins, `SUBMITTER`.
        mail_from: The sender; "" leaves it to sendmail.
        sendmail: The path of the program.
    """

    events: frozenset[str] = frozenset()
    command: tuple[str, ...] = ()
    command_seconds: float = 60.0
    webhook: str = ""
    secret: Secret | None = None
    mail_to: tuple[str, ...] = ()
    mail_from: str = ""
    sendmail: str = ""

    @property
    def is_used(self) -> bool:
        """Whether anything is ever sent."""
        return bool(self.events and (self.command or self.webhook or self.mail_to))


#: {profile, "" for the top level and for events without a job: its ways}
NotifyPlan = Mapping[str, NotifyWays]


def is_address(text: str) -> bool:
    """Return whether a text is a mail address in plain letters, e.g. `ops@example.org`."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and HOST_NAME.fullmatch(found["host"]) is not None


def checked_recipient(value: str) -> str:
    """Return a recipient.

    Raises:
        ValueError: If it is neither an address nor a login.
    """
    if not is_address(value) and not LOGIN.fullmatch(value):
        raise ValueError(f'must be an address, a login, or "{SUBMITTER}", not {value!r:.60}')
    return value


def checked_webhook(url: str) -> str:
    """Return a URL to which events may be sent: over TLS, or to this machine.

    Raises:
        ValueError: If it is another one; the message is the reason.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("it is not a URL: write https://host/path") from None
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("a URL has only printable ASCII without spaces: encode other characters (%20)")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("a webhook is https://host/path, without user and fragment: its signature proves the sender")
    if port == 0 or not (HOST_NAME.fullmatch(host) or ":" in host):
        raise ValueError("it is not a URL with a host: write https://host/path")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("it must begin with https://; http:// is for this machine alone (127.0.0.1, localhost)")
    return url
