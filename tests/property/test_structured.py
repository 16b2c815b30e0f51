"""What holds for any answer and any schema: nothing raises, and what fits does satisfy the schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
from hypothesis import given
from hypothesis import strategies as st

from obcd.core.schema.extract import search_json
from obcd.core.schema.schemas import Fit, Misfit, Schema, check_schema
from obcd.package_data import shared
from obcd.prompts.schema_draft import draft_schema
from obcd.results.merging.column_kinds import schema_kinds

VISIT: dict[str, Any] = json.loads((shared("examples") / "visit.schema.json").read_text("utf-8"))
HELD = Schema(VISIT)
GOOD = '{"patient_name": "Mira Solberg", "mrn": "482913", "visit_date": "2025-03-11", "age": 54}'

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
QUOTE = '"'
#: Pieces of which models make what they answer.
pieces = st.sampled_from(
    ["<think>", "</think>", "<reasoning>", "</reasoning>", "<|channel|>analysis<|message|>", "```", "```json\n",
     "\n```\n", GOOD, GOOD[:40], GOOD[40:], "{", "}", "[", "]", "\\", ",", QUOTE, "NaN", "1e999", "-", "9" * 5000,
     "\ud800", "\x00", "\ufeff", "Sure!", "'", "'a'", "None", "//", "null", "{}", "[]"]
)  # fmt: skip
keywords = st.sampled_from(
    ["type", "properties", "required", "items", "pattern", "enum", "const", "$ref", "$defs", "anyOf", "not", "minimum",
     "multipleOf", "maxLength", "additionalProperties", "$id", "$schema", "$anchor", "format", "if", "then"]
)  # fmt: skip
schemas = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["#", "#/$defs/a", "string", "(", "x:y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, min_size=1, max_size=4),
    max_leaves=10,
)


@given(st.lists(pieces | st.text(max_size=5), max_size=12).map("".join))
def test_no_answer_raises_and_what_fits_satisfies_the_schema(answer: str) -> None:
    judged = HELD.judge(answer)

    if isinstance(judged, Fit):
        jsonschema_rs.validate(VISIT, judged.value)
        assert json.loads(judged.text) == judged.value
    else:
        assert judged.reason
        assert judged.text in answer


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.text(max_size=3))
def test_record_that_was_tampered_with_fits_only_if_it_satisfies_the_schema(start: int, end: int, put: str) -> None:
    judged = HELD.judge(GOOD[:start] + put + GOOD[end:])

    assert isinstance(judged, Misfit) or jsonschema_rs.is_valid(VISIT, judged.value)


@given(schemas, values)
def test_no_schema_raises_and_one_that_is_taken_can_be_applied(schema: Any, value: Any) -> None:
    if not isinstance(schema, dict):
        schema = {"not": schema}
    if check_schema(schema) == "":
        assert isinstance(Schema(schema).judge(json.dumps(value)), Fit | Misfit)
        assert isinstance(schema_kinds(schema), dict)


@given(st.lists(pieces | st.text(max_size=5), max_size=8).map("".join))
def test_thoughts_and_answer_are_parts_of_what_was_said(answer: str) -> None:
    search = search_json(answer)

    assert search.thoughts in answer or "<|channel|>" in answer
    assert answer.endswith(search.text)


@given(st.lists(values, min_size=1, max_size=5))
def test_drafted_schema_takes_all_its_examples(examples: list[Any]) -> None:
    drafted = draft_schema(examples)

    assert check_schema(drafted) == ""
    held = Schema(drafted)
    assert all(isinstance(held.judge(json.dumps(example)), Fit) for example in examples if example not in ("",))
