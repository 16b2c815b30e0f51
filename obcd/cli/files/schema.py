"""`obcd schema`: draft a JSON schema from an example record, a CSV file, or a pydantic model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from obcd.cli.common import one_delimiter, say
from obcd.cli.files.common import STANDARD, quotes_option, sentence_of, target
from obcd.core.schema.extract import Found, parse_strict
from obcd.core.schema.schemas import check_schema
from obcd.core.schema.server_schema import schema_remarks
from obcd.core.schema.wrapping import unwrapped
from obcd.errors import FormError, InputError, UsageError
from obcd.prompts.pydantic_models import find_models, model_schema
from obcd.prompts.schema_draft import csv_examples, draft_schema, is_schema, settle_columns
from obcd.text import printable

#: Largest file that is read whole, in bytes.
MAX_BYTES = 64 * 2**20

EPILOG = """\b
Examples:
  obcd schema record.json -o record.schema.json      (one record, or a list of records; .jsonl has one on each line)
  obcd schema visits.csv -o visit.schema.json
  obcd schema models.py                              (names its classes; the file is not run)
  obcd schema models.py --model Visit -o visit.schema.json

Then name it in the configuration: schema = "record.schema.json".
"""


@click.command(epilog=EPILOG)
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME", help="the pydantic model in a .py file; this RUNS that file, as python does")
@click.option("--delimiter", metavar="CHAR", help="between CSV fields [default: a comma; a tab for .tsv]")
@quotes_option
@click.option("-o", "--output", default=STANDARD, metavar="FILE", help="the schema; - is standard output [default: -]")
@click.option("--force", is_flag=True, help="replace the schema's file if it exists")
def schema(
    source: Path, model: str | None, delimiter: str | None, quotes: bool | None, output: str, force: bool
) -> None:
    """draft a JSON schema from examples.

    FILE holds example records (.json, .jsonl), a table (.csv, .tsv), or a pydantic model (.py). A key that all examples
    have is required, and keys that no example has are not allowed: read the draft before you use it.
    """
    name, suffix = printable(str(source)), source.suffix.lower()
    if model is not None and suffix != ".py":
        raise UsageError(f"--model is for a .py file, and this is {name}")
    if delimiter is not None and suffix not in (".csv", ".tsv"):
        raise UsageError("--delimiter is one character, for a .csv or .tsv file")
    if quotes is not None and suffix not in (".csv", ".tsv"):
        raise UsageError("--quotes and --no-quotes are for a .csv or .tsv file")
    if delimiter is not None:
        delimiter = one_delimiter(delimiter)
    drafted = _draft(source, name, model, delimiter, quotes)
    why = check_schema(drafted)
    if why:
        raise InputError(f"the schema drafted from {name} cannot be used: {why}")
    for remark in schema_remarks(drafted):
        say(remark)
    with target(output, overwrite=force) as stream:
        stream.write(json.dumps(drafted, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    if output != STANDARD:
        say(f'{printable(output)}; next: schema = "{printable(output)}" in the configuration or one of its profiles')


def _draft(source: Path, name: str, model: str | None, delimiter: str | None, quotes: bool | None) -> dict[str, object]:
    match source.suffix.lower():
        case ".py":
            return _of_program(source, name, model)
        case ".csv" | ".tsv":
            chosen = delimiter or ("\t" if source.suffix.lower() == ".tsv" else ",")
            raw = _read(source, name).encode()
            return _named(name, lambda: settle_columns(draft_schema(csv_examples([raw], chosen, quotes))))
        case ".json" | ".jsonl" | ".ndjson":
            return _named(name, lambda: draft_schema(_records(source, name)))
        case _:
            raise UsageError(f"{name}: a schema is drafted from .json, .jsonl, .csv, .tsv or .py")


def _named(name: str, draft: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return draft()
    except FormError as error:
        raise InputError(f"{name}: {sentence_of(error)}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _records(source: Path, name: str) -> Iterator[object]:
    text = _read(source, name)
    if source.suffix.lower() == ".json":
        document = _parsed(text, "it")
        inner, path = unwrapped(document) if isinstance(document, dict) else (document, "")
        if is_schema(inner):
            for remark in [] if check_schema(inner) else schema_remarks(inner):
                say(f"{name}: {remark}")
            where = f" (in `{path}`, which obcd finds)" if path else ""
            raise InputError(f"it is already a JSON schema{where}: name it in the configuration")
        yield from document if isinstance(document, list) else [document]
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(line, f"line {number}")


def _parsed(text: str, what: str) -> object:
    found = parse_strict(text)
    if not isinstance(found, Found):
        raise InputError(f"{what} is not JSON: {found.reason}")
    return found.value


def _of_program(source: Path, name: str, model: str | None) -> dict[str, object]:
    classes = find_models(_read(source, name), name)
    if model is None:
        known = ", ".join(classes) or "none"
        raise UsageError(f"which model of {name}? Give --model NAME, which runs the file; its classes are: {known}")
    return model_schema(source, model)


def _read(source: Path, name: str) -> str:
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is larger than {MAX_BYTES >> 20} MiB: use a part of it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 at byte {error.start + 1}: save it as UTF-8") from None
