"""What people give for a schema: envelopes are opened, records are refused."""

from __future__ import annotations

from typing import Any

import pytest

from obcd.core.schema.wrapping import unwrapped, why_no_schema

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}

ENVELOPES: dict[str, dict[str, Any]] = {
    "schema": {"name": "x", "strict": True, "schema": SCHEMA},
    "json_schema.schema": {"type": "json_schema", "json_schema": {"name": "x", "description": "d", "schema": SCHEMA}},
    "response_format.json_schema.schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    },
    "function.parameters": {"type": "function", "function": {"name": "f", "parameters": SCHEMA}},
    "input_schema": {"name": "f", "description": "d", "input_schema": SCHEMA},
    "format": {"format": SCHEMA},
    "": SCHEMA,
}
#: Schemas, some of which look like an envelope or a record.
SCHEMAS: list[dict[str, Any]] = [
    SCHEMA,
    {"properties": {"schema": {"type": "object"}}},
    {"type": "object", "schema": {"type": "string"}},
    {"enum": ["a", "b"]},
    {"anyOf": [SCHEMA], "x-note": 1, "discriminator": {}},
    {"required": ["a"]},
    {"minLength": 2, "title": "T"},
    {"$ref": "#/$defs/A", "$defs": {"A": SCHEMA}},
    {"type": "array", "items": {}, "unknown": 1},
]
RECORDS: list[dict[str, Any]] = [
    {},
    {"name": "string", "age": 0},
    {"title": "Dune", "description": "A novel", "pages": 412},
    {"type": "invoice", "total": 3},
    {"items": ["tea", "milk"], "total": 5},
    {"items": {"items": {"name": "tea"}, "count": 1}, "total": 5},
    {"properties": {"size": "L"}, "price": 3},
    {"pattern": "stripes", "color": "red"},
    {"format": "A4", "required": True, "paper": "thick"},
    {"description": "what people say"},
    {"$defs": {"A": SCHEMA}},
]


@pytest.mark.parametrize("path", ENVELOPES)
def test_r11_envelope_is_opened(path: str) -> None:
    assert unwrapped(ENVELOPES[path]) == (SCHEMA, path)


@pytest.mark.parametrize("document", SCHEMAS, ids=str)
def test_schema_is_one_and_is_not_opened(document: dict[str, Any]) -> None:
    assert unwrapped(document) == (document, "")
    assert why_no_schema(document) == ""


@pytest.mark.parametrize("document", RECORDS, ids=str)
def test_r12_record_holds_nothing(document: dict[str, Any]) -> None:
    assert why_no_schema(unwrapped(document)[0]) != ""


def test_envelopes_without_end_are_opened_a_few_times() -> None:
    document: dict[str, Any] = SCHEMA
    for _ in range(1000):
        document = {"schema": document}

    assert unwrapped(document)[1] == "schema.schema.schema.schema"
