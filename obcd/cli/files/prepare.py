"""`obcd prepare`: make a prompt file from texts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from obcd.cli.common import one_delimiter, say
from obcd.cli.files.common import STANDARD, quotes_option, say_left_out, sentence_of, target
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import FormError, InputError, PartialError, UsageError
from obcd.prompts.images import GLOBS, MAX_IMAGE_BYTES, TEMPLATE, image_from_file
from obcd.prompts.prepare import PLACEHOLDER, Wrapping, write_prompts
from obcd.prompts.texts import (
    DEFAULT_GLOBS,
    TEXT_FIELD,
    Columns,
    Prompt,
    Read,
    csv_columns,
    prompt_from_file,
    prompts_from_csv,
    prompts_from_folder,
    prompts_from_lines,
)
from obcd.text import plural, printable
from obcd.text_files import LeftOut

PREPARE_EPILOG = """\b
Examples:
  obcd prepare notes/ -o notes.jsonl --template "Summarise: {text}"
  obcd prepare visits.csv --column note --id-column mrn --template "Aged {age}: {text}" -o visits.jsonl
  zcat questions.gz | obcd prepare - -o questions.jsonl
  obcd prepare scans/ --images --template "What does this picture show?" -o scans.jsonl
"""


@click.command(epilog=PREPARE_EPILOG)
@click.argument("source")
@click.option(
    "-o", "--output", default=STANDARD, metavar="FILE", help="the prompt file; - is standard output [default: -]"
)
@click.option("--force", is_flag=True, help="replace the prompt file if it exists")
@click.option("--glob", "globs", multiple=True, metavar="PATTERN", help="files of a folder [default: *.txt, *.md]")
@click.option("--column", metavar="NAME", help="read CSV; this column is the text")
@click.option("--id-column", metavar="NAME", help="the CSV column that holds the ids [default: the number of the row]")
@click.option(
    "--keep",
    is_flag=True,
    help="echo the other CSV columns into the responses, with _ in front where the name is a key of obcd",
)
@click.option("--delimiter", metavar="CHAR", help="between CSV fields [default: a comma; a tab for .tsv]")
@quotes_option
@click.option(
    "--images", is_flag=True, help="SOURCE is a folder of pictures: one prompt for each, with the picture in base64"
)
@click.option(
    "--max-image-bytes",
    type=click.IntRange(1),
    default=MAX_IMAGE_BYTES,
    metavar="N",
    help=f"largest picture that is accepted, in bytes [default: {MAX_IMAGE_BYTES}]",
)
@click.option(
    "--template",
    metavar="TEXT",
    help="the prompt; {text} is the text, or a picture's path, {NAME} another column of the CSV, {{ is a brace "
    f"[default: {{text}}; with --images '{TEMPLATE}']",
)
@click.option("--system", metavar="TEXT", help="a system message for every prompt")
def prepare(  # noqa: PLR0913, PLR0917 - one parameter an option is how click works
    source: str,
    output: str,
    force: bool,
    globs: tuple[str, ...],
    column: str | None,
    id_column: str | None,
    keep: bool,
    delimiter: str | None,
    quotes: bool | None,
    images: bool,
    max_image_bytes: int,
    template: str | None,
    system: str | None,
) -> None:
    """make a prompt file from texts.

    SOURCE is a folder of text files (one prompt for each, whose id is the file's path; with --images a folder of
    pictures), a text file (one prompt), a CSV file (with --column), or - for standard input (one prompt for each line,
    whose id is the line's number).
    """
    if column is None and (id_column is not None or keep):
        raise UsageError("--id-column and --keep are for CSV: name the column that holds the text with --column")
    if images and (column is not None or not Path(source).is_dir()):
        raise UsageError("--images needs a folder of pictures: obcd prepare FOLDER --images")
    chosen = (TEMPLATE if images else PLACEHOLDER) if template is None else template
    wrapping = Wrapping(template=chosen, system=system, may_be_same=images)
    if column is None and (others := [field.text for field in wrapping.fields if field.name != TEXT_FIELD]):
        raise UsageError(
            f"the template names {{{printable(others[0])}}}, and a text has only the field {PLACEHOLDER}: write a "
            "literal brace twice, {{ or }}; other fields are columns of CSV (--column)"
        )
    between = _delimiter(source, delimiter)
    read = partial(image_from_file, most_bytes=max_image_bytes) if images else None
    columns = None
    if column is not None:
        columns = Columns(
            text=column, id=id_column, keep=keep, delimiter=between, quotes=quotes, fields=wrapping.fields
        )
    try:
        with target(output, overwrite=force) as stream, _prompts(source, columns, globs, read, between) as prompts:
            done = write_prompts(prompts, wrapping, stream, say_left_out)
    except FormError as error:
        raise InputError(sentence_of(error)) from None
    say(_prepared_text(done.prompts, output))
    if done.long_lines:
        longer = f"{plural(done.long_lines, 'line')} longer than {LINE_BYTES} bytes"
        say(f"{longer}: raise [spool] max_line_bytes")
    if done.left_out:
        raise PartialError(f"{plural(done.left_out, 'text')} left out")


@contextmanager
def _prompts(
    source: str, columns: Columns | None, globs: tuple[str, ...], read: Read | None, delimiter: str
) -> Iterator[Iterator[Prompt | LeftOut]]:
    """Yield the prompts of a source, and close the source at the end."""
    path = Path(source)
    name = printable(source)
    if source == STANDARD:
        stream = sys.stdin.buffer
        yield prompts_from_lines(stream) if columns is None else prompts_from_csv(stream, "standard input", columns)
    elif path.is_dir():
        if columns is not None:
            raise UsageError(f"{name} is a folder, and --column is for a CSV file")
        yield prompts_from_folder(path, globs or (DEFAULT_GLOBS if read is None else GLOBS), read)
    elif columns is None:
        yield iter([_single_file(path, source, delimiter)])
    else:
        with _open(path) as file:
            yield prompts_from_csv(file, name, columns)


def _single_file(path: Path, source: str, delimiter: str) -> Prompt | LeftOut:
    """Return a text file as a prompt; raise UsageError for a prompt file or CSV."""
    name = printable(source)
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        raise UsageError(f"{name} is a prompt file already: obcd submit {shlex.quote(name)}")
    if suffix in (".csv", ".tsv"):
        try:
            with _open(path) as file:
                known = ", ".join(printable(each) for each in csv_columns(file, delimiter))
        except FormError as error:
            raise InputError(f"{name}: {sentence_of(error)}") from None
        raise UsageError(
            f"which column of {name} holds the text? Give --column NAME; its columns are: {known or 'none'}"
        )
    with _open(path):  # the named file must exist
        return prompt_from_file(path, source)


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {printable(str(path))}: {error.strerror}") from error


def _delimiter(source: str, given: str | None) -> str:
    if given is None:
        return "\t" if source.lower().endswith(".tsv") else ","
    return one_delimiter(given)


def _prepared_text(prompts: int, output: str) -> str:
    if output == STANDARD:
        return plural(prompts, "prompt")
    name = printable(output)
    return f"{plural(prompts, 'prompt')} in {name}; next: obcd submit {shlex.quote(name)}"
