"""`obcd merge`: merge the answers into one document."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import BinaryIO, assert_never

import click

from obcd.cli.common import say
from obcd.cli.files.common import STANDARD, refuse_published, say_left_out, target
from obcd.errors import PartialError, UsageError
from obcd.results.merging.item_path import ItemPath
from obcd.results.merging.merge import Format, JsonlWriter, JsonWriter, Merged, Writer, format_of, merge_answers
from obcd.results.merging.merge_rows import FIELDS, ObjectsWriter, RowWriter
from obcd.results.merging.merge_tables import EXCEL_CHARS, CsvWriter, ParquetWriter, SqliteWriter
from obcd.text import plural, printable

EPILOG = """\b
Examples:
  obcd merge outbox/notes -o notes.json
  obcd merge outbox/visits -o records.csv --with id,extra
  obcd merge outbox/notes -o notes.csv --text --with line,prompt
  obcd merge outbox/letters -o drugs.csv --rows visits.drugs
  obcd merge outbox/notes -o notes.db && sqlite3 notes.db 'SELECT * FROM answers'

Exit codes: 0 done, 3 something was left out: a failed request, a damaged line, an answer without JSON,
or with several JSON values.
"""
#: How many renamed columns are listed one by one.
MOST_LISTED = 10


def _with_hyphens(option: str) -> str:
    """Read `--input_dir` as `--input-dir`: the seed's commands spell their options both ways."""
    return option.replace("_", "-")


@click.command(epilog=EPILOG, context_settings={"token_normalize_func": _with_hyphens})
@click.argument("folders", metavar="DIR...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--input-dir",
    "more_folders",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="the same as DIR; may be repeated",
)
@click.option("-o", "--output-file", "output", required=True, metavar="FILE", help="the document; - is standard output")
@click.option(
    "--force",
    is_flag=True,
    help="replace FILE if it exists; a JSON array, as merge writes it, is replaced without --force",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice([each.value for each in Format]),
    help="format of FILE [default: by its suffix, else json]",
)
@click.option("--text", "is_text", is_flag=True, help='merge the text of the answers as it is, under "response"')
@click.option(
    "--with",
    "fields",
    metavar="FIELDS",
    help=f"put these before the value: {', '.join(FIELDS)}; extra: all keys of the line that obcd does not know, or"
    " columns of the row; index: the number of the answer within its line, from 0"
    "  [default: none; with --rows PATH: id]",
)
@click.option(
    "--rows",
    "path",
    metavar="[PATH]",
    is_flag=False,
    flag_value="",
    help="one row for each item of the list at PATH in the answer (items, result.items, visits.drugs), beside the keys"
    " around that list; without PATH, for each item of an answer that is a list",
)
@click.option(
    "--spreadsheet",
    is_flag=True,
    help="csv only: begin with a byte order mark, and put a ' in front of text that a spreadsheet would take for a"
    " formula (=, +, -, @)",
)
def merge(  # noqa: PLR0913, PLR0917 - one parameter an option is how click works
    folders: tuple[Path, ...],
    more_folders: tuple[Path, ...],
    output: str,
    force: bool,
    kind: str | None,
    is_text: bool,
    fields: str | None,
    path: str | None,
    spreadsheet: bool,
) -> None:
    """merge the JSON in the answers into one document.

    The document is in the order of the prompts; several answers to one prompt follow one another.

    DIR is a published folder (outbox/notes), a folder that holds several, or a folder with one file for each prompt.

    The JSON of an answer is the whole text, the content of a Markdown fence, or a part of other text. csv, parquet and
    sqlite have a column for each key of the answers, with the type from the job's schema; objects and arrays in a cell
    are JSON; an answer that is not an object goes into the column "value". json and jsonl hold the values as they are;
    with --with they hold objects whose keys are the columns of the tables. A field of --with whose name is also a key
    of the answers gets a _ in front.
    """
    chosen = Format(kind) if kind else format_of(output)
    sources = [*folders, *more_folders]
    if not sources and path and Path(path).is_dir():  # `obcd merge --rows DIR -o FILE`
        sources, path = [Path(path)], ""
    if not sources:
        taken = f" ({printable(path)} is the PATH of --rows: put DIR before it)" if path else ""
        raise UsageError(f"no folder is given: obcd merge DIR... -o FILE{taken}")
    if not output:
        raise UsageError("the name after -o is empty: is a variable of the script not set?")
    rows = None if path is None else ItemPath.parse(path)
    if rows is not None and is_text:
        raise UsageError("--rows is for the JSON of the answers, and --text is their text: use one of them")
    names = _fields(("id" if path else "") if fields is None else fields)
    if spreadsheet and chosen is not Format.CSV:
        raise UsageError(f"--spreadsheet is for csv, and this is {chosen}")
    ignore = None if output == STANDARD else Path(output)
    refuse_published(output)
    overwrite = force or (chosen is Format.JSON and _is_array(output))
    with (
        target(output, overwrite=overwrite) as stream,
        closing(_writer(chosen, stream, names, ignore, rows, is_for_spreadsheets=spreadsheet)) as writer,
    ):
        done = merge_answers(sources, writer, ignore=ignore, report=say_left_out, is_text=is_text, rows=rows)
    shown = "standard output" if output == STANDARD else printable(output)
    of_lines = "" if done.lines == done.values else f" of {plural(done.lines, 'line')}"
    say(f"{plural(done.values, 'answer' if rows is None else 'row')}{of_lines} in {shown}")
    _say_hints(writer, done, is_for_spreadsheets=spreadsheet)
    if done.left_out:
        raise PartialError(f"{done.left_out} of {plural(done.answers + done.left_out, 'answer')} left out of {shown}")


def _is_array(output: str) -> bool:
    """Return whether a file is an array as the seed's script and merge write it: cron runs them repeatedly."""
    try:
        with open(output, "rb") as file:
            start = file.read(3)
    except OSError:
        return False
    return start == b"[]" or start.startswith(b"[\n")


def _fields(text: str) -> tuple[str, ...]:
    """Return the fields named in `line,id`, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [printable(name) for name in names if name not in FIELDS]
    if unknown:
        raise UsageError(f"--with does not know {', '.join(unknown)}; it takes {', '.join(FIELDS)}")
    return names


def _writer(
    kind: Format,
    stream: BinaryIO,
    fields: tuple[str, ...],
    output: Path | None,
    rows: ItemPath | None,
    *,
    is_for_spreadsheets: bool,
) -> Writer:
    """Return the writer of a format; it collects rows on the output's disk (/tmp is often memory)."""
    folder = None if output is None else output.parent
    keys = None if rows is None else rows.keys
    match kind:
        case Format.JSON | Format.JSONL:
            values = JsonWriter(stream) if kind is Format.JSON else JsonlWriter(stream)
            if not fields and not keys:
                return values
            writer: RowWriter = ObjectsWriter(values, fields, folder)
        case Format.CSV:
            writer = CsvWriter(stream, fields, folder, is_for_spreadsheets=is_for_spreadsheets)
        case Format.PARQUET:
            writer = ParquetWriter(stream, fields, folder)
        case Format.SQLITE:
            writer = SqliteWriter(stream, fields, folder)
        case _:
            assert_never(kind)
    writer.item_keys = keys
    return writer


def _say_hints(writer: Writer, done: Merged, *, is_for_spreadsheets: bool) -> None:
    """Print what a person may not expect of the document."""
    if isinstance(writer, RowWriter) and writer.renamed:
        renamed = [f"{printable(name)} for {printable(key)}" for name, key in writer.renamed.items()]
        more = f" and {len(renamed) - MOST_LISTED} more" if len(renamed) > MOST_LISTED else ""
        say(f"renamed, because the name is taken: {', '.join(renamed[:MOST_LISTED])}{more}")
    if isinstance(writer, CsvWriter) and writer.formulas and not is_for_spreadsheets:
        say(f"{plural(writer.formulas, 'cell')} would be formulas in a spreadsheet: open it there with --spreadsheet")
    if done.repaired:
        say(f"{plural(done.repaired, 'answer')} held JSON with small faults (commas, quotes, comments), now corrected")
    if isinstance(writer, CsvWriter) and writer.long_cells and is_for_spreadsheets:
        say(f"{plural(writer.long_cells, 'cell')} longer than {EXCEL_CHARS} characters: Excel shows only the beginning")
    if isinstance(writer, CsvWriter) and writer.cut_marks:
        say(f"{plural(writer.cut_marks, 'cell')} held a NUL or Ctrl-Z, where many readers end the file: now U+FFFD")
    if done.without_json and not done.values:
        say("no answer holds JSON: use --text to merge their text")
    if done.without_list and not done.values:
        say("no answer holds a list there: merge without --rows shows what they hold")
