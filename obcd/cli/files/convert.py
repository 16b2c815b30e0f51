"""`obcd convert`: convert prompt files from one format to another."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from obcd.cli.common import one_delimiter, say
from obcd.cli.files.common import STANDARD, quotes_option, refuse_published, say_left_out, sentence_of, target
from obcd.core.request.keys.ignored_keys import describe_ignored
from obcd.core.request.rows import Reading
from obcd.core.tables.converting import LineShape
from obcd.core.tables.file_format import CSV, DELIMITERS, Form, form_of
from obcd.errors import FormError, InputError, PartialError, UsageError
from obcd.prompts.convert import Wanted, convert
from obcd.text import printable

EPILOG = """\b
Examples:
  obcd convert batch.jsonl --to ours -o notes.jsonl
  obcd convert notes.csv --to openai --model llama3.2 -o batch.jsonl
  zcat notes.jsonl.gz | obcd convert - --to csv --columns id,prompt > notes.csv

The format of a JSON line is recognised by its keys. CSV cells of messages, options, format, think, images, tools, n
and logprobs hold JSON, all others text; an empty cell counts as missing where the column is a key of obcd.

Exit codes: 0 done, 3 lines were left out (each is named), 5 nothing could be converted.
"""


@click.command(name="convert", epilog=EPILOG)
@click.argument("source")
@click.option(
    "-o", "--output", default=STANDARD, metavar="FILE", help="the converted file; - is standard output [default: -]"
)
@click.option(
    "--from",
    "origin",
    type=click.Choice(["jsonl", "json", "csv", "tsv", "parquet"]),
    help="format of SOURCE [default: by its name, else jsonl]",
)
@click.option(
    "--to",
    "goal",
    type=click.Choice(["ours", "seed", "openai", "csv", "tsv"]),
    help="format of FILE; ours is obcd's [default: by the name of FILE, else ours]",
)
@click.option(
    "--model",
    default="",
    metavar="NAME",
    help="with --to openai: the model of lines that name no model [default: none]",
)
@click.option(
    "--columns", metavar="LIST", help="with --to csv: the columns, e.g. id,prompt [default: the keys of the first line]"
)
@click.option(
    "--delimiter", metavar="CHAR", help="between the fields of SOURCE if it is CSV, else of FILE [default: a comma]"
)
@quotes_option
@click.option("--force", is_flag=True, help="replace FILE if it exists")
def convert_lines(  # noqa: PLR0913, PLR0917 - one parameter an option is how click works
    source: str,
    output: str,
    origin: str | None,
    goal: str | None,
    model: str,
    columns: str | None,
    delimiter: str | None,
    quotes: bool | None,
    force: bool,
) -> None:
    """convert prompt files between formats.

    The formats are lines of obcd, of the seed (ollama-batch-cluster) and of OpenAI Batch, and rows of CSV.

    SOURCE is a file (packed if its name ends in .gz, .xz or .zst), or - for standard input. JSON is recognised by its
    first bytes: lines, an array, or objects over several lines. Parquet needs obcd[parquet].
    """
    named = form_of(source) or Form()
    form = Form(origin, named.packing) if origin else named
    ending = form_of(output)
    if ending is not None and ending.is_packed:
        raise UsageError(
            f"the output cannot be compressed: leave .{ending.packing} out of its name, and compress it afterwards"
        )
    goal = goal or (ending.kind if ending is not None and ending.kind in DELIMITERS else "ours")
    shape = LineShape.TABLE if goal in DELIMITERS else LineShape(goal)
    names = tuple(columns.split(",")) if columns else ()
    if names and (len(set(names)) < len(names) or not all(names)):
        raise UsageError("--columns names a column twice, or one without a name")
    if names and shape is not LineShape.TABLE:
        raise UsageError("--columns is for --to csv")
    if quotes is not None and form.kind not in DELIMITERS:
        raise UsageError("--quotes and --no-quotes are for a SOURCE that is CSV or TSV")
    read_by, written_by = _delimiters(delimiter, form, goal)
    wanted = Wanted(shape=shape, delimiter=written_by, columns=names, model=model)
    refuse_published(output)
    with ExitStack() as files:
        try:
            stream = sys.stdin.buffer if source == STANDARD else files.enter_context(open(source, "rb"))
        except OSError as error:
            raise InputError(f"cannot read {printable(source)}: {error.strerror}") from error
        written = files.enter_context(target(output, overwrite=force))
        try:
            done = convert(stream, form, wanted, written, say_left_out, Reading(delimiter=read_by, quotes=quotes))
        except FormError as error:
            raise InputError(f"{printable(source)}: {sentence_of(error)}") from None
    for sentence in describe_ignored(done.nameless):
        say(sentence)
    say(f"{done.lines} lines converted" + (f", in {printable(str(Path(output)))}" * (output != "-")))
    if done.left_out:
        raise PartialError(f"{done.left_out} lines left out")


def _delimiters(given: str | None, form: Form, goal: str) -> tuple[str, str]:
    """Return the delimiter of the CSV that is read, and of the CSV that is written.

    Where both are CSV, the given delimiter is that of the source, and commas are written.

    Raises:
        UsageError: If it cannot be a delimiter, or neither is CSV.
    """
    usual = DELIMITERS[CSV]
    if given is not None and CSV not in (form.kind, goal):
        raise UsageError("--delimiter is for CSV, and neither SOURCE nor FILE is CSV")
    chosen = usual if given is None else one_delimiter(given)
    if form.kind == CSV:
        return chosen, DELIMITERS.get(goal, usual)
    return usual, Form(goal).delimiter(chosen) if goal in DELIMITERS else usual
