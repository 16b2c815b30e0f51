"""Tables that stay tables on a phone: rows become cards there, so roles and names of columns stand on every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from obcd.core.markup import Child, Markup, Value, tag


class TableColumn(NamedTuple):
    """A column; its kind is `num` for figures, `progress` for bars, or "" for text."""

    name: str
    kind: str = ""


class TableRow(NamedTuple):
    """A row: its cells, the first of which names it, and the id by which it is found again."""

    cells: Sequence[Child]
    key: str = ""


class RowGroup(NamedTuple):
    """Rows that belong together, with a heading."""

    heading: Child
    rows: Sequence[TableRow]


def table(columns: Sequence[TableColumn], groups: Sequence[RowGroup], labelled_by: str) -> Markup:
    """Return a table.

    Args:
        labelled_by: The id of its heading.
    """
    head = [
        tag("th", {"scope": "col", "role": "columnheader", "class": item.kind or None}, item.name) for item in columns
    ]
    top = tag("thead", {"role": "rowgroup"}, tag("tr", {"role": "row"}, head))
    bodies = [_body(columns, group) for group in groups]
    return tag("table", {"role": "table", "aria-labelledby": labelled_by}, top, bodies)


def _body(columns: Sequence[TableColumn], group: RowGroup) -> Markup:
    heading = None
    if group.heading is not None:
        cell: dict[str, Value] = {"colspan": len(columns), "scope": "rowgroup", "role": "rowheader"}
        heading = tag("tr", {"class": "group", "role": "row"}, tag("th", cell, group.heading))
    return tag("tbody", {"role": "rowgroup"}, heading, [_row(columns, row) for row in group.rows])


def _row(columns: Sequence[TableColumn], row: TableRow) -> Markup:
    first, *others = row.cells
    cells = [tag("th", {"scope": "row", "role": "rowheader"}, first)]
    cells += [
        tag("td", {"role": "cell", "data-name": column.name, "class": column.kind or None}, cell)
        for column, cell in zip(columns[1:], others, strict=True)
    ]
    return tag("tr", {"id": row.key or None, "role": "row"}, cells)
