"""JSON schemas: which can be held to, and whether an answer fits one. Pure; nothing is ever fetched.

`jsonschema` is imported when the first schema is met: it takes a tenth of a second, and most commands have none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from urllib.parse import unquote

from obcd.core.schema.extract import Found, NoJson, find_json, parse_strict, split_thinking
from obcd.core.schema.patterns import PatternError, compile_pattern, steps_of
from obcd.core.schema.validation_limits import CHECK_SECONDS, SECONDS, STEPS, OverdueError, limited, spend, within

#: Schemas that are remembered as checked, and compiled ones; a line may have its own, of up to a megabyte.
REMEMBERED = 32
#: Longest sentence about an answer or a schema, in characters.
MAX_SENTENCE = 300
#: Problems of one answer that a model is told at once.
TOLD = 3
#: Keywords whose values are data and no schemas: a `$ref` in them refers to nothing.
_DATA = ("const", "enum", "default", "examples")
#: Keywords whose keys are names that somebody chose.
_NAMING = ("properties", "patternProperties", "$defs", "definitions")
#: Keywords that refer to another part.
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
#: Values that find out whether a schema can be applied at all.
_PROBES: tuple[Any, ...] = (None, {}, [], "", 0)
#: What to do about a schema that takes too long.
_SIMPLER = "simplify it (patterns, anyOf)"


@dataclass(frozen=True, slots=True)
class Fit:
    """An answer that fits.

    Attributes:
        value: The JSON value.
        text: As the model wrote it, without fences and prose.
        thoughts: What stood in front of it as `<think>…</think>`, "" where nothing did.
        is_mended: Whether numbers stood in quotes where only numbers may stand, as pydantic takes them too; `text` is
            then written anew.
    """

    value: Any
    text: str
    thoughts: str = ""
    is_mended: bool = False


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why an answer does not fit.

    Attributes:
        reason: For people and logs; names places of the schema, never quotes the answer.
        told: For the model that wrote it; may quote the answer.
        text: The answer without its thoughts.
        thoughts: As in `Fit`.
        is_final: Whether the schema is at fault, so that it is no use to ask for another answer.
    """

    reason: str
    told: str
    text: str
    thoughts: str = ""
    is_final: bool = False


class Schema:
    """What an answer is held to. Any thread.

    Args:
        document: A JSON schema, or `"json"`: any JSON value.
    """

    def __init__(self, document: Mapping[str, Any] | str) -> None:
        self.document = document
        self._validator = None if isinstance(document, str) else _validator(document)

    def judge(self, answer: str) -> Fit | Misfit:
        """Find the JSON in an answer and hold it to the schema; no answer, however mangled, raises anything."""
        thoughts, text = split_thinking(answer)
        found = find_json(text)
        if isinstance(found, NoJson):
            return Misfit(f"the answer is no JSON: {found.reason}", f"There is no valid JSON in it: {found.reason}.",
                          text, thoughts)  # fmt: skip
        try:
            with within(SECONDS):
                errors = self._problems(found)
                if errors and self._unquote_numbers(found.value) and not self._problems(found):
                    return Fit(found.value, json.dumps(found.value, ensure_ascii=False), thoughts, is_mended=True)
        except OverdueError as error:
            taken = str(error) or f"takes longer than {SECONDS:g} s"
            why = f"the schema {taken} on this answer: {_SIMPLER}"
            return Misfit(why, why, text, thoughts, is_final=True)
        except Exception as error:  # noqa: BLE001 - a pattern or a number that jsonschema cannot take is no bug of ours
            why = f"the schema cannot be applied to the answer ({type(error).__name__})"
            return Misfit(why, why, text, thoughts)
        if not errors:
            return Fit(found.value, found.text, thoughts)
        places = ", ".join(dict.fromkeys(place for place, _ in errors))
        told = "\n".join(sentence for _, sentence in errors)
        return Misfit(f"the answer does not fit the schema at {_short(places)}", told, text, thoughts)

    def _unquote_numbers(self, value: Any) -> bool:
        """Take the quotes off numbers where the schema has a number and no string; tell whether there were any.

        `"54"` is the number 54 and no other; what is not written as JSON writes a number stays what it is.
        """
        numbers: list[tuple[Any, Any, Any]] = []  # what holds it, its key or index, the number
        for error in self._validator.iter_errors(value) if self._validator is not None else ():
            if error.validator != "type" or not isinstance(error.instance, str) or not error.absolute_path:
                continue
            found = parse_strict(error.instance)
            if isinstance(found, Found) and type(found.value) in (int, float):
                *path, last = error.absolute_path
                place = value
                for part in path:
                    place = place[part]
                if place[last] is error.instance:  # the name of a property has the path of what it stands in
                    numbers.append((place, last, found.value))
        for place, last, number in numbers:
            place[last] = number
        return bool(numbers)

    def _problems(self, found: Found) -> list[tuple[str, str]]:
        """Return `(place in the schema, sentence for the model)` of the first problems."""
        if self._validator is None:
            return []
        problems = []
        for error in self._validator.iter_errors(found.value):
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
            place = "/".join(map(str, error.absolute_schema_path))
            problems.append((place, f"At ${_short(where)}: {_short(error.message)}"))
            if len(problems) == TOLD:
                break
        return problems


def check_schema(document: Mapping[str, Any]) -> str:
    """Return why a JSON schema cannot be held to, as the rest of a sentence; "" if it can."""
    try:
        return _why_unusable(_text_of(document))
    except RecursionError:
        return "it is nested too deep"


def schema_of(document: Mapping[str, Any] | str) -> Schema:
    """Return the compiled form of what `check_schema` took; the same one for the same document, lately."""
    return _compiled(_text_of(document))


def _text_of(document: Mapping[str, Any] | str) -> str:
    return json.dumps(document, separators=(",", ":"))


@lru_cache(maxsize=REMEMBERED)
def _compiled(text: str) -> Schema:
    return Schema(json.loads(text))


@lru_cache(maxsize=REMEMBERED)
def _why_unusable(text: str) -> str:
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415 - see above

    try:
        with within(CHECK_SECONDS, STEPS):
            return _first_fault(json.loads(text))
    except OverdueError:
        return f"it takes too long to check: {_SIMPLER}"
    except SchemaError as error:
        return _short(error.message)
    except RecursionError:
        return "it refers to itself without end, or is nested too deep"
    except Exception as error:  # noqa: BLE001 - whatever jsonschema stumbles over, it cannot be held to
        return f"it cannot be applied ({type(error).__name__})"


def _first_fault(document: dict[str, Any]) -> str:
    from jsonschema.exceptions import best_match  # noqa: PLC0415

    for place, part in _parts(document, "", is_named=False):
        spend()
        why = _why_part(part)
        if why:
            return f"at {_short(place) or 'its top'}: {why}"
    if _has_key(document, "unevaluatedProperties") and _has_key(document, "patternProperties"):
        return "`patternProperties` beside `unevaluatedProperties` is not taken: write `additionalProperties` instead"
    kind = _kind_of(document)
    error = best_match(kind(kind.META_SCHEMA, registry=_registry()).iter_errors(document))
    if error is not None:
        place = "/".join(map(str, error.absolute_path))
        return f"at {_short(place) or 'its top'}: {_short(error.message)}"
    validator = _validator(document)
    for place, part in _referring(document, validator, "", is_named=False):
        why = _why_lost(part)
        if why:
            return f"at {_short(place) or 'its top'}: {why}"
        _probe(part)
    _probe(validator)
    return ""


def _probe(validator: Any) -> None:
    """Apply a schema to a few values; what refers to itself without end ends in a RecursionError."""
    for probe in _PROBES:
        next(validator.iter_errors(probe), None)


def _referring(document: Any, validator: Any, place: str, *, is_named: bool) -> Iterator[tuple[str, Any]]:
    """Yield a validator for every part of a checked schema that refers to another one, as `_parts` finds them.

    Args:
        validator: For the part that `document` is, or stands in: its references are relative to that part's `$id`.
    """
    spend()
    if isinstance(document, list):
        for number, item in enumerate(document):
            yield from _referring(item, validator, f"{place}/{number}".lstrip("/"), is_named=False)
    if not isinstance(document, dict):
        return
    if not is_named:
        validator = _inner(validator, document)
        if any(key in document for key in _REFERENCES):
            yield place, validator
    for key, value in document.items():
        if is_named or key not in _DATA:
            names = not is_named and key in _NAMING
            yield from _referring(value, validator, f"{place}/{key}".lstrip("/"), is_named=names)


def _inner(validator: Any, part: dict[str, Any]) -> Any:
    """Return the validator for a part of a schema, whose `$id` may be another one."""
    from referencing.jsonschema import specification_with  # noqa: PLC0415

    specification = specification_with(type(validator).META_SCHEMA["$schema"])
    return validator.evolve(
        schema=part, _resolver=validator._resolver.in_subresource(specification.create_resource(part))
    )


def _why_lost(validator: Any) -> str:
    """Return why a reference of a part leads nowhere; "" if all lead somewhere."""
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    for key in _REFERENCES:
        target = validator.schema.get(key)
        try:
            if isinstance(target, str):
                validator._resolver.lookup(target)
        except Unresolvable:
            return f"`{key}` points to {_short(repr(target))}, which is not in it"
    return ""


def _has_key(document: Any, wanted: str) -> bool:
    """Tell whether a key stands anywhere in a schema, in its data too: a `$ref` may lead there."""
    if isinstance(document, list):
        return any(_has_key(item, wanted) for item in document)
    return isinstance(document, dict) and (
        wanted in document or any(_has_key(value, wanted) for value in document.values())
    )


def _parts(document: Any, place: str, *, is_named: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of a schema that may be one itself, with its place.

    Args:
        is_named: Whether the keys are names that somebody chose (of properties or definitions) and no keywords.
    """
    if isinstance(document, list):
        for number, item in enumerate(document):
            yield from _parts(item, f"{place}/{number}".lstrip("/"), is_named=False)
    if not isinstance(document, dict):
        return
    if not is_named:
        yield place, document
    for key, value in document.items():
        if is_named or key not in _DATA:
            names = not is_named and key in _NAMING
            yield from _parts(value, f"{place}/{key}".lstrip("/"), is_named=names)


def _why_part(part: dict[str, Any]) -> str:
    """Return what is wrong with one part of a schema that the meta-schema does not see."""
    for key in _REFERENCES:
        target = part.get(key)
        if isinstance(target, str) and not target.startswith("#"):
            return f"`{key}` points to {_short(repr(target))}, which is never fetched: put it under $defs"
    patterns = part.get("patternProperties")
    for pattern in (part.get("pattern"), *(patterns if isinstance(patterns, dict) else ())):
        try:
            if isinstance(pattern, str):
                spend(steps_of(pattern))
                compile_pattern(pattern)
        except PatternError as error:
            return f"{_short(repr(pattern))} is no pattern ({_short(str(error))})"
    return ""


def find_part(root: Any, pointer: str) -> Any:
    """Return what a JSON pointer (RFC 6901, `#/$defs/visit`) leads to in a schema; None where it leads nowhere."""
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


def _kind_of(document: Mapping[str, Any]) -> Any:
    """Return jsonschema's class for the draft that a schema names, else for 2020-12; it keeps to a limit of time."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415

    return limited(validator_for(dict(document), default=Draft202012Validator))


def _validator(document: Mapping[str, Any]) -> Any:
    return _kind_of(document)(dict(document), registry=_registry())


@cache
def _registry() -> Any:
    """Return what `$ref` is looked up in: the meta-schemas that jsonschema brings, and nothing that is fetched."""
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415

    return REGISTRY


def _short(text: str) -> str:
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 1] + "…"
