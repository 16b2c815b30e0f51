"""Compose the mail of an event, and give it to the machine's own mail system by `sendmail -i -t`.

A job's name reaches a header only encoded (RFC 2047), and the program only on its standard input, never as an argument.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import default
from email.utils import format_datetime

from obcd.core.events import NotableEvent
from obcd.notifications.programs import run_program
from obcd.text import one_line

#: Seconds that the mail system may take to accept a mail.
LIMIT_SECONDS = 60.0
#: Longest subject, in characters.
MAX_SUBJECT = 160
#: Lines end by LF, as sendmail expects; text that is not ASCII is encoded, also in the body.
POLICY = default.clone(cte_type="7bit", linesep="\n")
FOOT = "Sent by obcd on {host}: `obcd help notifications` says how."


def send_mail(sendmail: str, sender: str, to: Sequence[str], event: NotableEvent) -> None:
    """Give the mail of an event to the mail system.

    Raises:
        DeliveryError: If it does not accept the mail.
    """
    # -i: a line with a dot alone does not end the mail. -t: the recipients are those of the header.
    run_program([sendmail, "-i", "-t"], compose(sender, to, event), LIMIT_SECONDS)


def compose(sender: str, to: Sequence[str], event: NotableEvent) -> bytes:
    """Return the mail as bytes, in ASCII.

    Args:
        sender: "" leaves it to the mail system.
        to: Logins and addresses, as `checked_recipient` accepts them.
    """
    host = _host()
    subject = f"obcd: {one_line(event.text)}"
    mail = EmailMessage(policy=POLICY)
    if sender:
        mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Subject"] = subject if len(subject) <= MAX_SUBJECT else subject[: MAX_SUBJECT - 1] + "…"
    mail["Date"] = format_datetime(datetime.fromtimestamp(int(event.at), UTC))
    mail["Message-ID"] = f"<{event.id}@{host}>"  # the same whenever it is sent: a repeated mail can be recognized
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence note answers it
    mail["X-Obcd-Event"] = event.kind
    lines = [one_line(event.text), "", *_facts(event.message()["data"]), "", FOOT.format(host=host)]
    mail.set_content("\n".join(lines) + "\n", charset="utf-8")
    return mail.as_bytes()


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
