"""Schemas drafted from examples."""

from __future__ import annotations

from typing import Any

import pytest

from obcd.core.schema.schemas import check_schema
from obcd.errors import InputError
from obcd.prompts.schema_draft import DATE_PATTERN, csv_examples, draft_schema, is_schema, settle_columns
from tests.golden.wording import wording


def of_csv(text: str) -> dict[str, Any]:
    return settle_columns(draft_schema(csv_examples([text.encode()])))


def test_record_gives_its_keys_and_types() -> None:
    record = {"name": "Mira", "age": 54, "weight": 70.5, "ill": True, "seen": "2025-03-11", "none": None, "l": [1, 2.5]}

    assert draft_schema([record]) == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "weight": {"type": "number"},
            "ill": {"type": "boolean"},
            "seen": {"type": "string", "pattern": DATE_PATTERN},
            "none": {"type": "null"},
            "l": {"type": "array", "items": {"type": "number"}},
        },
        "required": list(record),
        "additionalProperties": False,
    }


def test_what_an_example_lacks_is_not_required_and_types_are_united() -> None:
    drafted: dict[str, Any] = draft_schema([{"a": 1, "b": {"c": 1}}, {"a": None, "b": {}}, {"a": 2.5}])

    assert drafted["required"] == ["a"]
    assert drafted["properties"]["a"] == {"type": ["number", "null"]}
    assert drafted["properties"]["b"]["required"] == []


def test_csv_columns_have_the_narrowest_type_of_all_their_cells() -> None:
    drafted = of_csv(
        "name,mrn,age,weight,ill,seen,mixed\nMira,0042,54,70,true,2025-01-02,1\nJo,0043,,70.5,false,2025-02-03,x\n"
    )

    assert {name: part["type"] for name, part in drafted["properties"].items()} == {
        "name": "string",
        "mrn": "string",
        "age": ["integer", "null"],
        "weight": "number",
        "ill": "boolean",
        "seen": "string",
        "mixed": "string",
    }
    assert drafted["properties"]["seen"]["pattern"] == DATE_PATTERN
    assert check_schema(drafted) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", wording("it-is-empty-a-first-line")),
        ("\n", wording("it-is-empty-a-first-line")),
        ("a,b\n", wording("there-is-no-example-in-it")),
        ("a,a\n1,2\n", wording("two-of-its-columns-have-the")),
        ("a,b\n1\n", wording("line-2-has-1-fields-the")),
        ('a,b\n"1,2\n', "line 2: it is not CSV: a quote is not closed"),
    ],
)
def test_csv_that_is_none_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(InputError) as error:
        of_csv(text)
    assert str(error.value) == why


def test_no_example_too_many_keys_and_too_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    for examples, why in (
        ([], "no example"),
        ([{str(number): 1 for number in range(1001)}], "more than 1000"),
        ([deep], "more than 32 deep"),
    ):
        with pytest.raises(InputError, match=why):
            draft_schema(examples)


def test_schema_is_told_from_a_record() -> None:
    assert is_schema({"$schema": "x"})
    assert is_schema({"type": "object", "properties": {}})
    assert not any(map(is_schema, ({"type": "visit", "properties": 1}, {"type": "object"}, [], 5)))
