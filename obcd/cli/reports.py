"""`obcd prepare` and `obcd print`: texts to prompts, answers to the screen."""

from __future__ import annotations

import shlex
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from obcd.core.forms import is_delimiter
from obcd.errors import FormError, InputError, PartialError, UsageError
from obcd.logs import printable
from obcd.reports.answers import Answer, Failed, read_tally
from obcd.reports.files import whole_file, whole_stream
from obcd.reports.healing import Retries, find_wholes, read_whole
from obcd.reports.images import GLOBS, MAX_IMAGE_BYTES, TEMPLATE, image_from_file
from obcd.reports.prepare import DEFAULT_MAX_LINE_BYTES, PLACEHOLDER, Wrapping, write_prompts
from obcd.reports.printing import json_line, text_block
from obcd.reports.sources import LeftOut, PromptFile, PublishedFolder, Source, find_sources
from obcd.reports.texts import (
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

#: standard input or output instead of a file
STANDARD = "-"

PREPARE_EPILOG = """\b
Examples:
  obcd prepare notes/ -o notes.jsonl --template "Summarise: {text}"
  obcd prepare visits.csv --column note --id-column mrn --template "Aged {age}: {text}" -o visits.jsonl
  zcat questions.gz | obcd prepare - -o questions.jsonl
  obcd prepare scans/ --images --template "What is to be seen?" -o scans.jsonl
"""
PRINT_EPILOG = """\b
Examples:
  obcd print outbox/notes | less
  obcd print --json outbox | jq -r .response

Exit codes: 0 done (failed requests are told, not counted here), 3 a file or line could not be read.
"""


@click.command(epilog=PREPARE_EPILOG)
@click.argument("source")
@click.option(
    "-o", "--output", default=STANDARD, metavar="FILE", help="the prompt file; - is standard output [default: -]"
)
@click.option("--force", is_flag=True, help="replace the prompt file if it exists")
@click.option("--glob", "globs", multiple=True, metavar="PATTERN", help="files of a folder [default: *.txt, *.md]")
@click.option("--column", metavar="NAME", help="read CSV and take this column as the text")
@click.option("--id-column", metavar="NAME", help="the CSV column with the ids [default: the number of the row]")
@click.option(
    "--keep", is_flag=True, help="echo the other CSV columns into the responses; _ in front of obcd's own keys"
)
@click.option("--delimiter", metavar="CHAR", help="between CSV fields [default: a comma; a tab for .tsv]")
@click.option("--images", is_flag=True, help="SOURCE is a folder of pictures: a prompt each, the picture in base64")
@click.option(
    "--max-image-bytes",
    type=click.IntRange(1),
    default=MAX_IMAGE_BYTES,
    metavar="N",
    help=f"largest picture that is taken [default: {MAX_IMAGE_BYTES}]",
)
@click.option(
    "--template",
    metavar="TEXT",
    help="the prompt; {text} is the text, or a picture's path, {NAME} another column of the CSV, {{ a brace "
    f"[default: {{text}}; '{TEMPLATE}']",
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
    images: bool,
    max_image_bytes: int,
    template: str | None,
    system: str | None,
) -> None:
    """make a prompt file from texts.

    SOURCE is a folder of text files (a prompt each, its id the file's path; with --images one of pictures), a text
    file (one prompt), a CSV file (with --column), or - for standard input (a prompt a line, its id the line's number).
    """
    if column is None and (id_column is not None or keep):
        raise UsageError("--id-column and --keep are for CSV: say with --column which column holds the text")
    if images and (column is not None or not Path(source).is_dir()):
        raise UsageError("--images wants a folder of pictures: obcd prepare FOLDER --images")
    chosen = (TEMPLATE if images else PLACEHOLDER) if template is None else template
    wrapping = Wrapping(template=chosen, system=system, may_be_same=images)
    if column is None and (others := [name for name in wrapping.fields if name != TEXT_FIELD]):
        raise UsageError(
            f"the template names {{{printable(others[0])}}}, and a text has no field but {PLACEHOLDER}: braces that "
            "are meant are written twice, {{ and }}; other fields are columns of CSV (--column)"
        )
    between = _delimiter(source, delimiter)
    read = partial(image_from_file, most_bytes=max_image_bytes) if images else None
    columns = None
    if column is not None:
        columns = Columns(text=column, id=id_column, keep=keep, delimiter=between, fields=wrapping.fields)
    with target(output, overwrite=force) as stream, _prompts(source, columns, globs, read, between) as prompts:
        done = write_prompts(prompts, wrapping, stream, _tell_left_out)
    _say(_prepared_text(done.prompts, output))
    if done.long_lines:
        longer = f"{_count(done.long_lines, 'line')} longer than {DEFAULT_MAX_LINE_BYTES} bytes"
        _say(f"{longer}: raise [spool] max_line_bytes")
    if done.left_out:
        raise PartialError(f"{_count(done.left_out, 'text')} left out")


@click.command(name="print", epilog=PRINT_EPILOG)
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line, for machines")
def print_answers(folders: tuple[Path, ...], as_json: bool) -> None:
    """print prompts and answers.

    DIR is a published folder (outbox/notes), a folder that holds several, or one with a file per prompt.
    """
    faults = 0
    retries, by_retries = Retries(), Counter[Source]()
    found = _sources_of(folders, retries)
    for source in found:
        for item in read_whole(source, retries):
            if isinstance(item, Answer):
                by_retries[source] += item.by_retry
                _print(json_line(item) if as_json else text_block(item))
                continue
            if isinstance(item, Failed):  # counted at the end
                continue
            faults += 1
            if isinstance(source, PromptFile) and not as_json:
                _print(f"Error: {item.place}: {item.reason}\n")
            else:
                _tell_left_out(item)
    sys.stdout.flush()
    for source in found:
        if isinstance(source, PublishedFolder):
            _tell_failures(source, by_retries[source])
    if faults:
        raise PartialError(f"{_count(faults, 'file or line', 'files or lines')} could not be read")


def refuse_published(output: str) -> None:
    """Refuse to write over a file of a published job.

    Raises:
        InputError: If that is what the output's name means.
    """
    path = Path(output)
    if output != STANDARD and (path.parent / "manifest.json").exists() and path.exists():
        raise InputError(f"{printable(output)} is a file of a published job: give another place for what is merged")


def target(output: str, *, overwrite: bool) -> AbstractContextManager[BinaryIO]:
    """Return the stream of a document: a file that appears whole, or standard output."""
    if output == STANDARD:
        return whole_stream(sys.stdout.buffer)
    return whole_file(Path(output), overwrite=overwrite)


@contextmanager
def _prompts(
    source: str, columns: Columns | None, globs: tuple[str, ...], read: Read | None, delimiter: str
) -> Iterator[Iterator[Prompt | LeftOut]]:
    """Yield the reader that fits a source, and close what it reads from."""
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
    """Return a text file as a prompt; say so when it is something else."""
    name = printable(source)
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        raise UsageError(f"{name} is a prompt file already: obcd submit {shlex.quote(name)}")
    if suffix in (".csv", ".tsv"):
        try:
            with _open(path) as file:
                known = ", ".join(printable(each) for each in csv_columns(file, delimiter))
        except FormError as error:
            raise InputError(f"{name}: {error}") from None
        raise UsageError(
            f"which column of {name} holds the text? Say --column NAME; its columns are: {known or 'none'}"
        )
    with _open(path):  # the one file that was named must be there
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


def one_delimiter(given: str) -> str:
    """Return what a command line gives for what stands between the fields of CSV.

    Raises:
        UsageError: If that cannot be.
    """
    delimiter = "\t" if given == r"\t" else given
    if not is_delimiter(delimiter):
        raise UsageError("--delimiter takes one character, such as ; or \\t")
    return delimiter


def _prepared_text(prompts: int, output: str) -> str:
    if output == STANDARD:
        return _count(prompts, "prompt")
    name = printable(output)
    return f"{_count(prompts, 'prompt')} in {name}; next: obcd submit {shlex.quote(name)}"


def _sources_of(folders: tuple[Path, ...], retries: Retries) -> list[Source]:
    for folder in folders:
        if not find_sources(folder):
            shown = printable(str(folder))
            raise InputError(f"nothing to print in {shown}: no per-prompt files and no published folder")
    return find_wholes(folders, retries)


def _tell_failures(folder: PublishedFolder, by_retries: int) -> None:
    tally = read_tally(folder)
    failures = tally.failures - by_retries
    if failures > 0:
        again = f", and its retries answered {by_retries}" if by_retries else ""
        _say(f"{folder.name}: {failures} of {tally.requests} failed{again}: see errors.jsonl")


def _count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def _tell_left_out(item: LeftOut) -> None:
    _say(f"left out: {item.place}: {item.reason}")


def _say(text: str) -> None:
    """Tell a person, on standard error; names in it are escaped already."""
    with suppress(BrokenPipeError):  # nobody reads the remarks any more; the document is still wanted
        click.echo(text, err=True)


def _print(text: str) -> None:
    """Write to standard output what any terminal can take.

    Characters that its encoding lacks are escaped. Control characters in an answer could rewrite a terminal's screen
    or title (CWE-150): escaped there, untouched in a pipe or file.
    """
    out = sys.stdout
    if out.isatty():
        text = "".join(
            char if char in "\n\t" or unicodedata.category(char) != "Cc" else _escaped(char) for char in text
        )
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}"
