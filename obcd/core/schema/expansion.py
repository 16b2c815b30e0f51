"""What checking an answer against a JSON schema may cost, known before anything is compiled. Pure.

    {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], …}    `a` is applied twice to each value, and so on

jsonschema-rs keeps the interpreter lock until it has finished, and nothing can end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin

from obcd.errors import ObcdError

#: Most parts that apply each other to the same value in a row: a thread's stack holds them for the deepest answer.
MOST_NESTED = 100
#: Most parts that references lead to: compiling takes the square of a chain of them, 0.1 s for this number.
MOST_REFERRED = 1000
#: The limit of compiling or of a judgement, in steps of about twenty nanoseconds.
MOST_STEPS = 5_000_000
#: Limit of the parts of a schema times the nested brackets of an answer for which the cost is computed: 0.2 s.
MOST_WEIGHED = 25_000
#: Steps for a number under `multipleOf` (which is exact), for a list or object of an `enum`, and for a value with which
#: others are compared.
MULTIPLE_STEPS, ENUM_STEPS, UNIQUE_STEPS = 5000, 20, 20

#: Characters of a place that a message shows.
MAX_PLACE = 200

#: Keywords that refer to another part.
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
#: Keywords that apply parts to the value itself, to everything inside it, or to one name or place in it each.
_SAME = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_EVERY = ("additionalItems", "contains", "additionalProperties", "patternProperties", "propertyNames",
          "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_ONE = ("properties", "prefixItems")
#: Keywords that apply nothing: other parts may refer to their content.
_NONE = ("$defs", "definitions")
#: Keywords whose values are parts, by names that the author of the schema chose.
_NAMING = ("properties", "patternProperties", "dependentSchemas", "dependencies", *_NONE)


class ExpansionError(ObcdError, ValueError):
    """A schema cannot be used; the text is the reason, as the rest of a sentence."""


@dataclass(frozen=True, slots=True)
class _Base:
    """What references of a part are relative to: the nearest part around it that has an `$id`, and its address."""

    document: dict[str, object]
    address: str


@dataclass(slots=True)
class _Part:
    """An object of a schema, with the ids of the parts that it applies: see `_SAME`, `_EVERY`, `_ONE`."""

    document: dict[str, object]
    base: _Base
    place: str
    same: list[int] = field(default_factory=list)
    every: list[int] = field(default_factory=list)
    one: list[int] = field(default_factory=list)


class Expansion:
    """The parts of a schema, and which part applies which.

    Attributes:
        patterns: {pattern: the place of a part that has it}
        referred: {id of a part with `$ref`: the part that it refers to}

    Raises:
        ExpansionError: If a reference leads nowhere or in a circle, or there are too many.
    """

    def __init__(self, document: dict[str, object]) -> None:
        self._root = id(document)
        self._parts: dict[int, _Part] = {}
        self._referred: set[int] = set()
        self.patterns: dict[str, str] = {}
        self.referred: dict[int, object] = {}
        #: {address: the part with this `$id`}
        self._bases: dict[str, _Base] = {}
        anchors: dict[str, list[dict[str, object]]] = {}
        found = self._walk(document, _Base(document, ""), "")
        for part in found:
            for key in ("$anchor", "$dynamicAnchor", "$id", "id"):
                anchors.setdefault(str(part.document.get(key, "")).removeprefix("#"), []).append(part.document)
        while found:
            part = found.pop()
            for key, target, base in _targets(part, anchors, self._bases):
                if key == "$ref":
                    self.referred[id(part.document)] = target
                part.same.append(id(target))
                self._referred.add(id(target))
                found.extend(self._walk(target, base, part.place))
        if len(self._referred) > MOST_REFERRED:
            raise ExpansionError(f"it refers to more than {MOST_REFERRED} parts")
        self._order = self._sorted()
        # To find out what is evaluated, the applied parts are applied once more.
        is_twice = any(str(key).startswith("unevaluated") for part in self._parts.values() for key in part.document)
        self._twice = 2 if is_twice else 1

    def _walk(self, document: object, base: _Base, place: str) -> list[_Part]:
        """Return the new parts inside a document, itself included."""
        made = []
        left = [(document, base, place)]
        while left:
            document, base, place = left.pop()
            if not isinstance(document, dict) or id(document) in self._parts:
                continue
            name = document.get("$id", document.get("id"))
            if isinstance(name, str) and not name.startswith("#"):
                base = _Base(document, _joined(base.address, name.partition("#")[0]))
                self._bases.setdefault(base.address, base)
            part = self._parts[id(document)] = _Part(document, base, place)
            made.append(part)
            self.patterns.update(dict.fromkeys(patterns_of(document), place))
            for keywords, ids in ((_SAME, part.same), (_EVERY, part.every), (_ONE, part.one), (_NONE, [])):
                for key in keywords:
                    for name, inner in _inner(document, key):
                        ids.append(id(inner))
                        left.append((inner, base, f"{place}/{name}".lstrip("/")))
            for name, inner in _inner(document, "items"):
                (part.one if isinstance(document["items"], list) else part.every).append(id(inner))
                left.append((inner, base, f"{place}/{name}".lstrip("/")))
        return made

    def _sorted(self) -> list[_Part]:
        """Return the parts, each after those that it applies to the same value."""
        heights: dict[int, int] = {}
        for start in self._parts:
            path = [] if start in heights else [(start, iter(self._parts[start].same))]
            while path:
                at, left = path[-1]
                inner = next((number for number in left if number in self._parts and number not in heights), None)
                if inner is not None:
                    path.append((inner, iter(self._parts[inner].same)))
                else:
                    heights[at] = 1 + max((heights.get(number, 0) for number in self._parts[at].same), default=0)
                    path.pop()
                if len(path) > MOST_NESTED or heights.get(at, 0) > MOST_NESTED:
                    raise ExpansionError("it refers to itself without end, or is nested too deep")
        return [self._parts[number] for number in heights]

    def documents(self) -> list[dict[str, object]]:
        """Return the parts themselves."""
        return [part.document for part in self._order]

    def weight(self, cost: Callable[[dict[str, object]], int], depth: int) -> int:
        """Return what all parts that apply to one value of an answer may cost together; above `MOST_STEPS` is too much.

        Args:
            cost: Returns what a part costs by itself, once.
            depth: The nesting depth of the answer's brackets.
        """
        own = [cost(part.document) for part in self._order]
        inner: dict[int, int] = {}
        for level in range(depth + 1):
            if level * len(own) > MOST_WEIGHED:
                return 2 * MOST_STEPS
            now: dict[int, int] = {}
            for part, found in zip(self._order, own, strict=True):
                found += self._twice * sum(now.get(number, 0) for number in part.same)  # noqa: PLW2901
                found += sum(inner.get(number, 0) for number in part.every)  # noqa: PLW2901
                found += max((inner.get(number, 0) for number in part.one), default=0)  # noqa: PLW2901
                now[id(part.document)] = min(found, 2 * MOST_STEPS)
            if now == inner or now[self._root] > MOST_STEPS:
                return now[self._root]
            inner = now
        return inner[self._root]


def _inner(part: dict[str, object], key: str) -> Iterator[tuple[str, object]]:
    """Yield `(place, part)` for the parts in a keyword of a part."""
    value = part.get(key)
    if isinstance(value, list):
        yield from ((f"{key}/{number}", inner) for number, inner in enumerate(value))
    elif isinstance(value, dict) and key in _NAMING:
        yield from ((f"{key}/{name}", inner) for name, inner in value.items())
    elif isinstance(value, dict):
        yield key, value


def _joined(address: str, other: str) -> str:
    """Return the address that another one has, seen from an address."""
    try:
        return urljoin(address, other)
    except ValueError:
        return other


def _targets(
    part: _Part, anchors: Mapping[str, list[dict[str, object]]], bases: Mapping[str, _Base]
) -> Iterator[tuple[str, object, _Base]]:
    """Yield `(keyword, target, base of the target)` of a part's references: if several have a name, all of them."""
    for key in _REFERENCES:
        target = part.document.get(key)
        if not isinstance(target, str):
            continue
        place = short_place(part.place)
        address, _, inside = target.partition("#")
        base = bases.get(_joined(part.base.address, address)) if address else part.base
        if base is None:
            raise ExpansionError(
                f"at {place}: `{key}` points to {target!r}, which is never fetched: put it under $defs"
            )
        is_pointer = not inside or inside.startswith("/")
        found = [find_part(base.document, f"#{inside}")] if is_pointer else anchors.get(unquote(inside), [])
        if not found or not isinstance(found[0], dict | bool):
            raise ExpansionError(f"at {place}: `{key}` points to {target!r}, which is not in it")
        yield from ((key, item, base) for item in found)


def short_place(place: str) -> str:
    """Return a place in a schema or an answer for a sentence: the end of it, which is where the fault is."""
    return (place if len(place) <= MAX_PLACE else f"…{place[1 - MAX_PLACE :]}") or "its top"


def patterns_of(part: dict[str, object]) -> list[str]:
    """Return the patterns of a part of a schema itself."""
    patterns = part.get("patternProperties")
    found = (part.get("pattern"), *(patterns if isinstance(patterns, dict) else ()))
    return [pattern for pattern in found if isinstance(pattern, str)]


def steps_of(part: dict[str, object]) -> int:
    """Return the steps that a part of a schema takes at a value, without its patterns and the parts that it applies."""
    steps = (
        1 + len(part) + (MULTIPLE_STEPS if "multipleOf" in part else 0) + (UNIQUE_STEPS if "uniqueItems" in part else 0)
    )
    for value in part.values():
        if isinstance(value, list):
            steps += sum(ENUM_STEPS if isinstance(item, (list, dict)) else 1 for item in value)
    return steps


def find_part(root: object, pointer: str) -> object:
    """Return the target of a JSON pointer (RFC 6901, `#/$defs/visit`) in a schema; None if there is none."""
    if pointer == "#":
        return root
    for part in unquote(pointer).removeprefix("#/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(root, list) and key.isdecimal() and len(key) < 9 and int(key) < len(root):
            root = root[int(key)]
        elif isinstance(root, dict):
            root = root.get(key)
        else:
            return None
    return root
