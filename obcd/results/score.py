"""Compare records that a model extracted with a key of correct answers, field by field.

Pure: takes values, opens no file. It judges only the fields in the key; it does not look for other errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from obcd.errors import InputError

#: A line number in a key: counted from 1, no sign, no leading zero, so that a line has one spelling.
_LINE_NUMBER = re.compile(r"[1-9][0-9]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of a comparison.

    Attributes:
        matched: Number of fields that equal those of the key.
        total: Number of fields in the key, including missing lines: a line without a record has no correct field.
    """

    matched: int
    total: int


def score(records: Mapping[int, object], key: Mapping[str, Mapping[str, object]]) -> Score:
    """Count the fields of the key that are correct in the records.

    Values must be equal as JSON: `54` and `54.0` are, `54` and `"54"` are not, nor are `1` and `true`. A record that is
    not an object has no correct field. Records of other lines, and further fields, do not count.

    Args:
        records: {line number: parsed answer}, e.g. `{1: {"mrn": "482913", "age": 54}}`.
        key: {line number as text: {field: correct value}}, e.g. `{"1": {"mrn": "482913", "age": 54}}`.

    Raises:
        InputError: If the key names a line that is not a number counted from 1.
    """
    matched = total = 0
    for name, wanted in key.items():
        record = records.get(_line_number(name))
        found = record if isinstance(record, Mapping) else {}
        total += len(wanted)
        matched += sum(field in found and _is_same(found[field], value) for field, value in wanted.items())
    return Score(matched=matched, total=total)


def _line_number(name: str) -> int:
    if not _LINE_NUMBER.fullmatch(name):
        raise InputError(f'the key names line {name!r:.60}: write line numbers as text, counted from 1, e.g. "12"')
    return int(name)


def _is_same(found: object, wanted: object) -> bool:
    """Return whether two values are equal as JSON; Python says True == 1, at any depth."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(_is_same(found[name], wanted[name]) for name in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_is_same, found, wanted))
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted
