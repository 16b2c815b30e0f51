"""Rows of CSV as prompt lines: the meaning of a cell if no template makes the prompts. Pure, a row at a time.

    id,prompt,options,ward               {"id": "7", "prompt": "Hi", "options": {"temperature": 0}, "ward": ""}
    7,Hi,"{""temperature"": 0}",
    8,Ho,,3b                             {"id": "8", "prompt": "Ho", "ward": "3b"}

The same rule holds everywhere (drops, `obcd batch`, `obcd convert`): cells of `JSON_CELLS` hold JSON, all others text.
In a column with the name of an obcd key, an empty cell means that the line does not have the key; in any other column
it is an empty text, to be echoed. If a template makes the prompts, all cells are text (`rows`).
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence

from obcd.core.request.conversation.data_sets import OBEYED
from obcd.core.request.json_objects import parse_object
from obcd.core.request.keys.near_keys import describe_key, find_near, name_keys, suggest_template
from obcd.core.request.lines import KIND_KEYS, MESSAGE_KEYS, THINK_LEVELS
from obcd.core.request.records import Kind
from obcd.core.request.rows import Reading
from obcd.core.tables.csv_reader import Sheet
from obcd.core.tables.file_format import Form
from obcd.errors import FormError, LineError

#: Columns whose cells are JSON, if their name is a key of the row's kind of request.
JSON_CELLS = frozenset(
    ("messages", "options", "format", "think", "images", "tools", "n", "logprobs", "top_logprobs", "dimensions", "raw")
) | {"tool_calls"}
#: {column: words that need no quotes there, although JSON requires them}
WORDS = {"format": ("json",), "think": THINK_LEVELS}
#: {column that holds the prompt: keys that a line with it may have}, as `lines.parse_line` distinguishes them.
DOORS = {
    "embed": KIND_KEYS[Kind.EMBED],
    "messages": KIND_KEYS[Kind.CHAT],
    "prompt": KIND_KEYS[Kind.CHAT],
    "complete": KIND_KEYS[Kind.COMPLETE],
    "role": MESSAGE_KEYS | {"id"},
    "content": MESSAGE_KEYS | {"id"},
    **dict.fromkeys(("conversations", "conversation"), frozenset(OBEYED)),  # not `turns`, which may be a number
}
_OURS = frozenset().union(*KIND_KEYS.values())


def keys_of(document: Container[str]) -> frozenset[str]:
    """Return the keys that have a meaning for a line of this kind, including those that it lacks."""
    return next((keys for door, keys in DOORS.items() if door in document), _OURS)


def read_cells(row: Mapping[str, str]) -> dict[str, object]:
    """Return a row of a table as a line.

    Raises:
        LineError: If a cell that has to be JSON is not valid.
    """
    said = {name for name, cell in row.items() if cell != ""}
    keys = keys_of(said)
    silent = keys | _OURS  # rows for answers and rows for vectors may be in the same table
    document: dict[str, object] = {}
    for name, cell in row.items():
        if name in said and name in keys:
            document[name] = _read_cell(name, cell)
        elif name in said or name not in silent:
            document[name] = cell
    if DOORS.keys().isdisjoint(said):  # then an empty cell gets an error by its name, and the id is kept
        document |= {name: "" for name in [name for name in ("prompt", *DOORS) if name in row][:1]}
    return document


#: Words from which on the name of a column is like a sentence.
_SENTENCE_WORDS = 4
_NO_HEADER = "; if that line is a title, remove it, and if it is a row, write the names of the columns above it"


def check_columns(header: Sequence[str]) -> None:
    """Refuse a table without prompts as a whole: none of its rows could be a request.

    Raises:
        FormError: With what to do.
    """
    if DOORS.keys().isdisjoint(header):
        near = find_near("prompt", header)
        template = suggest_template(header, "name of a column")
        odd = _NO_HEADER if _is_odd(header) else ""
        which = f", {describe_key(near)}" if near else ""
        raise FormError(
            f"none of its columns is called `prompt`: rename the one with the prompts{which}, let a profile make "
            f"prompts of them ({template}), or make a prompt file of one (obcd prepare --column NAME); "
            f"its columns are {name_keys(header)}{odd}"
        )


def _is_odd(header: Sequence[str]) -> bool:
    """Return whether a first line is perhaps no header: it is a comment or a title, or has sentences in it."""
    most = _SENTENCE_WORDS if len(header) > 1 else 2
    return any(name[:1] == "#" or len(name.split()) >= most for name in header)


def sheet_of(form: Form, reading: Reading, most_bytes: int) -> Sheet:
    """Return the reader of a table of prompts.

    Args:
        most_bytes: The longest row, in bytes.
    """
    delimiter = form.delimiter(reading.delimiter)
    if reading.template is not None:
        return Sheet(delimiter, most_bytes, reading.quotes)
    return Sheet(delimiter, most_bytes, reading.quotes, read=read_cells, check=check_columns)


def read_value(name: str, value: object) -> object:
    """Return the value of a key of obcd from a cell that may be nested: null says nothing in it.

    Raises:
        LineError: If it is a text that has to be JSON and is not.
    """
    return _read_cell(name, value) if isinstance(value, str) else _without_nulls(value)


def _without_nulls(value: object) -> object:
    """Return a value without keys that are null: a struct of Parquet has all keys that any row has."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _read_cell(name: str, cell: str) -> object:
    if name in JSON_CELLS:
        return cell.strip() if cell.strip() in WORDS.get(name, ()) else _read_json(name, cell)
    return _read_json(name, cell) if name == "embed" and cell.startswith("[") else cell


def _read_json(name: str, cell: str) -> object:
    try:
        return parse_object(b'{"cell": ' + cell.encode() + b"}")["cell"]
    except (LineError, KeyError):
        pass
    if name == "embed":
        raise LineError('the cell of `embed` begins as a list but is not one: write such a text as ["[…"]')
    raise LineError(f'the cell of `{name}` must be JSON, e.g. {{"temperature": 0}}, 3, "json"')


def write_cell(name: str, value: object, keys: Container[str]) -> str:
    """Return the cell that `read_cells` reads as this value, or as its JSON if its column holds texts."""
    if value is None:
        return ""
    is_json = name in JSON_CELLS and name in keys
    return value if isinstance(value, str) and not is_json else json.dumps(value, ensure_ascii=False)
