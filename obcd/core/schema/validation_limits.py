"""jsonschema's validators under a limit of time: whoever wrote a schema must not hold a process by it. Pure.

    with within(SECONDS): validator.iter_errors(value)
                            └► each keyword looks at the time left ──► OverdueError
                                └► patterns are searched by `regex`, which stops when it is over

A search of `re` holds the interpreter lock to its end, and nothing ends it: `^(a|aa)+$` on sixty letters stops every
thread for years, the one with the heartbeat among them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache, partial
from math import inf
from time import thread_time
from typing import Any

from obcd.core.schema.patterns import compile_pattern
from obcd.errors import ObcdError

#: What one judgement may take, in seconds of its thread's CPU time: some thousand times what an answer takes, and short
#: beside a heartbeat. Not of the wall clock: a busy machine must make no answer unfit.
SECONDS = 1.0
#: What the check of a schema may take, in steps: a keyword at a value is one, and they take about a second. Counted and
#: not timed, so that a line which was taken once is taken whenever it is read again.
STEPS = 150_000
#: What it may take at all, in seconds: out of reach of so many steps.
CHECK_SECONDS = 10.0
#: Faults that one judgement may find, counted at each level of a schema that they pass: 2 KB each in memory.
MOST_FAULTS = 50_000
#: Items of a list for which `unevaluatedItems` is looked at: jsonschema compares each with each.
MOST_UNEVALUATED = 2000
#: What is kept of the sentence of a fault, in characters: jsonschema puts the whole value into it, in each of them.
MAX_MESSAGE = 1000
#: Steps, a power of two, of which one looks at the clock: that takes a third of a microsecond.
UNTIMED = 8
#: As good as no limit.
_ENDLESS = 2**62

_Keyword = Callable[[Any, Any, Any, Any], Iterable[Any] | None]


class OverdueError(ObcdError):
    """A schema takes more than it may; its text is what, as the rest of a sentence, "" for time."""


class _Limit(threading.local):
    """When the judgement of this thread has to be over, in seconds of its CPU time, and what it may take until then."""

    end = inf
    steps = _ENDLESS
    faults = _ENDLESS


_limit = _Limit()


@contextmanager
def within(seconds: float, steps: int = _ENDLESS) -> Iterator[None]:
    """Have all validators of this thread raise `OverdueError` when they take more than that together."""
    _limit.end, _limit.steps, _limit.faults = thread_time() + seconds, steps, MOST_FAULTS
    try:
        yield
    finally:
        _limit.end, _limit.steps, _limit.faults = inf, _ENDLESS, _ENDLESS


def _step() -> None:
    """Take a step of those of this thread; raises as `spend` does, though it does not look at the clock each time."""
    left = _limit.steps = _limit.steps - 1
    if left % UNTIMED == 0:
        spend(0)


def spend(steps: int = 1) -> float:
    """Take steps of those of this thread; return the seconds that are left to it.

    Raises:
        OverdueError: If there are none, or no steps.
    """
    _limit.steps -= steps
    left = _limit.end - thread_time()
    if left <= 0 or _limit.steps < 0:
        raise OverdueError
    return left


@cache
def limited(kind: Any) -> Any:
    """Return one of jsonschema's classes with keywords that keep to the limit of their thread."""
    from jsonschema.validators import extend, validator_for  # noqa: PLC0415 - a tenth of a second, see `schemas`

    theirs: dict[str, _Keyword] = kind.VALIDATORS
    own: dict[str, _Keyword] = {
        **_OWN,
        "additionalProperties": partial(_additional_properties, theirs["additionalProperties"]),
    }
    if "unevaluatedItems" in theirs:
        own["unevaluatedItems"] = partial(_unevaluated_items, theirs["unevaluatedItems"])
    keywords = {name: _look_first(own.get(name, keyword)) for name, keyword in theirs.items()}
    made: Any = extend(kind, keywords)  # type: ignore[no-untyped-call]

    def evolve(self: Any, **changes: Any) -> Any:
        """Return the validator of a part: a `$schema` in it would lead jsonschema to a class without a limit."""
        _step()  # what is evaluated is found out by this alone, without a keyword
        schema = changes.get("schema", self.schema)
        is_other = isinstance(schema, dict) and "$schema" in schema
        chosen = limited(validator_for(schema, default=made)) if is_other else made
        return chosen(schema, registry=self._registry, _resolver=changes.get("_resolver", self._resolver))

    made.evolve = evolve
    return made


def _look_first(keyword: _Keyword) -> _Keyword:
    def look_first(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[Any] | None:
        _step()
        found = keyword(validator, value, instance, schema)
        return None if found is None else _bounded(found)

    return look_first


def _bounded(faults: Iterable[Any]) -> Iterator[Any]:
    for fault in faults:
        _limit.faults -= 1
        if _limit.faults < 0:
            raise OverdueError(f"finds more than {MOST_FAULTS} faults")
        if len(fault.message) > MAX_MESSAGE:
            fault.message = fault.message[:MAX_MESSAGE]
            fault.args = (fault.message,)  # it is held there, too
        yield fault


def _is_found(pattern: str, text: str) -> bool:
    compiled = compile_pattern(pattern)
    try:
        return compiled.search(text, timeout=min(spend(), SECONDS), concurrent=True) is not None
    except TimeoutError:
        raise OverdueError from None


def _problem(sentence: str) -> Any:
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415 - as above

    return ValidationError(sentence)


def _pattern(validator: Any, pattern: Any, instance: Any, _: Any) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not _is_found(pattern, instance):
        yield _problem(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, part in patterns.items():
        for key, value in instance.items():
            if _is_found(pattern, key):
                yield from validator.descend(value, part, path=key, schema_path=pattern)


def _additional_properties(
    theirs: _Keyword, validator: Any, wanted: Any, instance: Any, schema: Any
) -> Iterable[Any] | None:
    patterns = schema.get("patternProperties")
    if patterns and validator.is_type(instance, "object"):
        # What a pattern finds counts as named, so that there is nothing left to search for.
        found = [key for key in instance if any(_is_found(pattern, key) for pattern in patterns)]
        schema = {"properties": {**schema.get("properties", {}), **dict.fromkeys(found)}}
    return theirs(validator, wanted, instance, schema)


def _unevaluated_items(
    theirs: _Keyword, validator: Any, wanted: Any, instance: Any, schema: Any
) -> Iterable[Any] | None:
    if validator.is_type(instance, "array") and len(instance) > MOST_UNEVALUATED:
        raise OverdueError(f"has `unevaluatedItems` for a list of more than {MOST_UNEVALUATED} items")
    return theirs(validator, wanted, instance, schema)


def _unique_items(validator: Any, is_wanted: Any, instance: Any, _: Any) -> Iterator[Any]:
    if is_wanted and validator.is_type(instance, "array") and _has_twice(instance):
        yield _problem(f"{instance!r} has non-unique elements")


def _multiple_of(validator: Any, step: Any, instance: Any, _: Any) -> Iterator[Any]:
    """Take numbers as they are written: by floats 19.99 would be no multiple of 0.01."""
    if validator.is_type(instance, "number") and Fraction(repr(instance)) % Fraction(repr(step)):
        yield _problem(f"{instance!r} is not a multiple of {step!r}")


#: {keyword: how it is done here}: by `regex`, without comparing each with each, exactly.
_OWN: dict[str, _Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
    "divisibleBy": _multiple_of,  # draft 3
}


def _has_twice(items: list[Any]) -> bool:
    seen = set()
    for item in items:
        spend()
        key = _key_of(item)
        if key in seen:
            return True
        seen.add(key)
    return False


def _key_of(value: Any) -> Any:
    """Return what is equal for values that JSON schema has as equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return (list, tuple(map(_key_of, value)))
    if isinstance(value, dict):
        return (dict, frozenset((key, _key_of(inner)) for key, inner in value.items()))
    return value
