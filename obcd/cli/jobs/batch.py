"""The options of `obcd batch`. Its work is in `batch_run`, which is slow to import and imported only to run it."""

from __future__ import annotations

from pathlib import Path

import click

from obcd.core_dumps import forbid_core_dumps
from obcd.workers.forking import prepare

EPILOG = """\b
Examples:
  obcd batch --prompts prompts.jsonl
  obcd batch --config config.toml --prompts notes.jsonl --output-dir answers --files

\b
The answers come to DIR/<name>/: responses.jsonl, errors.jsonl, retry.jsonl, manifest.json.
Ctrl-C stops at once; run the same command to continue. A file that has been answered
with the same settings is not sent again (--again sends it again).
"""


@click.command(epilog=EPILOG)
@click.option(
    "--config",
    metavar="FILE",
    help="configuration file  [default: config.toml in the working folder, else as for obcd check]",
)
@click.option("--prompts", required=True, type=click.Path(path_type=Path), metavar="FILE", help="prompt file (JSONL)")
@click.option(
    "--output-dir", "--output_dir", "output", default="responses", show_default=True, type=click.Path(path_type=Path),
    metavar="DIR", help="folder for the answers",
)  # fmt: skip
@click.option("--profile", default="", help="the profile to use  [default: the top level of the configuration]")
@click.option("--model", metavar="NAME", help="model of lines that name no model  [default: the configuration's]")
@click.option(
    "--files",
    is_flag=True,
    help="also write one JSON file per answer, DIR/<epoch>-<line>.json (…-<index>.json if a line has several)",
)
@click.option("--again", is_flag=True, help="send the requests even if the file has been answered")
@click.option("-v", "--verbose", is_flag=True, help="print one line per answer")
def batch(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    config: str | None,
    prompts: Path,
    output: Path,
    profile: str,
    model: str | None,
    files: bool,
    again: bool,
    verbose: bool,
) -> int:
    """answer one prompt file in the foreground."""
    forbid_core_dumps()
    prepare()  # first: the children's modules are imported while this process imports its own
    from obcd.cli.jobs.batch_run import BatchOptions, answer  # noqa: PLC0415 - not for --help, and not before `prepare`

    return answer(BatchOptions(config, prompts, output, profile, model, files, again, verbose))
