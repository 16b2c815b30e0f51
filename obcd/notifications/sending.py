"""Send one event by one way."""

from __future__ import annotations

from obcd.config.notify_values import NotifyWays
from obcd.core.events import NotableEvent
from obcd.notifications.mail import send_mail
from obcd.notifications.programs import run_program
from obcd.notifications.ways import DeliveryError, Way, recipients
from obcd.notifications.webhook import post_event


def send(event: NotableEvent, way: Way, ways: NotifyWays) -> None:
    """Send an event, and wait until the receiver has it.

    Raises:
        DeliveryError: If it was not sent.
    """
    match way:
        case Way.COMMAND:
            run_program(ways.command, event.body() + b"\n", ways.command_seconds)
        case Way.MAIL:
            send_mail(ways.sendmail, ways.mail_from, recipients(event, ways), event)
        case Way.WEBHOOK:
            if ways.secret is None:
                raise DeliveryError("the secret of the webhook was not read", is_final=True)
            post_event(ways.webhook, ways.secret, event)
