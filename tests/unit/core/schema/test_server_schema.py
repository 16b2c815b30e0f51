"""Schemas in the form that the server makes a grammar of: refused nowhere, never narrower where an answer must fit."""

from __future__ import annotations

from typing import Any

import pytest

from obcd.core.schema.schemas import check_schema
from obcd.core.schema.server_schema import ANYTHING, schema_remarks, server_schema
from tests.golden.wording import wording

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
ANY = dict(ANYTHING)


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


#: Schemas that are sent as they are.
SAME: dict[str, dict[str, Any]] = {
    "a record": {**record(a=TEXT, b=WHOLE), "required": ["a", "b"], "additionalProperties": False},
    "lists": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 5},
    "words": {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"const": 3}}, "title": "T"},
    "dates": record(a={"type": "string", "format": "date"}, b={"type": "string", "pattern": "^[0-9]{4}$"}),
    "null": record(a={"type": ["string", "null"]}, b={"anyOf": [TEXT, {"type": "null"}]}),
    "definitions": {**record(a={"$ref": "#/$defs/A"}), "$defs": {"A": record(x=WHOLE)}},
    "itself": {**record(a={"$ref": "#/$defs/N"}), "$defs": {"N": record(next={"$ref": "#/$defs/N"})}},
    "limits": record(a={"type": "integer", "minimum": 0, "maximum": 10}, b={"type": "string", "maxLength": 100}),
    "a tuple": {"type": "array", "prefixItems": [TEXT, WHOLE]},
}
#: {what: (schema, what is sent)}
CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "draft 7": (
        {**record(a={"$ref": "#/definitions/A"}), "definitions": {"A": WHOLE}},
        {**record(a={"$ref": "#/$defs/A"}), "$defs": {"A": WHOLE}},
    ),
    "a reference at the top": (
        {"$ref": "#/$defs/A", "$defs": {"A": record(x=WHOLE)}},
        record(x=WHOLE),
    ),
    "a reference to the whole": (
        record(kids={"type": "array", "items": {"$ref": "#"}}),
        {
            **record(kids={"type": "array", "items": {"$ref": "#/$defs/whole"}}),
            "$defs": {"whole": record(kids={"type": "array", "items": {"$ref": "#/$defs/whole"}})},
        },
    ),
    "an anchor": (
        {**record(a={"$ref": "#here"}), "$defs": {"x/y": {"$anchor": "here", **WHOLE}}},
        {**record(a={"$ref": "#/$defs/here"}), "$defs": {"here": WHOLE}},
    ),
    "its own address": (
        {"$id": "https://example.org/v.json", **record(a={"$ref": "v.json#/$defs/A"}), "$defs": {"A": WHOLE}},
        {**record(a={"$ref": "#/$defs/A"}), "$defs": {"A": WHOLE}},
    ),
    "anything": (record(a=True, b={"description": "x"}, c={}, d={"not": TEXT}), record(a=ANY, b=ANY, c=ANY, d=ANY)),
    "nothing": (record(a=TEXT, b=False), record(a=TEXT)),
    "required without a property": (
        {**record(a=TEXT), "required": ["b"]},
        {**record(a=TEXT, b=ANY), "required": ["b"]},
    ),
    "allOf of one": (
        record(
            a={
                "allOf": [{"$ref": "#/$defs/A"}],
                "default": 1,
            }
        )
        | {"$defs": {"A": WHOLE}},
        {**record(a={"$ref": "#/$defs/A"}), "$defs": {"A": WHOLE}},
    ),
    "allOf of two": (
        {"allOf": [{**record(a=TEXT), "required": ["a"]}, {"$ref": "#/$defs/B"}], "$defs": {"B": record(b=WHOLE)}},
        {**record(a=TEXT, b=WHOLE), "required": ["a"]},
    ),
    "oneOf beside properties": (
        {**record(kind=TEXT), "required": ["kind"], "oneOf": [record(a=TEXT), {**record(b=TEXT), "required": ["b"]}]},
        {
            "oneOf": [
                {**record(kind=TEXT, a=TEXT), "required": ["kind"]},
                {**record(kind=TEXT, b=TEXT), "required": ["kind", "b"]},
            ]
        },
    ),
    "anyOf of required names": (
        {**record(a=TEXT), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        record(a=TEXT),
    ),
    "large counts": (
        record(a={"type": "string", "maxLength": 5000}, b={"type": "array", "items": TEXT, "maxItems": 4000}),
        record(a=TEXT, b={"type": "array", "items": TEXT}),
    ),
    "limits with which the server hangs": (
        record(a={"type": "string", "minLength": 3, "maxLength": 1}, b={"items": TEXT, "minItems": 3, "maxItems": 1}),
        record(a=TEXT, b={"items": TEXT}),
    ),
    "limits that no grammar holds": (
        record(a={"type": "integer", "minimum": 0.5}, b={"type": "integer", "minimum": 9, "exclusiveMaximum": 9}),
        record(a=WHOLE, b=WHOLE),
    ),
    "names by pattern": (
        {"type": "object", "patternProperties": {"^a": TEXT}, "additionalProperties": False},
        {"type": "object"},
    ),
    "other names": ({**record(**{"a-b": TEXT}), "additionalProperties": TEXT}, record(**{"a-b": TEXT})),
    "a property called $ref": (record(**{"$ref": TEXT}), {"type": "object"}),
    "a required name $defs": ({**record(a=TEXT), "required": ["$defs"]}, {"type": "object", "required": ["$defs"]}),
    "no properties": (record(), {"type": "object"}),
    "a pattern": (record(a={"type": "string", "pattern": r"^\d$"}), record(a={"type": "string", "pattern": "^[0-9]$"})),
    "a pattern that ends the server": (record(a={"type": "string", "pattern": "^(?=a)a$"}), record(a=TEXT)),
    "such a pattern alone": (record(a={"pattern": "^(?=a)a$"}), record(a=ANY)),
    "a tuple and more": (
        {"type": "array", "prefixItems": [TEXT], "items": False},
        {"type": "array", "prefixItems": [TEXT]},
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_schema_that_the_server_reads_alike_is_sent_as_it_is(what: str) -> None:
    assert check_schema(SAME[what]) == ""
    assert server_schema(SAME[what]).document == SAME[what]


@pytest.mark.parametrize("what", CHANGED)
def test_schema_is_sent_in_a_form_that_makes_a_grammar(what: str) -> None:
    given, sent = CHANGED[what]

    assert check_schema(given) == ""
    assert server_schema(given).document == sent


def test_order_of_properties_is_kept_because_the_grammar_follows_it() -> None:
    sent = server_schema(record(z=TEXT, a=TEXT, m={"pattern": r"\d"})).document

    assert sent is not None
    assert list(sent["properties"]) == ["z", "a", "m"]  # type: ignore[call-overload]


def test_schema_that_grows_without_end_is_not_sent() -> None:
    parts = {
        f"p{n}": {**record(a=TEXT), "anyOf": [{"$ref": f"#/$defs/p{n + 1}"}] * 2, "required": ["a"]} for n in range(20)
    }
    document = {"$ref": "#/$defs/p0", "$defs": {**parts, "p20": record(b=TEXT)}}

    assert server_schema(document).document is None
    assert len(schema_remarks(document)) == 1


def test_remarks_name_what_is_not_sent_first_and_the_place_by_its_end() -> None:
    deep = record(last={"type": "string", "pattern": "(?=x)"}, other={"type": "string", "pattern": "^\\d$"})
    for number in range(30):
        deep = record(**{f"level{number:02}": deep})

    remarks = schema_remarks(deep)

    assert [remark.split(": ", 1)[1] for remark in remarks] == [
        wording("the-pattern-x-is-not-sent"),
        wording("the-server-gets-the-pattern-d"),
    ]
    assert all(remark.split(": ")[0].endswith(end) for remark, end in zip(remarks, ("/last", "/other"), strict=True))


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ({"type": "string", "nullable": True}, 1),
        ({"enum": ["a"], "nullable": True}, 1),
        ({"type": ["string", "null"], "nullable": True}, 0),
        ({"enum": ["a", None], "nullable": True}, 0),
        ({"nullable": True}, 0),
        ({"type": "string", "nullable": False}, 0),
    ],
)
def test_nullable_without_effect_is_remarked(part: dict[str, Any], count: int) -> None:
    remarks = schema_remarks(record(a=part))

    assert len(remarks) == count
    assert not remarks or wording("nullable-has-no-effect-in-a") in remarks[0]


def test_keys_that_belong_under_properties_are_remarked() -> None:
    assert len(schema_remarks({"type": "object", "city": TEXT, "x-note": 1, "description": "d"})) == 1
