"""`obcd vectors`: write the vectors of `embed` lines as one document."""

from __future__ import annotations

from pathlib import Path

import click

from obcd.cli.common import say
from obcd.cli.files.common import STANDARD, refuse_published, say_left_out, target
from obcd.errors import PartialError
from obcd.results.merging.vectors import write_vectors, writer_for
from obcd.text import plural, printable

EPILOG = """\b
Examples:
  obcd vectors outbox/notes -o notes.parquet
  obcd vectors outbox/notes -o - | jq -c .embedding

Exit codes: 0 done, 3 something was left out: a failed request, a damaged line, an answer of text.
"""


@click.command(epilog=EPILOG)
@click.argument("folders", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path))
@click.option("-o", "--output-file", "output", required=True, metavar="FILE", help="the document; - is standard output")
@click.option(
    "--format", "kind", type=click.Choice(["jsonl", "parquet"]), help="format of FILE [default: by its suffix]"
)
@click.option("--force", is_flag=True, help="replace FILE if it exists")
def vectors(folders: tuple[Path, ...], output: str, kind: str | None, force: bool) -> None:
    """write the vectors of `embed` lines as JSONL or Parquet.

    DIR is a published folder (outbox/notes), or a folder that holds several. Each vector is a row, in the order of the
    prompts: id, line, index (of the text in its line), text, embedding (in Parquet a list of float32).
    """
    ignore = None if output == STANDARD else Path(output)
    refuse_published(output)
    with target(output, overwrite=force) as stream:
        writer = writer_for(output, stream, is_parquet=None if kind is None else kind == "parquet")
        done = write_vectors(list(folders), writer, ignore=ignore, report=say_left_out)
    shown = "standard output" if output == STANDARD else printable(output)
    say(f"{plural(done.values, 'vector')} in {shown}")
    if done.left_out:
        raise PartialError(f"{plural(done.left_out, 'line')} left out of {shown}")
