"""Rows of figures: a table at a terminal, plain aligned lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from obcd.cli.common import is_terminal

if TYPE_CHECKING:
    from rich.table import Table


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows on standard output; a heading that begins with `>` is a column of numbers."""
    if not rows:
        return
    if is_terminal():
        _print_rich(headings, rows)
        return
    cells = [[heading.lstrip(">") for heading in headings], *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = [
            cell.rjust(width) if heading.startswith(">") else cell.ljust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def new_table(*headings: str) -> Table:
    """Return an empty table for a terminal, with the headings of `print_rows`."""
    from rich.table import Table  # noqa: PLC0415 - rich is for terminals only

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left")
    return table


def _print_rich(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - rich is for terminals only
    from rich.text import Text  # noqa: PLC0415

    table = new_table(*headings)
    before = None
    for row in rows:
        if before is not None and row[0] != before:
            table.add_section()
        before = row[0]
        table.add_row(*map(Text, row), style="bold" if row[-1] else "")
    Console().print(table)
