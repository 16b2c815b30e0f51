"""`obcd report`: what ran, how fast, on which cards and at what cost, as one HTML file or as JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click

from obcd.cli.common import config_option, find_layout_anyway, find_view, is_running, root_option, say, shown_path
from obcd.clock import wall
from obcd.coordinator.view import View
from obcd.errors import ExitCode, InputError, UsageError
from obcd.reports.gathering import report_job, report_period
from obcd.reports.report import Report
from obcd.reports.report_page import draw_page, show_energy
from obcd.spool.folders.layout import Layout
from obcd.text import plural, printable
from obcd.text_files import output_file, output_stream

EPILOG = """\b
JOB is the folder of a published job, its id, or the name it was dropped with; also
of a job that runs. Without JOB the report is on all jobs of the last days. The
history has 14 days. The page needs no script and loads nothing; it holds counts
and names of jobs, and never a prompt, an answer, or the message of a failure.

\b
Examples:
  obcd report notes -o notes.html
  obcd report --since 24h -o yesterday.html
  obcd report --json | jq '.energy'

\b
Exit codes: 0 done; 4 wrong configuration; 5 there is no such job, or a file cannot be read or written.
"""
#: Seconds of the units of --since.
UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
SINCE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([mhdw])", re.ASCII)
DEFAULT_SINCE = "7d"


@click.command(epilog=EPILOG)
@click.argument("job", required=False, metavar="[JOB]")
@click.option("--since", metavar="TIME", help="report on all jobs of the last 90m, 24h, 7d or 2w  [default: 7d]")
@click.option("-o", "--output", metavar="FILE", help="write the page to this file; - is standard output")
@click.option("--overwrite", is_flag=True, help="replace the file if it exists")
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON, for machines")
@config_option
@root_option
def report(
    job: str | None, since: str | None, output: str | None, overwrite: bool, as_json: bool, config: str | None,
    root: str | None,
) -> int:  # fmt: skip
    """write a report on a job, or on all jobs of some days, as HTML."""
    if output is None and not as_json:
        raise UsageError("name the file of the report: obcd report -o report.html, or use --json")
    if job is not None and since is not None:
        raise UsageError("give a JOB or --since, and not both: the report on a job has the job's own time")
    if as_json and output == "-":
        raise UsageError("--json and -o - would both write to standard output: give -o FILE")
    layout, fault = find_layout_anyway(config, root)
    view = find_view(layout) if is_running(layout) else None
    if fault is not None and view is None:
        raise fault
    seconds = _seconds(since or DEFAULT_SINCE)
    made = _on_job(layout, job, view) if job is not None else report_period(layout, wall() - seconds, wall(), view)
    if output is not None:
        _write(made, output, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(made.to_json()))
    return ExitCode.DONE


def _seconds(text: str) -> float:
    found = SINCE.fullmatch(text)
    if found is None or not float(found[1]):
        raise UsageError(f"--since {printable(text)} is not a time such as 90m, 24h, 7d or 2w")
    return float(found[1]) * UNITS[found[2]]


def _on_job(layout: Layout, job: str, view: View | None) -> Report:
    try:
        found = report_job(layout, job, view)
    except ValueError as error:
        raise InputError(f"no report on {printable(job)}: {error}") from None
    if found is None:
        raise InputError(
            f"there is no job '{printable(job)}' in {printable(str(layout.outbox))}, and none of that name runs: give "
            "its folder, its id or its name (obcd status)"
        )
    return found


def _write(made: Report, output: str, *, overwrite: bool) -> None:
    page = draw_page(made).encode()
    if output == "-":
        with output_stream(sys.stdout.buffer) as stream:
            stream.write(page)
        return
    with output_file(Path(output), overwrite=overwrite) as file:
        file.write(page)
    hours = made.energy.watt_hours
    energy = f", {show_energy(hours)}" if hours is not None else ""
    responses = made.jobs[0].responses if made.subject == "job" else made.responses
    say(f"{printable(shown_path(Path(output)))}: {plural(responses, 'response')}{energy}")
    for note in made.notes:
        say(f"note: {note}")
