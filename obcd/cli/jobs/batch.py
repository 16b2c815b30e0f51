"""`obcd batch`: its options. What it does is in `batch_run`, imported only when it is done: that takes its time."""

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
Ctrl-C stops at once; the same command goes on where it was. What is answered already,
with the same settings, is not asked again (--again asks anew).
"""


@click.command(epilog=EPILOG)
@click.option("--config", metavar="FILE", help="configuration file  [default: config.toml here, else as the others]")
@click.option("--prompts", required=True, type=click.Path(path_type=Path), metavar="FILE", help="prompt file (JSONL)")
@click.option(
    "--output-dir", "--output_dir", "output", default="responses", show_default=True, type=click.Path(path_type=Path),
    metavar="DIR", help="folder for the answers",
)  # fmt: skip
@click.option("--profile", default="", help="the profile to ask with  [default: the top level of the configuration]")
@click.option("--model", metavar="NAME", help="ask this model instead of the configuration's, where a line names none")
@click.option(
    "--files",
    is_flag=True,
    help="also write one JSON file per answer, DIR/<epoch>-<line>.json (…-<index>.json of several)",
)
@click.option("--again", is_flag=True, help="ask even what is answered already")
@click.option("-v", "--verbose", is_flag=True, help="one line per answer")
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
    prepare()  # first: what the children need is imported beside what this process needs
    from obcd.cli.jobs.batch_run import BatchOptions, answer  # noqa: PLC0415 - not for --help, and not before `prepare`

    return answer(BatchOptions(config, prompts, output, profile, model, files, again, verbose))
