"""`obcd coordinator`: the daemon, in the foreground."""

from __future__ import annotations

import logging
import os
import signal

import click

from obcd.cli.common import config_option, find_layout, read_settings, root_option
from obcd.config.loading import load_settings
from obcd.config.settings import Settings
from obcd.config.tokens import with_tokens, with_webhook_secrets
from obcd.coordinator.daemon import UntilIdle, run
from obcd.coordinator.endpoints.public_endpoints import warn_of_exposed
from obcd.coordinator.main_loop import Coordinator
from obcd.core_dumps import forbid_core_dumps
from obcd.errors import ExitCode
from obcd.logs.setup import set_up_logging
from obcd.parent_death import tie_to_parent
from obcd.spool.folders.layout import Layout

EPILOG = """\b
Signals: TERM drains (requests in flight may finish, up to [requests] drain_seconds);
a second TERM, or INT, stops at once. No request that has a result is sent again.
HUP reads the configuration again while jobs run; `obcd reload` does that and waits for the outcome.
Because of HUP, closing the terminal does not end the coordinator: Ctrl-C does.

\b
Examples:
  obcd coordinator --config /etc/obcd/obcd.toml
  obcd coordinator --until-idle 300
"""


@click.command(epilog=EPILOG)
@config_option
@root_option
@click.option(
    "--until-idle",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="end when no file and no job has been left for this long; paused jobs do not count",
)
@click.option("-v", "--verbose", is_flag=True, help="log more")
def coordinator(config: str | None, root: str | None, until_idle: float | None, verbose: bool) -> int:
    """run the daemon in the foreground.

    It watches the inbox, sends requests to the endpoints and fills the outbox until a signal stops it, or with
    --until-idle until nothing is left to do.
    """
    # A HUP before the handler is set, or after it is removed, must not end this process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    set_up_logging(logging.DEBUG if verbose else logging.INFO)
    tie_to_parent(os.environ)
    forbid_core_dumps()
    os.umask(0o027)
    settings = with_webhook_secrets(with_tokens(read_settings(config)))
    layout = find_layout(root, settings)
    logger = logging.getLogger(__name__)
    logger.info("inbox %s, outbox %s", layout.inbox, layout.outbox, extra={"action": "starting"})
    warn_of_exposed(settings.endpoints())
    made = Coordinator(settings, layout)

    def reread() -> tuple[Settings, Layout]:
        """Read the same file again; if there was none at the start, look for one."""
        source = made.settings.source
        again = with_webhook_secrets(with_tokens(read_settings(config) if source is None else load_settings(source)))
        return again, find_layout(root, again)

    each_turn = None if until_idle is None else UntilIdle(made, until_idle)
    run(made, each_turn, reread, shares_status=bool(os.environ.get("SLURM_JOB_ID")))
    logger.info("stopped", extra={"action": "stopped"})
    return ExitCode.DONE
