"""`obcd reload`: have the running coordinator read its configuration again, and wait for the outcome."""

from __future__ import annotations

import click

from obcd.cli.common import config_option, find_layout_anyway, root_option, say
from obcd.coordinator.reload_request import ask_to_reload
from obcd.errors import ExitCode, InputError
from obcd.text import printable

EPILOG = """\b
Endpoints come, drain and go, profiles and settings change, with jobs running:
nothing is lost, nothing is asked twice. Accepted jobs keep the settings they were
accepted with. A mistake in the file changes nothing at all; it also stands in
`obcd status` and `systemctl status` until the next good reload.

\b
The coordinator reads the file that it was started with: --config and --root only say
which coordinator is meant. [spool] root and inbox need a restart. A file that is being written is waited for; one that
is empty, or has lost its [ollama_instances], is refused.

\b
Exit codes: 0 done, 4 the configuration is wrong (the old one goes on), 5 no coordinator
runs there, or it is stopping, or it is another user's or an obcd batch, 8 no outcome within --timeout.

\b
Examples:
  obcd reload
  sudo systemctl reload obcd-coordinator
"""


@click.command(epilog=EPILOG)
@click.option(
    "--timeout", type=click.FloatRange(0), default=30.0, show_default=True, help="most seconds to wait for the outcome"
)
@config_option
@root_option
def reload(timeout: float, config: str | None, root: str | None) -> int:
    """have the coordinator read its configuration again.

    Says in one line what changed.
    """
    layout, fault = find_layout_anyway(config, root)
    try:
        outcome = ask_to_reload(layout, timeout)
    except InputError:
        if fault is not None:  # nobody runs where a wrong file can point to: the file is what has to be mended
            raise fault from None
        raise
    text = "\n".join(printable(line) for line in outcome.text.split("\n"))
    say(text if outcome.is_ok else f"obcd: {text}")
    return ExitCode.DONE if outcome.is_ok else outcome.exit_code
