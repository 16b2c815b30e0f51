"""Made-up answers: words or a JSON value that fits a schema, always the same for the same seed. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from random import Random
from typing import Any

_ONSETS = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "st"]
_ENDS = ["a", "e", "i", "o", "u", "an", "el", "in", "or", "us", "ak", "et", "im", "on", "ul", "ar"]

#: 256 words, one for each byte
WORDS = [onset + end for onset in _ONSETS for end in _ENDS]

#: how deep a schema is followed; deeper values become null
DEPTH_LIMIT = 12

#: repeats of `*` and `+` in a pattern
_REPEATS = 3


def words(seed: bytes, count: int) -> str:
    """Return `count` words, each about one token."""
    return " ".join([WORDS[byte] for byte in hashlib.shake_128(seed).digest(count)])


def normal(seed: bytes) -> float:
    """Return a draw of the standard normal distribution that depends only on the seed (Box and Muller)."""
    first = (int.from_bytes(seed[:6]) + 1) / (1 << 48)
    second = int.from_bytes(seed[6:12]) / (1 << 48)
    return math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second)


def fitting_value(schema: object, seed: bytes) -> object:
    """Return a JSON value that satisfies a simple schema.

    Supported: type, enum, const, properties, required, items, prefixItems, minItems, maxItems, minimum, maximum,
    exclusive bounds, multipleOf, minLength, maxLength, pattern and format in part, anyOf and oneOf (the first),
    allOf (merged), local $ref.
    """
    return _Sampler(schema, Random(seed)).value(schema, 0)


class _Sampler:
    def __init__(self, root: object, random: Random) -> None:
        self._root = root
        self._random = random

    def value(self, schema: object, depth: int) -> object:
        if not isinstance(schema, dict):
            return None if schema is False else self._word()
        if depth > DEPTH_LIMIT:
            return None
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._random.choice(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                rest = {name: part for name, part in schema.items() if name != key}
                return self.value({**rest, **self._resolved(schema[key][0], depth)}, depth + 1)
        return self._typed(_type_of(schema), schema, depth)

    def _resolved(self, schema: object, depth: int) -> dict[str, Any]:
        """Return a schema with its local $ref followed and its allOf merged in."""
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#") and depth <= DEPTH_LIMIT:
            target = self._root
            for part in reference[1:].split("/")[1:]:
                target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
            rest = {name: part for name, part in schema.items() if name != "$ref"}
            return {**self._resolved(target, depth + 1), **rest}
        for part in schema.get("allOf") or ():
            schema = _merged(schema, self._resolved(part, depth + 1))
        return schema

    def _typed(self, kind: str, schema: dict[str, Any], depth: int) -> object:
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number":
                return self._number(kind, schema)
            case "boolean":
                return self._random.random() < 0.5
            case "null":
                return None
            case _:
                return self._string(schema)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, object]:
        properties = schema.get("properties") or {}
        made = {name: self.value(part, depth + 1) for name, part in properties.items()}
        for name in schema.get("required") or ():
            if name not in made:
                made[name] = self._word()
        return made

    def _array(self, schema: dict[str, Any], depth: int) -> list[object]:
        prefix = schema.get("prefixItems") or []
        least = int(schema.get("minItems", min(2, int(schema.get("maxItems", 2)))))
        parts = list(prefix) + [schema.get("items", {"type": "string"})] * max(0, least - len(prefix))
        return [self.value(part, depth + 1) for part in parts]

    def _number(self, kind: str, schema: dict[str, Any]) -> int | float:
        whole = kind == "integer"
        step = schema.get("multipleOf") or (1 if whole else 0.25)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is None:
            low = 0 if high is None or high >= 0 else high - 100 * step
        if high is None:
            high = max(low, 0) + 100 * step
        first = math.ceil(low / step) + ("exclusiveMinimum" in schema and math.ceil(low / step) * step == low)
        last = math.floor(high / step) - ("exclusiveMaximum" in schema and math.floor(high / step) * step == high)
        if first > last:  # no multiple of the default step is between narrow bounds
            return float((low + high) / 2)
        value = self._random.randint(first, last) * step
        return int(value) if whole else float(value)

    def _string(self, schema: dict[str, Any]) -> str:
        if isinstance(schema.get("pattern"), str):
            return fitting_text(schema["pattern"], self._random)
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._word()
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        while len(text) < least:
            text += " " + self._word()
        return text if most is None else text[: int(most)]

    def _word(self) -> str:
        return self._random.choice(WORDS)


_FORMATS = {
    "date": "2026-11-22",
    "date-time": "2026-11-22T18:01:05Z",
    "time": "18:01:05Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "3f9a1c52-7b1e-4c0d-9a51-0d2f6b8e4a17",
}


def _type_of(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    properties = {**(first.get("properties") or {}), **(second.get("properties") or {})}
    required = [*(first.get("required") or ()), *(second.get("required") or ())]
    merged = {**first, **second}
    if properties:
        merged["properties"] = properties
    if required:
        merged["required"] = required
    return merged


def fitting_text(pattern: str, random: Random) -> str:
    """Return a text that matches a pattern of literals, classes, groups and repeats; otherwise any word."""
    try:
        text = _PatternReader(pattern.removeprefix("^").removesuffix("$"), random).alternatives()
        return text if re.search(pattern, text) else random.choice(WORDS)
    except (re.error, ValueError, IndexError):
        return random.choice(WORDS)


_CLASSES = {"d": "0123456789", "w": "abcdefghijklmnopqrstuvwxyz0123456789_", "s": " "}
_PRINTABLE = [chr(code) for code in range(33, 127)]


class _PatternReader:
    """Reads a regular expression from left to right and writes a text that fits it."""

    def __init__(self, pattern: str, random: Random) -> None:
        self._text = pattern
        self._at = 0
        self._random = random

    def alternatives(self) -> str:
        options = [self._sequence()]
        while self._at < len(self._text) and self._text[self._at] == "|":
            self._at += 1
            options.append(self._sequence())
        return self._random.choice(options)

    def _sequence(self) -> str:
        made = ""
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            start = self._at
            piece = self._atom()
            low, high = self._repeats()
            after = self._at
            made += piece if (low, high) == (1, 1) else ""
            if (low, high) != (1, 1):
                for _ in range(self._random.randint(low, high)):
                    self._at = start
                    made += self._atom()
                self._at = after
        return made

    def _atom(self) -> str:
        char = self._text[self._at]
        self._at += 1
        if char == "(":
            if self._text.startswith("?:", self._at):
                self._at += 2
            inner = self.alternatives()
            self._at += 1  # the closing parenthesis
            return inner
        if char == "[":
            return self._random.choice(self._class())
        if char == "\\":
            return self._random.choice(self._escape())
        if char == ".":
            return self._random.choice("abcdefghij")
        return "" if char in "^$" else char

    def _escape(self) -> str:
        char = self._text[self._at]
        self._at += 1
        return _CLASSES.get(char, char)

    def _class(self) -> list[str]:
        negated = self._text[self._at] == "^"
        self._at += negated
        chars: list[str] = []
        while self._text[self._at] != "]" or not chars:
            char = self._text[self._at]
            self._at += 1
            if char == "\\":
                chars += self._escape()
            elif self._text[self._at] == "-" and self._text[self._at + 1] != "]":
                chars += [chr(code) for code in range(ord(char), ord(self._text[self._at + 1]) + 1)]
                self._at += 2
            else:
                chars.append(char)
        self._at += 1
        return [char for char in _PRINTABLE if char not in chars] if negated else chars

    def _repeats(self) -> tuple[int, int]:
        char = self._text[self._at : self._at + 1]
        if char == "{":
            end = self._text.index("}", self._at)
            low, mark, high = self._text[self._at + 1 : end].partition(",")
            self._at = end + 1
            return int(low or 0), int(high) if high else int(low or 0) + (_REPEATS if mark else 0)
        if char and char in "*+?":
            self._at += 1
            return {"*": (0, _REPEATS), "+": (1, _REPEATS), "?": (0, 1)}[char]
        return 1, 1
