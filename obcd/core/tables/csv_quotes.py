"""Whether quotes enclose the cells of a table, or are part of its texts; and which rows a broken quote has swallowed.

    9 TAB He said "no TAB x            text in both readings: a quote counts only where a cell begins
    10 TAB "No, he said. TAB y         opens a cell as RFC 4180 reads it, and the next rows would be part of it

Tables with tabs are written in both ways, and do not say in which. From the first line on where the readings differ,
the one is taken under which fewer rows are wrong. If quotes are text, a cell with tabs, line breaks or doubled quotes
is wrong, as Excel writes it; if they enclose cells, a quote is wrong that makes one row of several, or stands behind a
closing quote or in a cell without quotes around it. Pure.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: How far ahead a table is read to decide, in bytes: the same for the same file, however its blocks come.
WINDOW_BYTES = 2**20
_NUMBER = re.compile(r"(\D*)(\d{1,15})")
#: What ids of one kind differ in, and what an id has that a word has not. Short numbers are in any text.
_VARIABLE = re.compile(r"[A-Za-z0-9]")
_ID = re.compile(r"(?=.*\d)(?=.*[A-Za-z_-]).{4,}|\d{6,}")


@dataclass(frozen=True, slots=True)
class RowShape:
    """The form of a row: its delimiter, the fewest fields (columns without a name may be missing), and the most."""

    delimiter: str
    least: int
    most: int

    def fits(self, line: str) -> bool:
        """Return whether a line is a row if quotes are text."""
        count = line.count(self.delimiter) + 1
        if count > self.most:  # empty cells behind the last column
            count = min(count, max(self.most, line.rstrip("\r\n " + self.delimiter).count(self.delimiter) + 1))
        return self.least <= count <= self.most

    def are_rows(self, lines: Sequence[str], *, by_ids: bool) -> bool:
        """Return whether the lines that quotes join look like rows of their own.

        A later line has a row's fields, as texts rarely have tabs. With `by_ids` each line has them, as texts have
        commas and line breaks themselves, and the first cells are ids: consecutive numbers (`17`, `18`, or `r-17`,
        `r-18`), or ids of one form (`a7f-09`, `b3c-11`).
        """
        lines = [line for line in lines if line.strip()]
        if self.most == 1 or len(lines) < 2:
            return False
        if not by_ids:
            return any(map(self.fits, lines[1:]))
        if not all(line.count(self.delimiter) + 1 >= self.least for line in lines):
            return False
        cells = [line.partition(self.delimiter)[0].strip().strip('"') for line in lines]
        numbers = [(found[1], int(found[2])) for cell in cells if (found := _NUMBER.fullmatch(cell))]
        first = numbers[0] if numbers else ("", 0)
        are_consecutive = numbers == [(first[0], first[1] + place) for place in range(len(lines))]
        return are_consecutive or (all(map(_ID.fullmatch, cells)) and len({_VARIABLE.sub("x", c) for c in cells}) == 1)


def opens_cell(line: bytes, delimiter: bytes) -> bool:
    """Return whether the readings of a line differ: a quote is where a cell begins."""
    return b'"' in line and (line.startswith(b'"') or delimiter + b'"' in line)


def weigh_quotes(lines: Sequence[str], shape: RowShape, *, bare: int, is_end: bool) -> int:
    """Return how many more rows are wrong if quotes are text than if they enclose cells; 0 if nothing shows it.

    Args:
        lines: The lines from a row on.
        bare: The number of rows before them with a quote, none of it at the beginning of a cell.
        is_end: Whether the last of them is the last of the table: an open quote has no end then.
    """
    wrong_as_text = sum(not shape.fits(line) for line in lines if line.strip())
    wrong_as_quotes = bare
    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for line in lines:
            taken += 1
            yield line

    reader = csv.reader(counted(), delimiter=shape.delimiter, strict=True)
    while True:
        first = taken
        try:
            fields = next(reader)
        except StopIteration:
            return wrong_as_text - wrong_as_quotes
        except csv.Error as error:
            is_wrong, is_doubled = is_end or "unexpected end" not in str(error), False
        else:
            is_wrong = bool(fields) and not (shape.least <= len(fields) <= shape.most or not any(fields[shape.most :]))
            cells = lines[first].rstrip("\r\n").split(shape.delimiter) if taken == first + 1 else []
            pairs = list(zip(cells, fields, strict=True)) if len(cells) == len(fields) else []
            # Who writes quotes around cells writes them around each with a quote in it, and doubles that one.
            is_wrong |= any('"' in cell and not cell.startswith('"') for cell in cells[: len(pairs)])
            is_doubled = any('"' in text and cell.startswith('"') for cell, text in pairs)
        swallowed = sum(map(shape.fits, lines[first + 1 : taken])) if shape.most > 1 else 0
        wrong_as_quotes += swallowed or is_wrong
        wrong_as_text += is_doubled
