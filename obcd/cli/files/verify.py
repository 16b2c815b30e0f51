"""`obcd verify`: check that a published job is complete, line by line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from obcd.errors import ExitCode
from obcd.results.reading.with_retries import Retries
from obcd.results.verify import Verdict, Verification, find_folders, verify
from obcd.text import plural, printable

EPILOG = """\b
Examples:
  obcd verify outbox/notes
  obcd verify responses outbox
  obcd verify --json outbox | jq -r 'select(.verdict == "wrong") | .name'

\b
Exit codes: 0 all folders are right, 3 a folder is wrong, 5 a folder is not a published job (and the others are right).
"""


@click.command(name="verify", epilog=EPILOG)
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON object for each folder, for machines")
def verify_folders(folders: tuple[Path, ...], as_json: bool) -> int:
    """check that a published job is complete, line by line.

    FOLDER is a published folder (outbox/notes), a folder that `obcd batch` wrote, or a folder that holds several.
    Responses in a job's retries beside it count as the job's own if the retries are complete too.
    """
    verdicts, retries = set(), Retries()
    for name, folder in [found for given in folders for found in find_folders(given)]:
        result = verify(name, folder, retries)
        verdicts.add(result.verdict)
        document = {"folder": printable(str(folder)), **dataclasses.asdict(result)}
        click.echo(json.dumps(document) if as_json else _text(result))
    if Verdict.WRONG in verdicts:
        return ExitCode.PARTIAL
    return ExitCode.INPUT if Verdict.NOT_A_JOB in verdicts else ExitCode.DONE


def _text(result: Verification) -> str:
    if result.verdict is Verdict.NOT_A_JOB:
        return f"{result.name}: {result.reason}"
    if result.verdict is Verdict.REJECTED:
        return f"{result.name}: rejected, and the input is kept: {result.reason}"
    if result.verdict is Verdict.REPEATED:
        return f"{result.name}: answered before, by {result.reason}"
    if result.verdict is Verdict.COMPLETE:
        cut = f" ({result.cut_short} cut short)" if result.cut_short else ""
        here = " here" if result.by_retries else ""
        again = "".join(f", {count} by its retry {name}" for name, count in result.by_retries.items())
        failed = result.failures - sum(result.by_retries.values())
        lines = plural(result.requests, "line")
        return f"{result.name}: {lines}, {result.responses} answered{here}{cut}{again}, {failed} failed: complete"
    more = result.problem_count - len(result.problems)
    sentences = [*result.problems, *([f"… and {more} more"] if more else [])]
    return "\n  ".join([f"{result.name}: {plural(result.problem_count, 'fault')}", *sentences])
