"""The JSON Schema of obcd.toml, for editors: made from the models of its tables, with the sample's comments as help.

It is draft-07 without references and without nulls: taplo follows no `$ref` into `$defs` while it completes keys, and
TOML has no null. It says less than the models do: what needs code (an endpoint's name, a template) is a string.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from obcd.config.descriptions import PROFILES, describe_key
from obcd.config.settings import Settings
from obcd.config.tables import NONE, Profile
from obcd.config.values import MAX_CONTEXT, MIN_CONTEXT
from obcd.core.request.lines import OPTION_TYPES, THINK_LEVELS

DRAFT = "http://json-schema.org/draft-07/schema#"

#: {words of `OPTION_TYPES`: the values that Ollama takes}
_OPTION_VALUES: dict[str, JsonSchemaValue] = {
    "a whole number": {"type": "integer"},
    "a number": {"type": "number"},
    "true or false": {"type": "boolean"},
    "a list of strings": {"type": "array", "items": {"type": "string"}},
}


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, which passes over what only the program itself sets (paths, secrets)."""

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> JsonSchemaValue:
        return {}


def configuration_schema() -> JsonSchemaValue:
    """Return the schema of a whole configuration, e.g. `{"$schema": …, "type": "object", "properties": {"model": …}}`.

    An unknown key, a wrong type and a number out of range do not fit it.
    """
    made = Settings.model_json_schema(by_alias=True, schema_generator=_Generator)
    root = _flat(made, made.pop("$defs"))
    hidden = {field.validation_alias for field in Settings.model_fields.values() if field.exclude}
    keys = {key: value for key, value in root["properties"].items() if key not in hidden}
    profile = keys["profiles"]["additionalProperties"]["properties"]
    instance = keys["ollama_instances"]["additionalProperties"]
    assert profile.keys() == {field.alias or name for name, field in Profile.model_fields.items()}
    for table in (keys, profile):
        _say_what_code_checks(table)
    _say_what_code_checks(keys["requests"]["properties"])
    instance["properties"] |= {"slots": _slots(), "window": _window() | _described(instance["properties"]["window"])}
    keys["ollama_instances"] |= {
        "minProperties": 1,
        "additionalProperties": {"anyOf": [{"type": "integer", "minimum": 0}, instance]},
    }
    keys["profiles"]["propertyNames"] = {"minLength": 1, "pattern": "^[^./][^/]*$"}
    _describe(keys)
    return {
        "$schema": DRAFT,
        "title": "obcd.toml",
        "description": "The configuration of obcd; `obcd check` says what is wrong with one.",
        "type": "object",
        "additionalProperties": False,
        "properties": keys,
    }


def _flat(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with every reference replaced by what it names, and without nulls, titles and docstrings."""
    if isinstance(schema, list):
        return [_flat(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **{k: v for k, v in schema.items() if k != "$ref"}}
    kinds = [item for item in schema.get("anyOf", ()) if item != {"type": "null"}]
    if len(kinds) == 1:  # it may be a reference
        return _flat({**{key: value for key, value in schema.items() if key != "anyOf"}, **kinds[0]}, definitions)
    if kinds:
        schema = {**schema, "anyOf": kinds}
    is_table = isinstance(schema.get("default"), dict) or schema.get("default", 0) is None
    dropped = {"title", "description"} | ({"default"} if is_table else set())
    return {
        key: {name: _flat(item, definitions) for name, item in value.items()}
        if key == "properties"
        else value
        if key == "default"
        else _flat(value, definitions)
        for key, value in schema.items()
        if key not in dropped
    }


def _window() -> JsonSchemaValue:
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def _described(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {key: value for key, value in schema.items() if key == "description"}


def _slots() -> JsonSchemaValue:
    return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1024}, {"type": "string", "const": "auto"}]}


def _say_what_code_checks(table: dict[str, Any]) -> None:
    """Write down what validators of the models check in code: limits of `num_ctx`, names of options, `NONE`."""
    context = {"type": "integer", "minimum": MIN_CONTEXT, "maximum": MAX_CONTEXT}
    options = {
        name: _OPTION_VALUES[words] for name, words in OPTION_TYPES.items() if name not in ("num_ctx", "num_predict")
    }
    spoken: dict[str, JsonSchemaValue] = {
        "slots": _slots(),
        "num_ctx": {"anyOf": [context, {"type": "string", "const": "auto"}]},
        "options": {"type": "object", "properties": options, "additionalProperties": False},
        "think": {"enum": [True, False, *THINK_LEVELS, NONE["think"]]},
        "quotes": {"enum": [True, False, NONE["quotes"]]},
        "delimiter": {"type": "string", "minLength": 1, "maxLength": 1},
        "window": _window(),
    }
    for key in table.keys() & spoken.keys():
        default = {name: value for name, value in table[key].items() if name == "default"}
        table[key] = spoken[key] | default
    for key in (name for name, nothing in NONE.items() if nothing is False):
        if key in table and "model" in table:  # [requests] has nothing above it that `false` could drop
            default = {"default": table[key].pop("default")} if "default" in table[key] else {}
            table[key] = {"anyOf": [table[key], {"type": "boolean", "const": False}], **default}


def _describe(keys: dict[str, Any]) -> None:
    """Give each key of each table its description."""
    profile = keys["profiles"]["additionalProperties"]["properties"]
    named = {
        name: keys[name]["properties"] for name in ("requests", "host", "cluster", "api", "page", "spool", "notify")
    }
    tables = {"": keys, PROFILES: profile, **named}
    for table, items in tables.items():
        for key, item in items.items():
            if text := describe_key(table, key):
                item["description"] = text
