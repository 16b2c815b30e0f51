"""`obcd print`: print prompts and answers."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from pathlib import Path

import click

from obcd.cli.common import say
from obcd.cli.files.common import say_left_out
from obcd.errors import InputError, PartialError
from obcd.results.printing import json_line, text_block
from obcd.results.reading.answers import Answer, FailedLine, read_tally
from obcd.results.reading.sources import PromptFile, PublishedFolder, Source, find_sources
from obcd.results.reading.with_retries import Retries, find_wholes, read_whole
from obcd.text import plural, printable

PRINT_EPILOG = """\b
Examples:
  obcd print outbox/notes | less
  obcd print --json outbox | jq -r .response

Exit codes: 0 done (failed requests are reported and do not count here), 3 a file or line could not be read.
"""


@click.command(name="print", epilog=PRINT_EPILOG)
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON object for each answer, for machines")
def print_answers(folders: tuple[Path, ...], as_json: bool) -> None:
    """print prompts and answers.

    DIR is a published folder (outbox/notes), a folder that holds several, or a folder with one file for each prompt.
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
            if isinstance(item, FailedLine):  # counted at the end
                continue
            faults += 1
            if isinstance(source, PromptFile) and not as_json:
                _print(f"Error: {item.place}: {item.reason}\n")
            else:
                say_left_out(item)
    sys.stdout.flush()
    for source in found:
        if isinstance(source, PublishedFolder):
            _say_failures(source, by_retries[source])
    if faults:
        raise PartialError(f"{plural(faults, 'file or line', 'files or lines')} could not be read")


def _sources_of(folders: tuple[Path, ...], retries: Retries) -> list[Source]:
    for folder in folders:
        if not find_sources(folder):
            shown = printable(str(folder))
            raise InputError(f"nothing to print in {shown}: no per-prompt files and no published folder")
    return find_wholes(folders, retries)


def _say_failures(folder: PublishedFolder, by_retries: int) -> None:
    tally = read_tally(folder)
    failures = tally.failures - by_retries
    if failures > 0:
        again = f", and its retries answered {by_retries}" if by_retries else ""
        say(f"{folder.name}: {failures} of {tally.requests} failed{again}: see errors.jsonl")


def _print(text: str) -> None:
    """Write text to standard output so that every terminal can show it.

    Characters that its encoding lacks are escaped. Control characters in an answer could rewrite a terminal's screen
    or title (CWE-150): they are escaped on a terminal, and unchanged in a pipe or file.
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
