"""The options of `obcd batch`. Its work is in `batch_run`, which is slow to import and imported only to run it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from obcd.core_dumps import forbid_core_dumps
from obcd.parent_death import tie_to_parent
from obcd.workers.forking import prepare

EPILOG = """\b
Examples:
  obcd batch prompts.jsonl
  obcd batch monday.jsonl tuesday.jsonl --limit 5
  zcat notes.jsonl.gz | obcd batch -
  obcd batch --config config.toml --prompts notes.jsonl --output-dir answers --files

\b
The answers of each file come to DIR/<name>/: responses.jsonl, errors.jsonl, retry.jsonl,
manifest.json. Standard input is called stdin; it may be a table, or packed by gzip. Ctrl-C
stops at once; run the same command to continue. A file that has been answered with the same
settings is not sent again (--again sends it again). --limit N answers the first N requests
of each file, in DIR/<name>.first-N/.

\b
Exit codes: 0 done, 3 some lines failed, 4 wrong configuration, 5 a file could not be
answered, 6 no endpoint, 7 another run works in DIR, 130 interrupted.
"""


@click.command(epilog=EPILOG)
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--config",
    metavar="FILE",
    help="configuration file  [default: config.toml in the working folder, else as for obcd check]",
)
@click.option(
    "--prompts",
    "more_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="the same as FILE; may be repeated",
)
@click.option(
    "--output-dir", "--output_dir", "output", default="responses", show_default=True, type=click.Path(path_type=Path),
    metavar="DIR", help="folder for the answers",
)  # fmt: skip
@click.option("--profile", default="", help="the profile to use  [default: the top level of the configuration]")
@click.option("--model", metavar="NAME", help="model of lines that name no model  [default: the configuration's]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="send only the first N requests of each file")
@click.option("--delimiter", metavar="CHAR", help="character between the fields of CSV, such as ; or \\t")
@click.option(
    "--files",
    "has_files",
    is_flag=True,
    help="also write one JSON file per answer, DIR/<epoch>-<line>.json (…-<index>.json if a line has several)",
)
@click.option("--again", is_flag=True, help="send the requests even if the file has been answered")
@click.option("-v", "--verbose", is_flag=True, help="print one line per answer")
def batch(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    files: tuple[Path, ...],
    config: str | None,
    more_files: tuple[Path, ...],
    output: Path,
    profile: str,
    model: str | None,
    limit: int | None,
    delimiter: str | None,
    has_files: bool,
    again: bool,
    verbose: bool,
) -> int:
    """answer prompt files in the foreground.

    FILE holds prompts (JSONL, CSV, TSV, packed or not); - is standard input.
    """
    prompts = (*files, *more_files)
    if not prompts:
        raise click.UsageError("no prompts: give FILE..., or - for standard input")
    tie_to_parent(os.environ)
    forbid_core_dumps()
    prepare()  # first: the children's modules are imported while this process imports its own
    from obcd.cli.jobs.batch_run import BatchOptions, answer  # noqa: PLC0415 - not for --help, and not before `prepare`

    return answer(
        BatchOptions(
            config=config, prompts=prompts, output=output, profile=profile, model=model, limit=limit or 0,
            delimiter=delimiter, files=has_files, again=again, verbose=verbose,
        )
    )  # fmt: skip
