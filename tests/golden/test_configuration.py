"""The configuration: every key of every table with what it takes and its default, from the models; no prose."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from obcd.config.settings import Settings
from tests.golden.golden import assert_golden


def test_keys_types_limits_and_defaults_are_what_they_were() -> None:
    found = {}
    for name, field in Settings.model_fields.items():
        if field.exclude:
            continue
        kind: Any = Annotated[(field.annotation, field.alias, *field.metadata)]
        schema = TypeAdapter(kind).json_schema(by_alias=True)
        default = to_jsonable_python(field.get_default(call_default_factory=True), by_alias=True)
        found[field.alias or name] = {**_inlined(schema, schema.get("$defs", {})), "default": default}

    assert_golden("configuration.json", found)


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema without the names and words of classes: only what a file can hold."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **{k: v for k, v in schema.items() if k != "$ref"}}
    return {
        key: {name: _inlined(item, definitions) for name, item in value.items()}
        if key == "properties"
        else _inlined(value, definitions)
        for key, value in schema.items()
        if key not in ("$defs", "title", "description")
    }
