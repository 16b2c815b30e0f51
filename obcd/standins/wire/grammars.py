"""The schemas and patterns of which llama-server makes no grammar, and how it refuses them (contract 3.1). Pure.

The rules are those of llama.cpp's common/json-schema-to-grammar.cpp and src/llama-grammar.cpp in Ollama v0.33.0. Later
versions of llama.cpp ignore a pattern that they cannot use, and let the model write any text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from obcd.standins.wire.engine import EngineError, JsonObject
from obcd.standins.wire.request_values import llama_error

TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
#: keywords that stand for a type
_SHAPES = ("$ref", "oneOf", "anyOf", "allOf", "const", "enum", "properties", "additionalProperties", "items")
#: keywords whose value is a schema, a list of schemas, or an object of schemas
_ONE, _MANY, _NAMED = ("items", "additionalProperties"), ("anyOf", "oneOf", "allOf", "prefixItems"), ("properties",)
#: escapes that break the grammar; those of a grammar do not, nor those that llama.cpp takes away outside of a class
_BAD_ESCAPE = re.compile(r"\\[^xuUtrn\\\"\[\]^$.()|{}*+?]")
_BAD_ESCAPE_IN_CLASS = re.compile(r"\\[^xuUtrn\\\"\[\]]")
_ANY_ESCAPE = re.compile(r"\\.", re.DOTALL)
#: groups that look ahead or back, set flags, or have a name
_LOOKS = re.compile(r"\(\?[^:]")
_CLASS = re.compile(r"\[(?:\\.|[^\]\\])*\]", re.DOTALL)


def check_schema(schema: JsonObject) -> None:
    """Raise 400 with llama-server's message for a schema of which it makes no grammar."""
    problems: list[str] = []
    is_broken = False
    for part in _parts(schema):
        problems += _problems(part, schema)
        pattern = part.get("pattern")
        is_broken |= isinstance(pattern, str) and _is_broken(pattern)
    if problems:
        raise EngineError(400, llama_error("JSON schema conversion failed:\n" + "\n".join(problems)))
    if is_broken:
        raise EngineError(400, llama_error("Failed to initialize samplers: failed to parse grammar"))


def _parts(schema: JsonObject) -> Iterator[JsonObject]:
    """Yield a schema and the schemas inside it, each once."""
    waiting: list[object] = [schema]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        yield part
        waiting += [part.get(key) for key in _ONE]
        for key in _MANY:
            waiting += part[key] if isinstance(part.get(key), list) else ()
        for key in (*_NAMED, "$defs", "definitions"):
            waiting += part[key].values() if isinstance(part.get(key), dict) else ()


def _problems(part: JsonObject, root: JsonObject) -> Iterator[str]:
    reference, kind, pattern = part.get("$ref"), part.get("type"), part.get("pattern")
    if isinstance(reference, str):
        yield from _reference_problem(reference, root)
    elif kind is not None and not isinstance(kind, list) and kind not in TYPES and not any(map(part.get, _SHAPES)):
        yield f"Unrecognized schema: {json.dumps(part, separators=(',', ':'))}"
    if isinstance(pattern, str) and kind in (None, "string"):
        yield from _pattern_problem(pattern)


def _reference_problem(reference: str, root: JsonObject) -> Iterator[str]:
    if not reference.startswith("#/"):
        yield f"Unsupported ref: {reference}"
        return
    target: object = root
    for name in reference.split("/")[1:]:
        if not isinstance(target, dict) or name not in target:
            yield f"Error resolving ref {reference}: {name} not in {json.dumps(target, separators=(',', ':'))}"
            return
        target = target[name]


def _is_broken(pattern: str) -> bool:
    """Return whether a pattern becomes a grammar that cannot be parsed."""
    classes = _CLASS.findall(pattern)
    if _LOOKS.search(_CLASS.sub("", _ANY_ESCAPE.sub("", pattern))):
        return True
    return bool(_BAD_ESCAPE.search(_CLASS.sub("", pattern))) or any(map(_BAD_ESCAPE_IN_CLASS.search, classes))


def _pattern_problem(pattern: str) -> Iterator[str]:
    if not (pattern.startswith("^") and pattern.endswith("$")):
        yield "Pattern must start with '^' and end with '$'"
        return
    outside = _CLASS.sub("", _ANY_ESCAPE.sub("", pattern))
    if "[" in outside:
        yield "Unbalanced square brackets"
    if outside.count("(") < outside.count(")"):
        yield "Unbalanced parentheses"
