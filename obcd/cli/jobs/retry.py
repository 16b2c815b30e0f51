"""`obcd retry`: drop the failed lines of published jobs again."""

from __future__ import annotations

import click

from obcd.cli.common import (
    START,
    config_option,
    find_layout,
    is_running,
    is_watched,
    read_settings,
    root_option,
    say,
    shown_path,
)
from obcd.config.settings import Settings
from obcd.errors import ExitCode, InputError
from obcd.spool.folders.layout import Layout
from obcd.text import plural, printable

EPILOG = """\b
JOB is the folder of a published job, its id, or the name it was dropped with. Its
retry.jsonl (the failed lines, byte for byte) is dropped with the same profile, as
notes.retry.jsonl. The answers come to a new folder; the first folder does not
change. obcd print, merge and verify of the first folder combine both. A job whose
retry is published or running is not retried: retry the retry.

\b
Examples:
  obcd retry /var/spool/obcd/outbox/notes
  obcd retry clinical/notes.jsonl && obcd status
  obcd merge --input-dir /var/spool/obcd/outbox/notes --output-file notes.json

\b
Exit codes: 0 dropped, nothing had failed, or retried before; 4 wrong configuration; 5 there is
no such published job, or its lines could not be dropped.
"""


@click.command(epilog=EPILOG)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@config_option
@root_option
def retry(jobs: tuple[str, ...], config: str | None, root: str | None) -> int:
    """drop the failed lines of published jobs again."""
    settings = read_settings(config)
    layout = find_layout(root, settings)
    code = ExitCode.DONE
    for word in jobs:
        try:
            _retry(layout, word, settings)
        except InputError as error:
            say(f"obcd: {error}")
            code = error.exit_code
    return code


def _retry(layout: Layout, word: str, settings: Settings) -> None:
    from obcd.client.orders.retrying import find_published_job, retry_job  # noqa: PLC0415 - not for --help

    folder, runs = find_published_job(layout, word), is_running(layout)
    label, dropped = printable(shown_path(folder)), retry_job(layout, settings, folder, runs=runs)
    if isinstance(dropped, str):
        say(f"{label}: {dropped}")
        return
    count = plural(dropped.prompts + dropped.bad, "line")
    say(f"{label}: {count} dropped as {printable(dropped.name)}; see obcd status")
    if not runs and is_watched():
        say(f"no coordinator runs on {layout.root}: the dropped files wait for one ({START})")
