"""Schemas that can be held to, and answers that fit."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from obcd.core.schema import schemas
from obcd.core.schema.patterns import MAX_PATTERN
from obcd.core.schema.schemas import TOLD, Fit, Misfit, Schema, check_schema, find_part, schema_of
from obcd.package_data import shared

VISIT: dict[str, Any] = json.loads((shared("examples") / "visit.schema.json").read_text("utf-8"))
GOOD = '{"patient_name": "Mira Solberg", "mrn": "482913", "visit_date": "2025-03-11", "age": 54}'
RECORD = json.loads(GOOD)


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"  \n{GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"Sure, here it is:\n\n```\n{GOOD}\n```\nAnything else?",
        f"The record is {GOOD} as you asked.",
        f"\ufeff{GOOD}",
    ],
)
def test_fences_and_prose_are_stripped(answer: str) -> None:
    assert Schema(VISIT).judge(answer) == Fit(RECORD, GOOD)


@pytest.mark.parametrize(
    ("answer", "thoughts"),
    [
        (f"<think>\nMaybe {{}}?\n</think>\n\n{GOOD}", "Maybe {}?"),
        (f"\n<think></think>{GOOD}", ""),
        (f"Maybe {{}}?\n</think>{GOOD}", "Maybe {}?"),  # the template wrote the opening mark
    ],
)
def test_thoughts_in_the_answer_are_kept_apart(answer: str, thoughts: str) -> None:
    assert Schema(VISIT).judge(answer) == Fit(RECORD, GOOD, thoughts)


def test_mark_inside_a_record_is_text() -> None:
    answer = '{"a": "</think>"}'

    assert Schema("json").judge(answer) == Fit({"a": "</think>"}, answer)


def test_thought_that_never_ends_is_no_answer() -> None:
    misfit = Schema(VISIT).judge(f"<think> so {GOOD}")

    assert isinstance(misfit, Misfit)
    assert (misfit.text, misfit.thoughts) == ("", f"so {GOOD}")


def test_reason_names_the_place_in_the_schema_and_quotes_nothing() -> None:
    answer = json.dumps({**RECORD, "age": "Jane Roe", "secret": 1})

    misfit = Schema(VISIT).judge(answer)

    assert isinstance(misfit, Misfit)
    assert misfit.reason == "the answer does not fit the schema at properties/age/type, additionalProperties"
    assert "At $.age: 'Jane Roe' is not of type 'integer'" in misfit.told
    assert misfit.text == answer


def test_model_is_told_of_a_few_problems_at_once_and_briefly() -> None:
    schema = Schema({"type": "array", "items": {"type": "integer"}})

    misfit = schema.judge(json.dumps(["x" * 1000] * 50))

    assert isinstance(misfit, Misfit)
    assert len(misfit.told.splitlines()) == TOLD
    assert len(misfit.told) < (TOLD + 1) * schemas.MAX_SENTENCE


def test_answer_without_json_is_told_so() -> None:
    misfit = Schema(VISIT).judge("I cannot say.")

    assert misfit == Misfit(
        "the answer is no JSON: there is no JSON in it",
        "There is no valid JSON in it: there is no JSON in it.",
        "I cannot say.",
    )


def test_any_json_will_do_where_json_is_all_that_is_wanted() -> None:
    assert Schema("json").judge("```\n[1]\n```") == Fit([1], "[1]")
    assert isinstance(Schema("json").judge("no"), Misfit)


def test_quotes_are_taken_off_numbers_where_only_numbers_may_stand() -> None:
    quoted = GOOD.replace("54", '"54"')

    assert Schema(VISIT).judge(quoted) == Fit(RECORD, json.dumps(RECORD), is_mended=True)
    for text in ("54 years", "0x36", "", "1e999", "true", "null", "54.5"):
        assert isinstance(Schema(VISIT).judge(json.dumps({**RECORD, "age": text})), Misfit)
    either = Schema({"properties": {"a": {"type": ["integer", "string"]}}})
    assert either.judge('{"a": "5"}') == Fit({"a": "5"}, '{"a": "5"}')


def test_name_of_a_property_is_no_number_in_quotes() -> None:
    schema = Schema({"properties": {"a": {"propertyNames": {"type": "integer"}}}})

    assert isinstance(schema.judge('{"a": {"5": "x"}}'), Misfit)


def test_key_that_stands_twice_makes_an_answer_no_json() -> None:
    misfit = Schema({"properties": {"a": {"type": "integer"}}}).judge('Here: {"a": "x", "a": 1}')

    assert isinstance(misfit, Misfit)
    assert misfit.reason == "the answer is no JSON: a key stands in its JSON twice"


def test_true_is_no_integer_and_one_is_no_true() -> None:
    assert isinstance(Schema({"type": "integer"}).judge("true"), Misfit)
    assert isinstance(Schema({"const": True}).judge("1"), Misfit)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "int"}, "at type: 'int' is not valid under any of the given schemas"),
        ({"properties": {"a": {"minLength": -1}}}, "at properties/a/minLength: -1 is less than the minimum of 0"),
        ({"properties": 5}, "at properties: 5 is not of type 'object'"),
        ({"pattern": "("}, "at its top: '(' is no pattern (missing ) at position 1)"),
        ({"patternProperties": {"*": {}}}, "at its top: '*' is no pattern (nothing to repeat at position 0)"),
        (
            {"properties": {"a": {"$ref": "https://e.org/a"}}},
            "at properties/a: `$ref` points to 'https://e.org/a', which is never fetched: put it under $defs",
        ),
        (
            {"$ref": "other.json"},
            "at its top: `$ref` points to 'other.json', which is never fetched: put it under $defs",
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/b"}}},
            "at properties/a: `$ref` points to '#/$defs/b', which is not in it",
        ),
        ({"$ref": "#"}, "it refers to itself without end, or is nested too deep"),
        (
            {"properties": {"a": {"pattern": "(a{1000}){1000}"}}},
            "at properties/a: '(a{1000}){1000}' is no pattern (its counts multiply to too many places: write smaller "
            "ones, or * and +)",
        ),
        (
            {"pattern": "(?x)a{2 # (\n}"},
            "at its top: '(?x)a{2 # (\\n}' is no pattern (the flag x is not taken: write it without comments)",
        ),
        (
            {"allOf": [{"patternProperties": {"^a": {}}}], "unevaluatedProperties": False},
            "`patternProperties` beside `unevaluatedProperties` is not taken: write `additionalProperties` instead",
        ),
        ({"$ref": "#nobody"}, "at its top: `$ref` points to '#nobody', which is not in it"),
        (
            {"properties": {"a": {"items": {"$ref": "#nobody"}}}},
            "at properties/a/items: `$ref` points to '#nobody', which is not in it",
        ),
        (
            {"properties": {"a": {"$id": "https://e.org/a", "$ref": "#/$defs/b"}}, "$defs": {"b": {}}},
            "at properties/a: `$ref` points to '#/$defs/b', which is not in it",
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"allOf": [{"$ref": "#/$defs/b"}]}}},
            "it refers to itself without end, or is nested too deep",
        ),
    ],
)
def test_schema_that_cannot_be_held_to_is_refused_with_a_sentence(schema: dict[str, Any], why: str) -> None:
    assert check_schema(schema) == why


@pytest.mark.parametrize(
    "schema",
    [
        VISIT,
        {"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}},  # names, not keywords
        {"const": {"$ref": "https://example.org"}},  # data, not a schema
        {"$defs": {"a/b": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/a~1b"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]},
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#named"}}, "$defs": {"b": {"$anchor": "named", "type": "integer"}}},
        {"properties": {"a": {"$id": "https://e.org/a", "$ref": "#/$defs/b", "$defs": {"b": {}}}}},
        {"$dynamicAnchor": "node", "properties": {"next": {"$dynamicRef": "#node"}}},
        {
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "$recursiveAnchor": True,
            "items": {"$recursiveRef": "#"},
        },
    ],
)
def test_schema_that_can_be_held_to_is_taken(schema: dict[str, Any]) -> None:
    assert check_schema(schema) == ""


def test_pattern_that_is_too_long_is_refused() -> None:
    why = check_schema({"pattern": "a" * (MAX_PATTERN + 1)})

    assert why.endswith(f"… is no pattern (it is longer than {MAX_PATTERN} characters)")


def test_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"not": schema}

    assert check_schema(schema) == "it is nested too deep"


def test_nothing_is_ever_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    found = Schema({"$ref": "http://127.0.0.1:9/schema.json"}).judge("{}")

    assert isinstance(found, Misfit)
    assert found.reason == "the schema cannot be applied to the answer (_WrappedReferencingError)"


def test_schema_is_compiled_once() -> None:
    assert schema_of(VISIT) is schema_of(dict(VISIT))
    assert schema_of("json") is schema_of("json")


def test_pointer_leads_to_a_part_or_nowhere() -> None:
    root = {"a": [{"b~c/d": 1}], "e%": 2}

    assert find_part(root, "#") is root
    assert find_part(root, "#/a/0/b~0c~1d") == 1
    assert [find_part(root, pointer) for pointer in ("#/a/1", "#/a/x", "#/a/0/b~0c~1d/z", "#/a/" + "9" * 99)] == [
        None
    ] * 4
