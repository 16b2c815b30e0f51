"""`obcd coordinator`: the daemon, in the foreground."""

from __future__ import annotations

import logging
import os

import click

from obcd.cli.common import config_option, find_layout, read_settings, root_option
from obcd.coordinator.coordinator import Coordinator
from obcd.coordinator.daemon import run
from obcd.errors import ExitCode
from obcd.lifeline import tie_to_parent
from obcd.logs import set_up_logging

EPILOG = """\b
Signals: TERM drains (what is in flight may finish, up to [requests] drain_seconds);
a second TERM, or INT, stops at once. Either way nothing that was answered is asked again.

\b
Example:
  obcd coordinator --config /etc/obcd/obcd.toml
"""


@click.command(epilog=EPILOG)
@config_option
@root_option
@click.option("-v", "--verbose", is_flag=True, help="log more")
def coordinator(config: str | None, root: str | None, verbose: bool) -> int:
    """run the daemon in the foreground.

    It watches the inbox, asks the endpoints and fills the outbox until it is told to stop.
    """
    set_up_logging(logging.DEBUG if verbose else logging.INFO)
    tie_to_parent(os.environ)
    os.umask(0o027)
    settings = read_settings(config)
    layout = find_layout(root, settings)
    logger = logging.getLogger(__name__)
    logger.info("inbox %s, outbox %s", layout.inbox, layout.outbox, extra={"action": "starting"})
    for endpoint in settings.endpoints():
        if not endpoint.is_private:
            extra = {"action": "public_endpoint", "endpoint": endpoint.name}
            logger.warning("endpoint %s is not on a private network: prompts leave it", endpoint.name, extra=extra)
    run(Coordinator(settings, layout))
    logger.info("stopped", extra={"action": "stopped"})
    return ExitCode.DONE
