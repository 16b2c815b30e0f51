"""Rows that become prompts: a template with the names of fields, filled from any JSON object. Pure.

    Reading("Summarise: {note}", "mrn")      {"mrn": "7", "note": "BP 150/95"}
    -> id "7", prompt "Summarise: BP 150/95", extra {"note": "BP 150/95"}

The whole text in braces is the name of a field: nothing is looked up in a value, nothing is formatted (`str.format`
would let a row reach attributes of Python's own objects). A field that is null or blank counts as missing: no
prompt is meant to be about nothing, or about the word `null`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from obcd.errors import LineError

#: The default field for the id.
ID_FIELD = "id"
#: Longest name of a field, in characters.
MAX_FIELD_LENGTH = 200
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the lines of a job are read, beside their own keys.

    Attributes:
        template: Makes the prompt of each line, which then is a row whatever its keys are; None: each line holds its
            own prompt.
        id_field: The field of a row that is its id; if it is blank, the line's number is.
        delimiter: The character between the fields of CSV.
        drop_last_assistant: Whether the last message of a conversation is dropped if it is the assistant's.
    """

    template: str | None = None
    id_field: str = ID_FIELD
    delimiter: str = ","
    drop_last_assistant: bool = False


#: For lines that hold their own prompts.
PLAIN = Reading()


def parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the pieces of a template with at least one field.

    Raises:
        ValueError: With one sentence, if it is malformed or names no field.
    """
    pieces = pieces_of(template)
    if len(pieces) == 1:
        raise ValueError("it names no field, so that all prompts would be the same: write {note} for the field `note`")
    return pieces


def is_blank(value: object) -> bool:
    """Return whether a field is empty: null, or a text of white space only."""
    return value is None or (isinstance(value, str) and not value.strip())


@lru_cache(maxsize=64)
def pieces_of(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the pieces of a template: `[(text before a field, the field's name or None at the end), …]`.

    Raises:
        ValueError: With one sentence, if it is malformed.
    """
    pieces: list[tuple[str, str | None]] = []
    text, at = "", 0
    for found in _PIECE.finditer(template):
        text += template[at : found.start()]
        at = found.end()
        if found[0] in ("{{", "}}"):
            text += found[0][0]
            continue
        name = found[1]
        if name is None:
            raise ValueError(f"a single `{found[0]}` is in it, at character {found.start() + 1}: write it twice")
        if not name.strip() or name != name.strip():
            raise ValueError(
                f"the braces at character {found.start() + 1} hold no field's name: write {{note}}, {{{{ for a brace"
            )
        if len(name) > MAX_FIELD_LENGTH or not name.isprintable():
            raise ValueError(
                f"the braces at character {found.start() + 1} hold something that is not a field's name: "
                "write {note}, {{ for a brace"
            )
        pieces.append((text, name))
        text = ""
    return (*pieces, (text + template[at:], None))


def fields_of(template: str) -> tuple[str, ...]:
    """Return the names of the fields of a template, in its order, each once."""
    return tuple(dict.fromkeys(name for _, name in pieces_of(template) if name is not None))


def fill(template: str, row: Mapping[str, object]) -> str:
    """Return the prompt of a row: texts unchanged, other values as JSON.

    Raises:
        LineError: If a field is missing or empty; it names the field.
    """
    parts: list[str] = []
    for text, name in pieces_of(template):
        parts.append(text)
        if name is not None:
            if name not in row:
                raise LineError(f"it has no field `{name}`, which the template needs")
            value = row[name]
            if is_blank(value):
                raise LineError(f"its field `{name}` is empty, which the template needs")
            parts.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return "".join(parts)
