"""`obcd notify`: try the ways of `[notify]`."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import replace

import click

from obcd.cli.common import config_option, read_settings, say
from obcd.clock import wall
from obcd.config.tokens import with_webhook_secrets
from obcd.core.events import JOB_KINDS, EventKind, NotableEvent
from obcd.errors import ConfigurationError, ExitCode, UsageError
from obcd.notifications.sending import send
from obcd.notifications.ways import DeliveryError, route_of, ways_of

EPILOG = """\b
Examples:
  sudo -u obcd obcd notify test
  sudo -u obcd obcd notify test --profile clinical --event job.failures

\b
Exit codes: 0 sent by every way, 3 not sent by some, 4 the configuration is wrong or names no way.
"""
#: The facts of an example, which a receiver can be developed with.
EXAMPLE = {
    "name": "example.jsonl",
    "counts": {"lines": 10, "requests": 10, "responses": 8, "failures": 2},
    "failures_by_class": {"timeout": 2},
    "folder": "/var/spool/obcd/outbox/example",
}


@click.group()
def notify() -> None:
    """try the notifications of [notify].

    The coordinator sends them by itself; `obcd help notifications` explains them.
    """


@notify.command(epilog=EPILOG)
@config_option
@click.option("--profile", metavar="NAME", default="", help="by the ways of this profile  [default: the top level's]")
@click.option(
    "--event",
    type=click.Choice([kind.value for kind in EventKind]),
    metavar="EVENT",
    default=EventKind.TEST.value,
    show_default=True,
    help=f"send an example of this event: {', '.join(EventKind)}",
)
def test(config: str | None, profile: str, event: str) -> int:
    """send a test by every way, now, and say what became of it.

    Run it as the daemon's user, who sends notifications and may read the webhook's secret. Here "submitter" is the user
    who runs it.
    """
    settings = with_webhook_secrets(read_settings(config))
    plan = settings.notify_plan()
    if profile not in plan:
        raise UsageError(f"the configuration has no profile {profile!r}")
    ways = plan[profile]
    made = _example(EventKind(event), profile)
    wanted = sorted(ways_of(made, replace(ways, events=frozenset(EventKind))))  # also what the configuration leaves out
    if not wanted:
        place = f"[profiles.{profile}.notify]" if profile else "[notify]"
        raise ConfigurationError(
            f"{place} names no way to send: set command, webhook or mail_to; obcd help notifications has examples"
        )
    failed = 0
    for way in wanted:
        label = route_of(way, ways).label
        try:
            send(made, way, ways)
        except DeliveryError as error:
            failed += 1
            say(f"not sent by {label}: {error}")
        else:
            say(f"sent by {label}")
    return ExitCode.PARTIAL if failed else ExitCode.DONE


def _example(kind: EventKind, profile: str) -> NotableEvent:
    is_job = kind in JOB_KINDS
    what = "notifications" if kind is EventKind.TEST else f"the notification {kind}"
    return NotableEvent(
        id=f"evt_test_{secrets.token_hex(8)}",
        kind=kind,
        at=wall(),
        text=f"a test of {what}: nothing has happened",
        profile=profile,
        job="20260101T000000-000000000000" if is_job else "",
        uid=os.getuid(),
        facts={**(EXAMPLE if is_job else {}), "test": True, "host": socket.gethostname()},
    )
