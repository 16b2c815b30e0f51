"""Compose the mail of an event, and give it to the machine's own mail system by `sendmail -i -t`.

A job's name reaches a header only encoded (RFC 2047), and the program only on its standard input, never as an argument.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.header import Header
from email.mime.text import MIMEText
from email.utils import format_datetime

from obcd.core.events import NotableEvent
from obcd.notifications.programs import run_program
from obcd.text import one_line

#: Seconds that the mail system may take to accept a mail.
LIMIT_SECONDS = 60.0
#: Longest subject, in characters.
MAX_SUBJECT = 160
FOOT = "Sent by obcd on {host}: `obcd help notifications` says how."


def send_mail(sendmail: str, sender: str, to: Sequence[str], event: NotableEvent) -> None:
    """Give the mail of an event to the mail system.

    Raises:
        DeliveryError: If it does not accept the mail.
    """
    # -i: a line with a dot alone does not end the mail. -t: the recipients are those of the header.
    run_program([sendmail, "-i", "-t"], compose(sender, to, event), LIMIT_SECONDS)


def compose(sender: str, to: Sequence[str], event: NotableEvent) -> bytes:
    """Return the mail as bytes: ASCII, and lines that end by LF, as sendmail expects.

    Args:
        sender: "" leaves it to the mail system.
        to: Logins and addresses, as `checked_recipient` accepts them.
    """
    host, text = _host(), one_line(event.text)
    subject = f"obcd: {text}"
    fields = {
        "From": sender,
        "To": ",\n ".join(to),
        "Subject": _encoded(subject if len(subject) <= MAX_SUBJECT else subject[: MAX_SUBJECT - 1] + "…"),
        "Date": format_datetime(datetime.fromtimestamp(int(event.at), UTC)),
        "Message-ID": f"<{event.id}@{host}>",  # the same whenever it is sent: a repeated mail can be recognized
        "Auto-Submitted": "auto-generated",  # RFC 3834: no absence note answers it
        "X-Obcd-Event": event.kind,
    }
    head = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    lines = [text, "", *_facts(event.message()["data"]), "", FOOT.format(host=host)]
    return head.encode("ascii") + MIMEText("\n".join(lines) + "\n", "plain", "utf-8").as_bytes()


def _encoded(subject: str) -> str:
    """Return a subject as the value of a header.

    Not by EmailMessage: it decodes an encoded word that stands in the text, and writes what is in it (Python 3.11, e.g.
    a line break and `Bcc:`). So a text that has one is encoded as a whole.
    """
    return subject if subject.isascii() and "=?" not in subject else Header(subject, "utf-8").encode()


def _facts(value: object, name: str = "") -> Iterator[str]:
    """Yield a line for each fact, e.g. `counts.failures: 2`; the sentence stands above them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if name or key != "text":
                yield from _facts(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield from (f"{name}: {one_line(str(item))}" for item in value)
    elif value not in (None, ""):
        yield f"{name}: {one_line(str(value))}"


def _host() -> str:
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.-]{1,200}", name) else "localhost"
