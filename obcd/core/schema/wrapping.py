"""What people give for a JSON schema and is not one: an envelope around it, or an example record. Pure.

    {"name": "visit", "strict": true, "schema": {"type": "object", …}}   OpenAI's `json_schema`: the schema is used
    {"type": "function", "function": {"name": …, "parameters": {…}}}     a tool: its parameters are used
    {"name": "string", "age": 0}                                         a record: it would allow every answer

A document without any keyword of JSON Schema is a valid schema, and allows everything.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Keys whose value is a schema, or an envelope around one: OpenAI's, Anthropic's, MCP's, Ollama's, obcd's.
_INSIDE = (
    "json_schema",
    "schema",
    "function",
    "parameters",
    "input_schema",
    "inputSchema",
    "response_format",
    "format",
)
#: Keys beside them.
_AROUND = frozenset(("name", "strict", "description", "type", "title"))
#: Values of `type` in an envelope.
_ENVELOPES = ("json_schema", "function", "custom")
#: Most envelopes around each other.
MOST_ENVELOPES = 4

_TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
#: Keywords that by themselves show a schema.
_STRONG = frozenset(
    ("$ref", "$dynamicRef", "$recursiveRef", "oneOf", "anyOf", "allOf", "not", "if", "const", "enum", "properties")
) | {
    "items",
    "prefixItems",
    "contains",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "type",
    "$schema",
}
#: Keywords that may as well be fields of a record.
_WEAK = frozenset(
    ("required", "format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
) | frozenset(
    ("minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "then", "else")
) | frozenset(
    ("dependentSchemas", "dependentRequired", "dependencies", "additionalItems", "unevaluatedItems", "minContains")
) | {"maxContains", "unevaluatedProperties"}  # fmt: skip
#: Keywords that allow and forbid nothing.
_NOTES = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "nullable", "definitions")
) | {"id", "contentEncoding", "contentMediaType", "contentSchema"}  # fmt: skip


def unwrapped(document: Mapping[str, object]) -> tuple[Mapping[str, object], str]:
    """Return `(schema, path of the schema in the document)`; the path is "" if there is no envelope.

    Example: `({"type": "object"}, "json_schema.schema")`.
    """
    path: list[str] = []
    while len(path) < MOST_ENVELOPES:
        keys = [key for key in _INSIDE if isinstance(document.get(key), dict)]
        if (
            len(keys) != 1
            or document.keys() - _AROUND - set(keys)
            or document.get("type", "function") not in _ENVELOPES
        ):
            break
        inner = document[keys[0]]
        if not isinstance(inner, dict) or not inner:
            break
        path.append(keys[0])
        document = inner
    return document, ".".join(path)


def why_no_schema(document: Mapping[str, object]) -> str:
    """Return why a document is not a schema but holds nothing, as the rest of a sentence; "" if it is one."""
    strange = [key for key in document if key not in _STRONG | _WEAK | _NOTES and not key.startswith(("$", "x-"))]
    if any(_is_strong(key, document[key], is_alone=not strange) for key in document.keys() & _STRONG):
        return ""
    if not strange and not _WEAK.isdisjoint(document):
        return ""
    if strange or not document:
        return "none of its keys is a keyword of JSON Schema; from an example record, obcd schema drafts one"
    return "it says nothing about an answer; from an example record, obcd schema drafts one"


def missing_properties(document: Mapping[str, object]) -> list[str]:
    """Return the keys of a schema of an object that probably belong under its `properties`, and have no effect now."""
    if document.get("type") != "object" or not _STRONG.isdisjoint(document.keys() - {"type", "$schema"}):
        return []
    known = _STRONG | _WEAK | _NOTES
    return [key for key in document if key not in known and not key.startswith(("$", "x-"))]


def _is_strong(key: str, value: object, *, is_alone: bool) -> bool:
    """Return whether a keyword shows a schema: `"type": "invoice"`, `"items": ["tea", "milk"]` stand in a record.

    Args:
        is_alone: Whether all keys beside it are keywords too.
    """
    if key == "type":
        kinds = value if isinstance(value, list) else [value]
        return is_alone or all(isinstance(kind, str) and kind in _TYPES for kind in kinds)
    if key in ("properties", "patternProperties"):
        return isinstance(value, dict) and all(isinstance(part, dict | bool) for part in value.values())
    if key in ("items", "contains", "not", "if", "propertyNames", "additionalProperties"):
        return is_alone or isinstance(value, bool) or (isinstance(value, dict) and not why_no_schema(value))
    return True
