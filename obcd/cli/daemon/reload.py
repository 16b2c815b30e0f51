"""`obcd reload`: make the running coordinator read its configuration again, and wait for the outcome."""

from __future__ import annotations

import click

from obcd.cli.common import config_option, find_layout_anyway, root_option, say
from obcd.coordinator.reload_request import ask_to_reload
from obcd.errors import ExitCode, InputError
from obcd.text import printable

EPILOG = """\b
Endpoints are added, drained and removed, and profiles and settings change, while jobs
run: no request is lost or sent twice. Accepted jobs keep the settings they were
accepted with. A file with an error changes nothing; `obcd status` and
`systemctl status` show the error until the next successful reload.

\b
The coordinator reads the file that it was started with: --config and --root only name
the coordinator. A change of [spool] root or inbox needs a restart. The coordinator waits
for a file that is being written; it refuses one that is empty or has lost its
[ollama_instances].

\b
Exit codes: 0 done, 4 the configuration is wrong (the old one stays in use), 5 no coordinator
runs there, or it is stopping, or it is another user's or an obcd batch, 8 no outcome within --timeout.

\b
Examples:
  obcd reload
  sudo systemctl reload obcd-coordinator
"""


@click.command(epilog=EPILOG)
@click.option(
    "--timeout", type=click.FloatRange(0), default=30.0, show_default=True, help="seconds to wait for the outcome"
)
@config_option
@root_option
def reload(timeout: float, config: str | None, root: str | None) -> int:
    """make the coordinator read its configuration again.

    Prints in one line what changed.
    """
    layout, fault = find_layout_anyway(config, root)
    try:
        outcome = ask_to_reload(layout, timeout)
    except InputError:
        if fault is not None:  # a wrong file may name a wrong spool: report the error in the file
            raise fault from None
        raise
    text = "\n".join(printable(line) for line in outcome.text.split("\n"))
    say(text if outcome.is_ok else f"obcd: {text}")
    return ExitCode.DONE if outcome.is_ok else outcome.exit_code
