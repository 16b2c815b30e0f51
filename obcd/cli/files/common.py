"""Helpers that the commands for files share: output streams, remarks for people."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import click

from obcd.cli.common import say
from obcd.errors import FormError, InputError
from obcd.text import printable
from obcd.text_files import LeftOut, output_file, output_stream

#: standard input or output instead of a file
STANDARD = "-"


def refuse_published(output: str) -> None:
    """Refuse to write over a file of a published job.

    Raises:
        InputError: If the output is such a file.
    """
    path = Path(output)
    if output != STANDARD and (path.parent / "manifest.json").exists() and path.exists():
        raise InputError(f"{printable(output)} is a file of a published job: choose another output file")


def target(output: str, *, overwrite: bool) -> AbstractContextManager[BinaryIO]:
    """Return the stream of a document: a file that appears complete at its end, or standard output."""
    if output == STANDARD:
        return output_stream(sys.stdout.buffer)
    return output_file(Path(output), overwrite=overwrite)


def sentence_of(error: FormError) -> str:
    """Return the reason of a refusal, with the command's own way out."""
    return f"{error}, or give {error.option}" if error.option else str(error)


def quotes_option(command: Callable[..., object]) -> Callable[..., object]:
    """Add `--quotes/--no-quotes` to a command that reads tables."""
    return click.option(
        "--quotes/--no-quotes",
        "quotes",
        default=None,
        help="whether quotes enclose the cells of a table, or are part of its texts [default: they enclose cells; in a "
        "table with tabs, as fits more rows]",
    )(command)


def say_left_out(item: LeftOut) -> None:
    """Write to standard error what is left out, and the reason."""
    say(f"left out: {item.place}: {item.reason}")
