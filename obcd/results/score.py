"""Compare records that a model extracted with a key of right answers, field by field.

Pure: takes values, opens nothing. It judges only the fields that the key names; it does not look for other faults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from obcd.errors import InputError

#: A line number as a key writes it: counted from 1, no sign, no leading zero, so that a line has one spelling.
_LINE_NUMBER = re.compile(r"[1-9][0-9]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a comparison found.

    Attributes:
        matched: Fields that equal the key's.
        total: Fields of the key, those of missing lines included: a line without a record has no field right.
    """

    matched: int
    total: int


def score(records: Mapping[int, object], key: Mapping[str, Mapping[str, object]]) -> Score:
    """Count the fields of the key that the records have right.

    Values must be equal as JSON: `54` and `54.0` are, `54` and `"54"` are not, nor are `1` and `true`. A record that is
    not an object has no field right. Records of other lines, and further fields, do not count.

    Args:
        records: {line number: parsed answer}, e.g. `{1: {"mrn": "482913", "age": 54}}`.
        key: {line number as text: {field: right value}}, e.g. `{"1": {"mrn": "482913", "age": 54}}`.

    Raises:
        InputError: The key names a line that is not a number counted from 1.
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
    """Compare as JSON does; Python alone says True == 1, at any depth."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(_is_same(found[name], wanted[name]) for name in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_is_same, found, wanted))
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted
