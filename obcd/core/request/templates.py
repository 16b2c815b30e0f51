"""Templates: texts with the names of fields, filled from any JSON object. Pure.

    {note}             the field `note`; a text is put in unchanged, any other value as JSON
    {note?}            the same, and nothing where the field is missing, null or empty
    {a.b[0].c}         a field within objects and lists; [-1] is the last item
    {{ and }}          braces

A field that has exactly the name in the braces comes first, such as the column `a.b[0]` or `Really?` of a table.
Nothing is formatted, and only objects and lists are looked into (`str.format` would let a row reach attributes of
Python's own objects). A field that is null or blank counts as missing: no prompt is meant to be about nothing, or about
`null`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from obcd.core.request.keys.near_keys import find_near
from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError

#: Longest name of a field, in characters.
MAX_FIELD_LENGTH = 200
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_JSON = re.compile(r"\"|'[^']*'\s*:")
_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[-?\d{1,9}\])+")
_STEP = re.compile(r"\[(-?\d+)\]|[^.\[\]]+")
_BRACE = "a brace is written {{"


@dataclass(frozen=True, slots=True)
class TemplateField:
    """A field in a template.

    Attributes:
        text: What is in the braces.
        name: The name of the field, `a.b[0]` for one within others.
        is_optional: Whether it may be missing.
    """

    text: str
    name: str
    is_optional: bool

    @classmethod
    def of(cls, text: str) -> TemplateField:
        """Return the field that is written so."""
        name = text.removesuffix("?").rstrip()
        return cls(text, name, True) if name and text.endswith("?") else cls(text, text, False)


#: `[(text before a field, the field or None at the end), …]`
Pieces = tuple[tuple[str, TemplateField | None], ...]


def parse_template(template: str) -> Pieces:
    """Return the pieces of a template with at least one field.

    Raises:
        ValueError: With one sentence, if it is malformed or names no field.
    """
    pieces = pieces_of(template)
    for _, named in pieces:
        if named is not None and _JSON.match(named.text):
            place = template.index(f"{{{named.text}}}") + 1
            raise ValueError(f"the braces at character {place} hold JSON, no field's name: {_BRACE}, its end }}}}")
    if len(pieces) == 1:
        raise ValueError("it names no field, so that all prompts would be the same: write {note} for the field `note`")
    return pieces


def is_blank(value: object) -> bool:
    """Return whether a field is empty: null, or a text of white space only."""
    return value is None or (isinstance(value, str) and not value.strip())


@lru_cache(maxsize=64)
def pieces_of(template: str) -> Pieces:
    """Return the pieces of a template.

    Raises:
        ValueError: With one sentence, if it is malformed.
    """
    pieces: list[tuple[str, TemplateField | None]] = []
    text, at = "", 0
    for found in _PIECE.finditer(template):
        text += template[at : found.start()]
        at = found.end()
        if found[0] in ("{{", "}}"):
            text += found[0][0]
            continue
        name, place = found[1], found.start() + 1
        if name is None:
            raise ValueError(f"a single `{found[0]}` is in it, at character {place}: write it twice ({_BRACE})")
        if not name.strip() or name != name.strip():
            raise ValueError(f"the braces at character {place} hold no field's name: write {{note}}; {_BRACE}")
        if len(name) > MAX_FIELD_LENGTH or not name.isprintable():
            raise ValueError(
                f"the braces at character {place} hold something that is not a field's name: write {{note}}; {_BRACE}"
            )
        pieces.append((text, TemplateField.of(name)))
        text = ""
    return (*pieces, (text + template[at:], None))


def fields_of(template: str) -> tuple[TemplateField, ...]:
    """Return the fields of a template, in its order, each once."""
    return tuple(dict.fromkeys(named for _, named in pieces_of(template) if named is not None))


def fill(template: str, row: Mapping[str, object]) -> str:
    """Return the prompt of a row: texts unchanged, other values as JSON.

    Raises:
        LineError: If a field is missing or empty; it names the field. Or if nothing but optional fields would be in the
            prompt, and all are empty.
    """
    parts: list[str] = []
    for text, named in pieces_of(template):
        parts.append(text)
        if named is not None:
            parts.append(_value(named, row))
    prompt = "".join(parts)
    if not prompt.strip():
        raise LineError("all fields of the template are empty in it")
    return prompt


def _value(named: TemplateField, row: Mapping[str, object]) -> str:
    is_exact = named.text in row
    found = [row[named.text]] if is_exact else list(_find(row, named.name))
    if found and not is_blank(found[0]):
        return found[0] if isinstance(found[0], str) else json.dumps(found[0], ensure_ascii=False)
    if named.is_optional and not is_exact:
        return ""
    if found:
        raise LineError(f"its field `{named.text}` is empty, which the template needs")
    near = find_near(named.name, islice(row, 1000))
    has = f"; it has `{short_key(near)}`" if near else ""
    raise LineError(f"it has no field `{named.text}`, which the template needs{has}")


def _find(row: Mapping[str, object], name: str) -> Iterator[object]:
    """Yield the value of a field, or nothing if it is missing."""
    if name in row:
        yield row[name]
        return
    if not _PATH.fullmatch(name):
        return
    value: object = row
    at = 0
    steps = list(_STEP.finditer(name))
    while at < len(steps):
        if isinstance(value, Mapping):
            # A key may have dots itself: the longest that is there counts.
            keys = ((end, name[steps[at].start() : steps[end - 1].end()]) for end in range(len(steps), at, -1))
            at, key = next(((end, key) for end, key in keys if key in value), (0, ""))
            if not at:
                return
            value = value[key]
        elif isinstance(value, list) and steps[at][1] is not None:
            index = int(steps[at][1])
            if not -len(value) <= index < len(value):
                return
            value, at = value[index], at + 1
        else:
            return
    yield value
