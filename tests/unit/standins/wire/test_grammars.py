"""Schemas of which llama-server makes no grammar."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.standins.wire.engine import EngineError
from obcd.standins.wire.grammars import check_schema


def text_of(schema: dict[str, Any]) -> str:
    """Return llama-server's message for a schema, "" if it takes it."""
    try:
        check_schema(schema)
    except EngineError as error:
        return f"{error.status} {json.loads(error.text)['error']['message']}"
    return ""


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": ["string", "null"]},
        {"const": 3},
        {"type": "string", "pattern": r"^[^\]]\.(?:ab|cd){2,3}$"},
        {"type": "integer", "pattern": "no text, so it is not read"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"properties": {"pattern": {"type": "string"}}, "required": ["pattern"]},
    ],
)
def test_usable_schema_passes(schema: dict[str, Any]) -> None:
    assert text_of(schema) == ""


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strange"}, "Unrecognized schema"),
        ({"type": "string", "pattern": "[0-9]"}, "Pattern must start"),
        ({"type": "string", "pattern": "^[0-9$"}, "Unbalanced square"),
        ({"type": "string", "pattern": "^a)$"}, "Unbalanced paren"),
        ({"type": "string", "pattern": r"^\d$"}, "parse grammar"),
        ({"type": "string", "pattern": r"^[a\.]$"}, "parse grammar"),
        ({"type": "string", "pattern": "^(?=a)[a-z]$"}, "parse grammar"),
        ({"$ref": "#/$defs/nobody"}, "Error resolving ref"),
        ({"$ref": "elsewhere.json"}, "Unsupported ref"),
    ],
)
def test_unusable_schema_is_refused_wherever_it_stands(schema: dict[str, Any], words: str) -> None:
    places = ({"properties": {"a": schema}}, {"items": schema}, {"anyOf": [{"type": "null"}, schema]})

    assert text_of(schema).startswith("400 ")
    assert words in text_of(schema)
    for place in places:
        assert words in text_of(place)
