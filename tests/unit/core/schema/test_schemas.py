"""Schemas that can be held to, and answers that fit."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from obcd.core.schema import schemas
from obcd.core.schema.expansion import find_part
from obcd.core.schema.schemas import MAX_PATTERN, REPORTED, Fit, Misfit, Schema, check_schema, schema_of
from obcd.package_data import shared
from tests.golden.wording import wording

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


CITY: dict[str, Any] = {
    "type": "object", "properties": {"city": {"type": "string"}, "age": {"type": "integer"}}, "required": ["city"],
}  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        '{"city": "Bonn"} {"city": "Kiel"}',
        '[{"city": "X"}]\n{"city": "Bonn"}\n{"city": "Kiel", "age": 3}',
        'First {"city": "Bonn"}.\n```json\n{"city": "Kiel"}\n```',
        '{"city": "Bonn", "age": "3"} {"city": "Kiel", "age": "4"}',  # both after their quotes are removed
        "{'city': 'Bonn'} {\"city\": \"Kiel\"}",
    ],
)
def test_r02_several_values_that_fit_are_a_misfit(answer: str) -> None:
    misfit = Schema(CITY).judge(answer)

    assert isinstance(misfit, Misfit)
    assert (misfit.reason, misfit.text) == (wording("several-values-fit"), answer)


@pytest.mark.parametrize(
    "answer",
    [
        'See {1}. Result: {"city": "Bonn"}',
        'See [1]: {"city": "Bonn"} [2]',
        'The keys are {"name": "city"}: {"city": "Bonn"}',
        '{"city": "Bonn"}\n```\n{"city": "Bonn"}\n```',
        '{"draft": 1}\n{"city": "Bonn"}\n{"city": 7}',
        '{"city": "Bonn"} {"city": "Kiel", "age": "4"}',  # one fits as it is
    ],
)
def test_r03_value_that_fits_is_taken_wherever_it_is(answer: str) -> None:
    judged = Schema(CITY).judge(answer)

    assert judged == Fit({"city": "Bonn"}, '{"city": "Bonn"}')
    assert isinstance(judged, Fit)
    assert not judged.is_whole


def test_any_json_is_one_value_too() -> None:
    assert Schema("json").judge('As in [1]: {"a": 1}') == Fit({"a": 1}, '{"a": 1}')
    assert isinstance(Schema("json").judge('{"a": 1}\n{"a": 2}'), Misfit)
    assert Schema("json").judge("So: {a: 1}") == Fit({"a": 1}, '{"a": 1}', is_mended=True)


def test_fault_of_the_longest_value_is_reported() -> None:
    misfit = Schema(VISIT).judge(f"See [1]. {GOOD.replace('54', '540')} [2]")

    assert isinstance(misfit, Misfit)
    assert "properties/age" in misfit.reason


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"city": "Bonn", "age": 1,}', {"city": "Bonn", "age": 1}),
        ("So: {'city': 'Bonn'}", {"city": "Bonn"}),
        ("So: {city: 'Bonn'}", {"city": "Bonn"}),
        ('{"city": "Bad\nGodesberg"}', {"city": "Bad\nGodesberg"}),
        ("{'city': 'Bonn', 'age': '7'}", {"city": "Bonn", "age": 7}),  # both repairs
    ],
)
def test_r10_what_is_nearly_json_fits_and_is_marked(answer: str, value: object) -> None:
    assert Schema(CITY).judge(answer) == Fit(value, json.dumps(value), is_mended=True)
    assert isinstance(Schema(CITY).judge("{'town': 'Bonn'}"), Misfit)
    assert isinstance(Schema(CITY).judge("{'city': None}"), Misfit)


def test_hundreds_of_values_are_weighed_together() -> None:
    apart, schema = Misfit("apart", "", ""), Schema({"items": {"pattern": "[ab]*a[ab]{100}c"}})
    value = json.dumps(["ab" * 40])

    assert schema.judge(value, lambda *_: apart) is not apart
    assert schema.judge(f"{value} " * 900, lambda *_: apart) is apart


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
    assert misfit.reason == wording("the-answer-does-not-fit-the")
    assert wording("at-age-jane-roe-is-not") in misfit.for_model
    assert misfit.text == answer


def test_model_is_told_of_a_few_problems_at_once_and_briefly() -> None:
    schema = Schema({"type": "array", "items": {"type": "integer"}})

    misfit = schema.judge(json.dumps(["x" * 1000] * 50))

    assert isinstance(misfit, Misfit)
    assert len(misfit.for_model.splitlines()) == REPORTED
    assert len(misfit.for_model) < (REPORTED + 1) * schemas.MAX_SENTENCE


def test_answer_without_json_is_told_so() -> None:
    misfit = Schema(VISIT).judge("I cannot say.")

    assert misfit == Misfit(
        wording("the-answer-is-no-json-there"),
        wording("there-is-no-valid-json-in"),
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
    assert misfit.reason == wording("the-answer-is-no-json-a")


def test_true_is_no_integer_and_one_is_no_true() -> None:
    assert isinstance(Schema({"type": "integer"}).judge("true"), Misfit)
    assert isinstance(Schema({"const": True}).judge("1"), Misfit)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "int"}, wording("at-type-int-is-not-valid")),
        ({"properties": {"a": {"minLength": -1}}}, "at properties/a/minLength: -1 is less than the minimum of 0"),
        ({"properties": 5}, 'at properties: 5 is not of type "object"'),
        ({"pattern": "("}, wording("at-its-top-is-no-pattern")),
        ({"patternProperties": {"*": {}}}, wording("at-its-top-is-no-pattern-2")),
        ({"properties": {"a": {"$ref": "https://e.org/a"}}}, wording("at-properties-a-ref-points-to")),
        ({"$ref": "other.json"}, wording("at-its-top-ref-points-to")),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, wording("at-properties-a-ref-points-to-2")),
        ({"$ref": "#"}, wording("it-refers-to-itself-without-end")),
        ({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}, wording("at-properties-a-a-1000-1000")),
        ({"$ref": "#nobody"}, wording("at-its-top-ref-points-to-2")),
        ({"properties": {"a": {"items": {"$ref": "#nobody"}}}}, wording("at-properties-a-items-ref-points")),
        (
            {"properties": {"a": {"$id": "https://e.org/a", "$ref": "#/$defs/b"}}, "$defs": {"b": {}}},
            wording("at-properties-a-ref-points-to-2"),
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"allOf": [{"$ref": "#/$defs/b"}]}}},
            wording("it-refers-to-itself-without-end"),
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
        {"allOf": [{"patternProperties": {"^a": {}}}], "unevaluatedProperties": False},
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

    assert why.endswith(wording("is-no-pattern-or-one-that-2"))


def test_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"not": schema}

    assert check_schema(schema) == wording("it-is-nested-too-deep")


def test_nothing_is_ever_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    for target in ("http://127.0.0.1:9/schema.json", "file:///etc/hostname"):
        assert wording("is-never-fetched") in check_schema({"$ref": target})
        # where nobody looks for references, and jsonschema-rs may
        assert check_schema({"$id": target, "x": {"$ref": f"{target}x"}, "allOf": [{"$ref": "#/x"}]}) != ""
    assert check_schema({"$schema": "http://127.0.0.1:9/schema.json"}) == ""


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


@pytest.mark.parametrize(
    ("pattern", "fitting", "misfit"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", "2025-03-11", "2025-3-11"),
        (r"^(?=.*\d)(?!.*\s).{3,8}$", "ab1", "ab 1"),
        (r"^\p{L}+$", "Jürgen", "J2"),
        (r"^(?<year>\d{4})$", "2025", "25"),
        (r"^([0-9A-F]{2}:){5}[0-9A-F]{2}$", "00:1A:2B:3C:4D:5E", "00:1A"),
        (r"^\p{Lu}{20}\p{Nd}{20}\p{L}{20}$", "A" * 20 + "1" * 20 + "b" * 20, "A" * 60),
        (r"^(a|b)\1$", "aa", "ab"),
        (r"^\d$", "1", "\u0663"),  # ECMA 262: of ASCII alone, and $ is the end
        ("^a$", "a", "a\n"),
        ("b", "abc", "ac"),
    ],
)
def test_pattern_is_held_to(pattern: str, fitting: str, misfit: str) -> None:
    schema = {"pattern": pattern}

    assert check_schema(schema) == ""
    assert isinstance(Schema(schema).judge(json.dumps(fitting)), Fit)
    assert isinstance(Schema(schema).judge(json.dumps(misfit)), Misfit)


@pytest.mark.parametrize(
    ("step", "number", "is_multiple"),
    [
        (0.01, 19.99, True), (0.01, 0.29, True), (0.01, 0.295, False), (0.1, 3, True), (2, 4.0, True), (2, 3, False),
        (0.01, 1e300, True), (1e-300, 5e-300, True), (3, 10**400, False), (0.5, -1.5, True), (0.01, "19.999", True),
    ],
)  # fmt: skip
def test_multiple_is_one_of_the_number_as_it_is_written(step: float, number: Any, is_multiple: bool) -> None:
    assert isinstance(Schema({"multipleOf": step}).judge(json.dumps(number)), Fit) == is_multiple


@pytest.mark.parametrize(
    ("schema", "text", "is_fit"),
    [
        ({"type": "integer"}, "1.0", True),
        ({"type": "integer"}, "1.5", False),
        ({"type": "integer"}, "9" * 4000, True),
        ({"maximum": 9007199254740992}, "9007199254740993", False),
        ({"const": 10**30}, f"{10**30 + 1}", False),
        ({"const": 1}, "1.0", True),
        ({"uniqueItems": True}, "[1, 1.0]", False),
        ({"uniqueItems": True}, "[1, true]", True),
        ({"format": "date"}, '"no date"', True),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "contentEncoding": "base64"}, '"%"', True),
        ({"minLength": 1, "additionalProperties": False}, '"\\ud800"', True),  # half of a pair
        ({"additionalProperties": False}, '{"\\ud800": 1}', False),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "null"}}}, "null", True),
    ],
)
def test_values_are_those_of_json_schema(schema: dict[str, Any], text: str, is_fit: bool) -> None:
    assert check_schema(schema) == ""
    assert isinstance(Schema(schema).judge(text), Fit) == is_fit


def test_panic_of_the_extension_is_an_answer_that_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    panic = type("PanicException", (BaseException,), {})
    schema = Schema({"type": "integer"})

    class Broken:
        def is_valid(self, _: object) -> bool:
            raise panic("a bug")

    monkeypatch.setattr(schema._compiled, "_validator", Broken())

    judged = schema.judge("1")

    assert isinstance(judged, Misfit)
    assert judged.reason == wording("the-schema-cannot-be-applied-to")


def test_place_of_a_fault_in_a_deep_schema_is_shown_by_its_end() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    answer: Any = "x"
    for number in range(30):
        schema = {"type": "object", "properties": {f"a long name {number}": schema}}
        answer = {f"a long name {number}": answer}

    judged = Schema(schema).judge(json.dumps(answer))

    assert isinstance(judged, Misfit)
    assert judged.reason.endswith("properties/a long name 0/type")
    assert 'a long name 0: "x" is not of type "integer"' in judged.for_model
    assert check_schema({"properties": {"a" * 150: {"properties": {"b" * 150: {"type": "text"}}}}}).startswith("at …")


@pytest.mark.parametrize(
    ("own", "reference"),
    [
        ("https://example.org/visit.json", "https://example.org/visit.json#/$defs/n"),
        ("https://example.org/visit.json", "visit.json#/$defs/n"),
        ("visit.json", "visit.json#/$defs/n"),
        ("urn:example:visit", "urn:example:visit#/$defs/n"),
        ("https://example.org/visit.json", "other.json"),
        ("https://example.org/visit.json", "#n"),
    ],
)
def test_reference_to_the_schemas_own_address_is_followed(own: str, reference: str) -> None:
    parts = {"n": {"type": "integer", "$anchor": "n"}}
    if reference == "other.json":
        parts["o"] = {"$id": reference, "type": "integer"}
    schema = {"$id": own, "type": "object", "properties": {"a": {"$ref": reference}}, "$defs": parts}

    assert check_schema(schema) == ""
    assert isinstance(Schema(schema).judge('{"a": 1}'), Fit)
    assert isinstance(Schema(schema).judge('{"a": "x"}'), Misfit)


def test_reference_to_another_address_is_refused() -> None:
    schema = {"$id": "https://example.org/a", "properties": {"a": {"$ref": "https://example.org/b"}}}

    assert check_schema(schema) != ""
