"""Rows of any kind become one line each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from obcd.client.tables.frames import each_row
from obcd.client.tables.rows import LineWriter, Wish, plain
from obcd.core.request.lines import parse_line
from obcd.core.request.rows import PLAIN, Reading
from obcd.errors import InputError, LineError


class Ward(Enum):
    SURGERY = "surgery"


class Visit(BaseModel):
    note: str
    day: date


@dataclass
class Point:
    note: str


def lines(rows: Any, **wish: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in LineWriter(Wish(**wish)).lines(rows)]


def test_each_kind_of_row_is_a_line() -> None:
    day = date(2026, 11, 22)
    conversation = [{"role": "user", "content": "Hi"}]
    rows = ["a", {"prompt": "b", "n": 2}, conversation, Visit(note="c", day=day), Point("d")]

    assert lines(rows) == [
        {"prompt": "a"},
        {"prompt": "b", "n": 2},
        {"messages": conversation},
        {"note": "c", "day": "2026-11-22"},
        {"note": "d"},
    ]
    assert lines(rows[3:], template="{note}") == [{"prompt": "c"}, {"prompt": "d"}]
    assert lines(["a"], template="<{text}>") == [{"prompt": "<a>"}]


def test_template_is_that_of_a_profile_with_nested_fields() -> None:
    row = {"patient": {"age": 54}, "notes": ["BP 150/95"], "mrn": 7}

    assert lines([row], template="{patient.age} years: {notes[0]}", id_field="mrn") == [
        {"id": 7, "prompt": "54 years: BP 150/95"}
    ]
    assert Wish(template="{patient.age}: {notes[0]} {x?}").wanted(["patient", "pat", "notes", "x", "id", "y"]) == [
        "patient", "notes", "x", "id",
    ]  # fmt: skip


def test_options_are_in_every_line_and_those_of_a_row_come_first() -> None:
    wish = {"line": {"model": "m", "format": {"type": "object"}}}

    assert lines(["a", {"prompt": "b", "model": "own"}], **wish) == [
        {"prompt": "a", "model": "m", "format": {"type": "object"}},
        {"model": "own", "format": {"type": "object"}, "prompt": "b"},
    ]
    assert lines([{"note": "a", "model": "MRI"}], template="{note}", **wish)[0]["model"] == "m"


def test_kept_fields_are_echoed_and_others_are_not() -> None:
    (line,) = lines([{"note": "a", "ward": "3b", "secret": "x"}], template="{note}", keep=["ward"])

    assert line == {"prompt": "a", "ward": "3b"}
    assert lines([{"note": "a", "picture": object(), 7: 8}], template="{note}") == [{"prompt": "a"}]
    assert parse_line(json.dumps(line).encode(), 1).extra == {"ward": "3b"}


def test_kept_field_that_is_misspelt_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"row 1: .*ward"):
        lines([{"note": "a", "Ward": "3b"}], template="{note}", keep=["ward"])


def test_values_that_only_python_has_are_written_as_json_holds_them() -> None:
    moment = datetime(2026, 11, 22, 18, 1, tzinfo=UTC)
    values = {"a": float("nan"), "b": moment, "c": Decimal("1.50"), "d": Ward.SURGERY, "e": Path("x"), "f": (1, 2)}

    assert plain(values) == {
        "a": None, "b": "2026-11-22T18:01:00+00:00", "c": "1.50", "d": "surgery", "e": "x", "f": [1, 2],
    }  # fmt: skip
    assert plain(float("inf")) is None


def test_row_that_json_cannot_hold_is_named() -> None:
    with pytest.raises(InputError, match=r"row 2: a value of the type set"):
        lines(["a", {"prompt": "b", "x": {1}}])
    with pytest.raises(InputError, match="row 1"):
        lines([7])
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InputError, match="row 1: it is nested too deeply"):
        lines([{"prompt": "a", "x": deep}])


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=5), _VALUES, max_size=4), max_size=5))
def test_every_row_is_exactly_one_line_that_reads_back(rows: list[dict[str, Any]]) -> None:
    rows = [{**row, "note": row.get("note", "x")} for row in rows]
    writer = LineWriter(Wish(template="Read: {note}", line={"model": "m"}))

    found = list(writer.lines(rows))

    assert len(found) == len(rows)
    failed = 0
    for number, raw in enumerate(found, 1):
        assert raw.endswith(b"\n")
        assert raw.count(b"\n") == 1
        try:
            parse_line(raw[:-1], number)
        except LineError:
            failed += 1
    assert failed >= writer.unfilled


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.jsonl", b'{"mrn": "7", "note": "a"}\n\n{"mrn": "8", "note": "b"}\n'),
        ("notes.csv", b"mrn,note\n7,a\n8,b\n"),
        ("notes.json", b'[{"mrn": "7", "note": "a"}, {"mrn": "8", "note": "b"}]'),
    ],
)
def test_rows_of_a_file_of_any_form_get_the_template(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    wish = Wish(template="<{note}>", id_field="mrn")

    rows = each_row(file, wish.wanted, Reading(wish.template))

    assert lines(rows, template="<{note}>", id_field="mrn") == [
        {"id": "7", "prompt": "<a>"},
        {"id": "8", "prompt": "<b>"},
    ]


def test_file_with_a_bad_line_is_refused_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_bytes(b'{"note": "a"}\nbad\n')

    with pytest.raises(InputError, match="line 2"):
        list(each_row(file, list, PLAIN))
