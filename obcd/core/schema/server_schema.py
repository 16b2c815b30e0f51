"""The form of a JSON schema that the server makes a grammar of; answers are always checked by the schema itself. Pure.

    {"type": "string", "pattern": "\\d+"} ──► {"type": "string", "pattern": "^…[0-9]…$"}        see `server_pattern`
    {"$ref": "#"}, {"$ref": "#name"}       ──► {"$ref": "#/$defs/NAME"}
    true, {"description": "…"}             ──► all types by name
    {"maxLength": 5000}                    ──► {}

Ollama gives a schema to llama.cpp (common/json-schema-to-grammar.cpp; read in the versions of Ollama v0.24 and v0.33).
That converter refuses what it does not know, overlooks keywords beside `anyOf`, `allOf` and `properties`, and may end
the server. The form that is sent has the same meaning there where it can have it, and otherwise allows more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from obcd.core.schema.expansion import Expansion, ExpansionError, short_place
from obcd.core.schema.server_pattern import ANY_TEXT, server_pattern
from obcd.core.schema.strict_json import short_key
from obcd.core.schema.wrapping import missing_properties
from obcd.errors import ObcdError

#: Number of schemas whose form is remembered.
REMEMBERED = 32
#: Deepest part that is read; a schema with a deeper one is not sent.
MAX_DEPTH = 100
#: Most references, `allOf` and their like that are followed at one place.
MAX_HOPS = 20
#: Most keywords that are read, some of them again in each choice of an `anyOf`; a larger schema is not sent.
MAX_KEYWORDS = 50_000
#: Most pairs of values that are compared to join two enums.
MAX_PAIRS = 250_000
#: Most characters of a string and items of a list that a grammar may count (llama-grammar.cpp: 2,000 rules).
MAX_CHARS, MAX_ITEMS = 1900, 900
#: Whole numbers beyond this are not limits that the server can hold.
MAX_WHOLE = 2**53

#: Any value: llama.cpp reads {} as "any object", and v0.24 refuses a part that has only a description.
ANYTHING: Mapping[str, object] = {"type": ["object", "array", "string", "number", "boolean", "null"]}
#: Keywords of which llama.cpp makes rules.
_FORMING = frozenset(
    ("$ref", "oneOf", "anyOf", "allOf", "type", "const", "enum", "properties", "additionalProperties", "items")
) | {"prefixItems", "pattern"}  # fmt: skip
#: Keywords that are sent as they are.
_COPIED = frozenset(
    ("$schema", "title", "description", "type", "required", "const", "enum", "format", "minLength", "maxLength")
) | {"minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
#: Names of properties from which llama.cpp can make a rule for "any other name".
_SIMPLE_NAME = re.compile(r"[A-Za-z0-9_. ]+", re.ASCII)
#: Names of properties that llama.cpp takes for keywords.
_KEYWORD_NAMES = frozenset(("$ref", "$defs"))
_FORMATS = frozenset(("date", "time", "date-time", "uuid", "uuid1", "uuid2", "uuid3", "uuid4", "uuid5"))


class _TooLargeError(ObcdError):
    """The schema is nested too deep, or too large, to be sent."""


@dataclass(frozen=True, slots=True)
class SentPattern:
    """A pattern that is not sent as it is.

    Attributes:
        place: In the schema, e.g. `properties/zip`; "" is its top.
        sent: The pattern that is sent in its place; None: no equal one exists, so that only obcd checks it.
    """

    place: str
    pattern: str
    sent: str | None


@dataclass(frozen=True, slots=True)
class ServerSchema:
    """What is sent of a schema.

    Attributes:
        document: None: nothing.
        patterns: Those that are not sent as they are.
        nullable: `(place, its type)` of each `nullable: true`, which JSON Schema does not know (OpenAPI 3.0 does).
    """

    document: Mapping[str, object] | None
    patterns: tuple[SentPattern, ...] = ()
    nullable: tuple[tuple[str, object], ...] = ()


def server_schema(document: Mapping[str, object]) -> ServerSchema:
    """Return what is sent of a schema that `check_schema` accepted; recent ones are shared."""
    return _remembered(json.dumps(document, separators=(",", ":")))


@lru_cache(maxsize=REMEMBERED)
def _remembered(text: str) -> ServerSchema:
    document = json.loads(text)
    try:
        writer = _Writer(document)
        written = writer.write()
    except (ExpansionError, _TooLargeError):
        return ServerSchema(None)
    return ServerSchema(written, tuple(writer.patterns), tuple(writer.nullable))


class _Writer:
    def __init__(self, document: dict[str, object]) -> None:
        self._document = document
        self._referred = Expansion(document).referred
        #: {id of a part that is referred to: its name under $defs}, and the parts that are not written yet.
        self._names: dict[int, str] = {}
        self._waiting: list[tuple[str, object]] = []
        self.patterns: list[SentPattern] = []
        self.nullable: list[tuple[str, object]] = []
        self._left = MAX_KEYWORDS

    def write(self) -> dict[str, object]:
        """Return the form of the whole schema."""
        # llama.cpp follows no reference inside a target whose own reference is at the top.
        written = self._part(self._opened(self._document), "")
        definitions: dict[str, object] = {}
        while self._waiting:
            name, part = self._waiting.pop()
            definitions[name] = self._part(part, f"$defs/{name}")
        return {**written, "$defs": definitions} if definitions else written

    def _name(self, target: object, reference: str) -> str:
        """Return the name under $defs of a part that is referred to."""
        if id(target) not in self._names:
            plain = re.sub(r"[^A-Za-z0-9_-]+", "-", reference.rpartition("/")[2].lstrip("#")) or "whole"
            taken, name = set(self._names.values()), plain
            while name in taken:
                name = f"{plain}-{len(taken)}"
            self._names[id(target)] = name
            self._waiting.append((name, target))
        return self._names[id(target)]

    def _opened(self, part: object) -> object:
        """Return the part to which a chain of references leads, or the part itself."""
        for _ in range(MAX_HOPS):
            if not isinstance(part, dict) or id(part) not in self._referred:
                return part
            part = self._referred[id(part)]
        return part

    def _part(self, part: object, place: str, depth: int = 0) -> dict[str, object]:
        self._count(part, depth)
        if not isinstance(part, dict):
            return dict(ANYTHING)
        if part.get("nullable") is True and not _may_be_null(part):
            self.nullable.append((place, part.get("type", "string")))
        if id(part) in self._referred:
            return {"$ref": f"#/$defs/{self._name(self._referred[id(part)], str(part['$ref']))}"}
        part = self._joined(part)
        if id(part) in self._referred:
            return self._part(part, place, depth + 1)
        if not _has_form(part):
            return dict(ANYTHING)
        written: dict[str, object] = {}
        for key, value in part.items():
            written.update(self._keyword(part, key, value, place, depth + 1))
        _drop_limits(written)
        return written if _has_form(written) else dict(ANYTHING)

    def _count(self, part: object, depth: int = 0) -> None:
        """Count what is read.

        Raises:
            _TooLargeError: If it is too much.
        """
        self._left -= 1 + (len(part) if isinstance(part, dict) else 0)
        if self._left < 0 or depth > MAX_DEPTH:
            raise _TooLargeError

    def _merged(self, part: Mapping[str, object], other: object) -> dict[str, object]:
        for item in (part, part.get("properties"), other, other.get("properties") if isinstance(other, dict) else None):
            self._count(item)
        return _merged(part, other)

    def _keyword(
        self, part: Mapping[str, object], key: str, value: object, place: str, depth: int
    ) -> Iterator[tuple[str, object]]:
        """Yield what is sent of a keyword: `(keyword, value)`."""
        is_sendable = key != "format" or value in _FORMATS
        if key in ("const", "enum"):
            is_sendable = '"$ref"' not in json.dumps(value)  # llama.cpp would follow it
        if key in _COPIED and is_sendable:
            yield key, value
        elif key == "pattern":
            yield from self._pattern(str(value), place)
        else:
            yield from self._applied(part, key, value, f"{place}/{key}".lstrip("/"), depth)

    def _applied(
        self, part: Mapping[str, object], key: str, value: object, place: str, depth: int
    ) -> Iterator[tuple[str, object]]:
        """Yield what is sent of a keyword that applies parts."""
        if isinstance(value, list) and key in ("oneOf", "anyOf", "prefixItems", "items"):
            is_choice = key in ("oneOf", "anyOf")
            parts = [(number, inner) for number, inner in enumerate(value) if inner is not False or not is_choice]
            yield key, [self._part(inner, f"{place}/{number}", depth) for number, inner in parts]
        elif key == "items" and value is not False and "prefixItems" not in part:
            yield key, self._part(value, place, depth)
        elif key == "properties" and isinstance(value, dict):
            named = self._properties(part, value, place, depth)
            if not _KEYWORD_NAMES & named.keys() and (named or part.get("additionalProperties") is False):
                yield key, named  # with no names, llama.cpp would allow nothing but {}
        elif key == "additionalProperties":
            yield from self._others(part, value, place, depth)

    def _pattern(self, pattern: str, place: str) -> Iterator[tuple[str, object]]:
        sent = server_pattern(pattern)
        if sent:
            yield "pattern", sent
        if sent not in (pattern, ""):
            self.patterns.append(SentPattern(place, pattern, sent))

    def _properties(
        self, part: Mapping[str, object], given: Mapping[str, object], place: str, depth: int
    ) -> dict[str, object]:
        written: dict[str, object] = {
            name: self._part(inner, f"{place}/{name}", depth) for name, inner in given.items() if inner is not False
        }
        required = part.get("required")
        if part.get("additionalProperties") is not False and isinstance(required, list):
            # llama.cpp allows no other names, unless additionalProperties is set.
            written.update((name, dict(ANYTHING)) for name in required if name not in given)
        return written

    def _others(
        self, part: Mapping[str, object], value: object, place: str, depth: int
    ) -> Iterator[tuple[str, object]]:
        """Yield what is sent of `additionalProperties`."""
        names = part.get("properties")
        is_simple = not isinstance(names, dict) or all(map(_SIMPLE_NAME.fullmatch, names))
        if value is False:
            if "patternProperties" not in part:
                yield "additionalProperties", False
        elif is_simple and isinstance(value, dict) and _has_form(value):
            yield "additionalProperties", self._part(value, place, depth)
        elif is_simple:
            yield "additionalProperties", True

    def _joined(self, part: dict[str, object]) -> dict[str, object]:
        """Return a part without `allOf`, and whose keywords stand inside its `anyOf` or `oneOf`, as llama.cpp needs."""
        for _ in range(MAX_HOPS):
            every = part.get("allOf")
            if not isinstance(every, list):
                break
            part = {key: value for key, value in part.items() if key != "allOf"}
            if len(every) == 1 and not _has_form(part) and isinstance(every[0], dict):
                return every[0] if id(every[0]) in self._referred else self._joined(every[0])
            for inner in map(self._opened, every):
                part = self._merged(part, inner)
        else:
            part = {key: value for key, value in part.items() if key != "allOf"}
        for key in ("oneOf", "anyOf"):
            choices = part.get(key)
            if not isinstance(choices, list):
                continue
            around = {name: value for name, value in part.items() if name not in ("oneOf", "anyOf")}
            if not _has_form(around):
                return {**around, key: choices}
            if not any(isinstance(choice, dict) and _has_form(choice) for choice in choices):
                return around  # such as [{"required": ["a"]}, {"required": ["b"]}]: only obcd checks it
            return {key: [self._merged(around, self._opened(choice)) for choice in choices if choice is not False]}
        return part


def _merged(part: Mapping[str, object], other: object) -> dict[str, object]:
    """Return what holds both parts, or more where both cannot be said in one part."""
    merged = dict(part)
    if not isinstance(other, dict):
        return merged
    for key, value in other.items():
        if key not in merged:
            merged[key] = value
            continue
        mine = merged[key]
        match key:
            case "properties" if isinstance(mine, dict) and isinstance(value, dict):
                merged[key] = {**mine, **value}
            case "required" if isinstance(mine, list) and isinstance(value, list):
                merged[key] = list(dict.fromkeys((*mine, *value)))
            case "enum" if isinstance(mine, list) and isinstance(value, list) and len(mine) * len(value) <= MAX_PAIRS:
                merged[key] = [item for item in mine if item in value] or mine
            case "type":
                both = [kind for kind in _listed(value) if kind in _listed(mine)]
                merged[key] = both[0] if len(both) == 1 else both or mine
            case "additionalProperties" if mine != value:
                del merged[key]
    if ("additionalProperties" in part) != ("additionalProperties" in other):
        merged.pop("additionalProperties", None)  # it speaks of the names beside it only
    return merged


def _listed(kinds: object) -> list[object]:
    return kinds if isinstance(kinds, list) else [kinds]


def _has_form(part: Mapping[str, object]) -> bool:
    """Return whether llama.cpp makes a rule of a part; `additionalProperties: true` alone is no reason."""
    return any(key in _FORMING and (key != "additionalProperties" or value is not True) for key, value in part.items())


def _may_be_null(part: Mapping[str, object]) -> bool:
    """Return whether a part with `nullable` allows null without it, as far as its own keywords show."""
    kinds, values = part.get("type"), part.get("enum")
    return "null" in _listed(kinds) if kinds is not None else not isinstance(values, list) or None in values


def _drop_limits(part: dict[str, object]) -> None:
    """Remove limits with which the server makes no grammar, or a wrong one."""
    for low, high, limit in (("minLength", "maxLength", MAX_CHARS), ("minItems", "maxItems", MAX_ITEMS)):
        for key in (low, high):
            if key in part and not _is_whole(part[key], limit):
                del part[key]
        least, most = part.get(low, 0), part.get(high, limit)
        if isinstance(least, int) and isinstance(most, int) and least > most:  # with these the server hangs for ever
            del part[low], part[high]
    limits = [key for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum") if key in part]
    values = [part[key] for key in limits]
    if not all(_is_whole(value, MAX_WHOLE) for value in values) or not _are_in_order(part):
        for key in limits:
            del part[key]


def _are_in_order(part: Mapping[str, object]) -> bool:
    """Return whether some whole number is within the limits, by which of them llama.cpp goes."""
    low, above = part.get("minimum"), part.get("exclusiveMinimum")
    high, below = part.get("maximum"), part.get("exclusiveMaximum")
    least = low if isinstance(low, int) else above + 1 if isinstance(above, int) else None
    most = high if isinstance(high, int) else below - 1 if isinstance(below, int) else None
    return least is None or most is None or least <= most


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= most


# --- remarks ---------------------------------------------------------------------------------------------------------

#: Most remarks about one schema, and characters of a pattern in one.
MAX_REMARKS, MAX_SHOWN = 5, 80


def schema_remarks(document: object, *, is_sent: bool = True) -> list[str]:
    """Return what the author of a schema should know, a sentence each: what has no effect, or is sent in another form.

    Args:
        document: A schema that `check_schema` accepted; anything else has no remarks.
        is_sent: Whether it is sent to the server at all.
    """
    if not isinstance(document, dict):
        return []
    sent = server_schema(document)
    lost = missing_properties(document)
    if sent.document is None and is_sent:
        return ["the schema is too large for the server: it is not sent, and only obcd checks the answers"]
    return [
        *(f"`{short_key(key)}` has no effect in the schema: put it under `properties`" for key in lost[:MAX_REMARKS]),
        *map(_of_pattern, _first(sent.patterns) if is_sent else ()),
        *map(_of_nullable, sent.nullable[:MAX_REMARKS]),
    ]


def _first(patterns: Iterable[SentPattern]) -> list[SentPattern]:
    """Return the first patterns, those that are not sent before the others."""
    return sorted(patterns, key=lambda item: item.sent is not None)[:MAX_REMARKS]


def _of_pattern(found: SentPattern) -> str:
    place, pattern = short_place(found.place), _shown(found.pattern)
    if found.sent is None:
        return (
            f"at {place}: the pattern {pattern} is not sent, because the server cannot make a grammar of it; "
            "answers are checked by it"
        )
    return f"at {place}: the server gets the pattern {pattern} in the form {_shown(found.sent)}"


def _of_nullable(found: tuple[str, object]) -> str:
    place, kinds = found
    wanted = json.dumps([*_listed(kinds), "null"])
    return f'at {short_place(place)}: `nullable` has no effect in a JSON schema: write "type": {wanted}'


def _shown(pattern: str) -> str:
    """Return a pattern as it is written in JSON; the text before and after an open pattern is shown as `.*`."""
    text = json.dumps(pattern.replace(ANY_TEXT, ".*"), ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
