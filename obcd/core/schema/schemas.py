"""JSON schemas: which ones can be used, and whether an answer fits one. Nothing is ever fetched.

    check_schema ──► Expansion: what it may cost ──► jsonschema-rs compiles it, with limits for patterns
    Schema.judge ──► what it may cost on this answer ──► a moment: here
                                                    └──► longer: apart, in a process that can be ended

`jsonschema_rs` is imported at the first schema: most commands have none. The process remembers recently checked and
compiled schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from obcd.core.schema.expansion import (
    MAX_PLACE,
    MOST_STEPS,
    Expansion,
    ExpansionError,
    patterns_of,
    short_place,
    steps_of,
)
from obcd.core.schema.extract import Found, Search, distinct, main_values, parse_strict, search_json, without_asides
from obcd.errors import ObcdError

if TYPE_CHECKING:
    import jsonschema_rs

#: Number of schemas that are remembered, checked and compiled; a line may have its own, of up to a megabyte.
REMEMBERED = 32
#: Longest sentence about an answer or a schema, in characters.
MAX_SENTENCE = 300
#: Characters of a pattern that a message shows.
MAX_SHOWN = 100
#: Most problems of one answer that are reported to the model.
REPORTED = 3
#: Most values of one answer in which numbers are freed of their quotes.
MOST_MENDED = 8
#: Limits for finding all faults of an answer: faults of 25 microseconds each, and their characters.
MOST_FAULTS, MOST_FAULT_CHARS = 20_000, 20_000_000
#: Sizes that a compiled pattern may have, in bytes; the largest holds sixty letters of any alphabet.
PATTERN_SIZES = (2**10, 2**12, 2**14, 2**16, 2**17, 2**21)
#: Bytes of a compiled pattern that take one step for each character, at worst.
BYTES_PER_STEP = 40
#: Steps that all patterns of a schema may take for one character; compiling takes as many microseconds.
MOST_SEARCH_STEPS = 100_000
#: How often a search with backtracking (for `(?=…)`, `\1`) may go back: here, and apart. Each may read the whole text.
BACKTRACKS, BACKTRACKS_APART = 1000, 1_000_000
#: {size of the compiled parts of a pattern with backtracking, in bytes: its steps for one character}
HARD_STEPS = {2**10: 500, 2**12: 2500, 2**14: 10_000, 2**17: 50_000}
#: Longest pattern, in characters.
MAX_PATTERN = 5000
#: Time to compile any pattern, in microseconds.
PATTERN_STEPS = 50
#: A number that is long enough for its arithmetic to take time.
_LONG_NUMBER = re.compile(r"[0-9]{60}")
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Keywords that draft 6 and 7 allow to be checked; like `format` they are not checked.
_UNCHECKED = ("contentEncoding", "contentMediaType")
#: The advice for a schema that takes too long.
SIMPLER = "simplify it (patterns, anyOf)"


@dataclass(frozen=True, slots=True)
class Fit:
    """An answer that fits.

    Attributes:
        value: The JSON value.
        text: As the model wrote it, without fences and prose.
        thoughts: The `<think>…</think>` in front of it, "" if there was none.
        is_mended: Whether the model wrote something else: numbers in quotes where only numbers are allowed, which
            pydantic accepts too, or what is only nearly JSON; `text` is then the corrected JSON.
        is_whole: Whether `text` is all that the model wrote beside its thoughts.
    """

    value: object
    text: str
    thoughts: str = ""
    is_mended: bool = False
    is_whole: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why an answer does not fit.

    Attributes:
        reason: For people and logs; names places of the schema, never quotes the answer.
        for_model: For the model that wrote the answer; may quote it.
        text: The answer without its thoughts.
        thoughts: As in `Fit`.
        is_final: Whether the schema is the cause, so that another answer would not help.
    """

    reason: str
    for_model: str
    text: str
    thoughts: str = ""
    is_final: bool = False


#: Judges an answer by a schema in a place where it may take long.
Apart = Callable[[Mapping[str, object], str], Fit | Misfit]


class _PanicError(ObcdError):
    """The extension hit an internal bug."""


class Schema:
    """The schema that answers have to fit. Any thread.

    Args:
        document: A JSON schema that `check_schema` accepted, or `"json"`: any JSON value.
        backtracks: How often a search may go back.
    """

    def __init__(self, document: Mapping[str, object] | str, backtracks: int = BACKTRACKS) -> None:
        self.document = document
        self._compiled = None if isinstance(document, str) else _Compiled(json.dumps(document), backtracks)

    def judge(self, answer: str, apart: Apart | None = None) -> Fit | Misfit:
        """Find the JSON in an answer and check it by the schema; no answer, however damaged, raises anything.

        Args:
            apart: Called with the document and the answer if the check may take long; None: it is always made here.
        """
        search = search_json(answer)
        if not search.values:
            why = search.reason.reason
            return _no_fit(search, Misfit(f"the answer is no JSON: {why}", f"There is no valid JSON in it: {why}.", ""))
        if self._compiled is None:
            return _only(search, main_values(search.values) or list(search.values))
        size = _size_of(search.values)
        if apart is not None and not isinstance(self.document, str) and not self._compiled.is_quick(size):
            return apart(self.document, answer)
        try:
            return self._hold(self._compiled, search, size)
        except (ValueError, _PanicError) as error:
            why = f"the schema cannot be applied to the answer ({type(error).__name__.lstrip('_')})"
            return _no_fit(search, Misfit(why, why, ""))

    def _hold(self, compiled: _Compiled, search: Search, size: _Size) -> Fit | Misfit:
        """Return which of the values fits, and how."""
        fitting = [found for found in search.values if compiled.is_valid(found.value)]
        if fitting:
            return _only(search, fitting)
        chosen = sorted(distinct(search.values), key=lambda found: -len(found.text))[:MOST_MENDED]
        problems = compiled.problems(chosen[0].value, size)  # of the longest, which is likely to be meant
        for found in chosen:
            if compiled.unquote_numbers(found.value, size) and compiled.is_valid(found.value):
                fitting.append(replace(found, text=json.dumps(found.value, ensure_ascii=False), is_repaired=True))
        if fitting:
            return _only(search, fitting)
        if any(problem.is_overdue for problem in problems):
            return _no_fit(search, too_long("", ""))
        places = ", ".join(dict.fromkeys(short_place(problem.place) for problem in problems[:REPORTED]))
        sentences = "\n".join(problem.sentence for problem in problems[:REPORTED])
        why = f"the answer does not fit the schema at {places}"
        return _no_fit(search, Misfit(why, sentences, ""))


def _only(search: Search, fitting: list[Found]) -> Fit | Misfit:
    """Return the one value that fits; if several different ones do, it is unknown which is meant."""
    values = distinct(fitting)
    if len(values) > 1:
        values = without_asides(values)
    if len(values) > 1:
        why = f"several values fit: the answer holds {len(values)} different JSON values"
        return _no_fit(search, Misfit(why, f"It holds {len(values)} different JSON values where one is needed.", ""))
    found = values[0]
    is_whole = not found.is_repaired and found.text == search.text.strip().strip("\ufeff").strip()
    return Fit(found.value, found.text, search.thoughts, found.is_repaired, is_whole)


def _no_fit(search: Search, misfit: Misfit) -> Misfit:
    return replace(misfit, text=search.text, thoughts=search.thoughts)


def too_long(seconds: str, text: str, thoughts: str = "") -> Misfit:
    """Return the misfit of an answer on which a schema takes too long.

    Args:
        seconds: The limit, "" for a search that goes back too often.
    """
    taken = f"takes longer than {seconds}" if seconds else "has a pattern that takes too long"
    why = f"the schema {taken} on this answer: {SIMPLER}"
    return Misfit(why, why, text, thoughts, is_final=True)


@dataclass(frozen=True, slots=True)
class _Problem:
    """A problem of an answer: the place in the schema, and the sentence for the model."""

    place: str
    sentence: str
    is_overdue: bool = False


@dataclass(frozen=True, slots=True)
class _Size:
    """What makes an answer take longer: its values and names, objects, nesting depth, characters."""

    values: int
    objects: int
    depth: int
    chars: int
    has_long_number: bool


@dataclass(frozen=True, slots=True)
class _Weight:
    """The cost of a schema: steps for a value and for a character, keywords at a value, required names."""

    steps: int
    search: int
    keywords: int
    required: int


class _Compiled:
    """A compiled schema, with its cost.

    Raises:
        ExpansionError: If it cannot be used.
        ValueError: The objection of jsonschema-rs, usually a `ValidationError` with a place.
    """

    def __init__(self, text: str, backtracks: int) -> None:
        import jsonschema_rs  # noqa: PLC0415 - see above

        document = json.loads(text)
        self._expansion = Expansion(document)
        self._searches = _searches(self._expansion.patterns)
        self._has_long_number = _LONG_NUMBER.search(text) is not None
        self._weights: dict[int, _Weight] = {}
        if self._weigh(0).steps > MOST_STEPS:
            raise ExpansionError(f"it takes too long to check: {SIMPLER}")
        for part in self._expansion.documents():
            for key in _UNCHECKED:
                part.pop(key, None)
        options = jsonschema_rs.FancyRegexOptions(backtrack_limit=backtracks, size_limit=PATTERN_SIZES[-1])
        kinds = {4: jsonschema_rs.Draft4Validator, 6: jsonschema_rs.Draft6Validator, 7: jsonschema_rs.Draft7Validator,
                 2019: jsonschema_rs.Draft201909Validator}  # fmt: skip
        kind = kinds.get(_draft_of(document), jsonschema_rs.Draft202012Validator)
        with _panics():
            self._validator = kind(document, validate_formats=False, retriever=_refuse, pattern_options=options)

    def _weigh(self, depth: int) -> _Weight:
        depth = 1 << depth.bit_length() if depth else 0  # only a few of them are ever computed
        if depth not in self._weights:
            count = self._expansion.weight
            self._weights[depth] = _Weight(
                count(steps_of, depth),
                count(lambda part: sum(self._searches[pattern] for pattern in patterns_of(part)), depth),
                count(lambda part: 1 + len(part), depth),
                count(_required_names, depth),
            )
        return self._weights[depth]

    def is_quick(self, size: _Size) -> bool:
        """Return whether an answer is judged within a tenth of a second at worst."""
        weight = self._weigh(size.depth)
        is_long = size.has_long_number or self._has_long_number
        return not is_long and size.values * weight.steps + size.chars * weight.search <= MOST_STEPS

    def is_valid(self, value: object) -> bool:
        """Return whether a value fits.

        Raises:
            ValueError: If it cannot be read.
        """
        with _panics():
            try:
                return bool(self._validator.is_valid(value))
            except UnicodeEncodeError:  # half of a surrogate pair, which Python's strings can hold and UTF-8 cannot
                text = json.dumps(value, ensure_ascii=False)
                return bool(self._validator.is_valid(json.loads(_SURROGATE.sub("\ufffd", text))))

    def problems(self, value: object, size: _Size) -> list[_Problem]:
        """Return the problems of a value that does not fit, or one for all if there may be too many."""
        found = [
            _Problem(
                "/".join(map(str, error.schema_path)),
                f"At {_place_of(error.instance_path)}: {_short(error.message)}",
                type(error.kind).__name__.endswith("BacktrackLimitExceeded"),
            )
            for error in self._errors(value, size)
        ]
        return found or [_Problem("", "At $: it does not satisfy the schema")]

    def unquote_numbers(self, value: Any, size: _Size) -> bool:
        """Remove the quotes of numbers where the schema has a number and no string; return whether there were any.

        `"54"` is the number 54 and no other; a text that JSON does not write as a number stays as it is.
        """
        is_any = False
        for error in self._errors(value, size):
            if error.kind.name != "type" or not isinstance(error.instance, str) or not error.instance_path:
                continue
            found = parse_strict(error.instance)
            if isinstance(found, Found) and type(found.value) in (int, float):
                *path, last = error.instance_path
                place = value
                for part in path:
                    place = place[part]
                if place[last] == error.instance:  # the name of a property has the path of its value
                    place[last], is_any = found.value, True
        return is_any

    def _errors(self, value: object, size: _Size) -> list[jsonschema_rs.ValidationError]:
        """Return jsonschema-rs' errors: it makes all at once, and those of each branch in addition."""
        weight = self._weigh(size.depth)
        faults = size.values * weight.keywords + size.objects * weight.required * 5
        if faults > MOST_FAULTS or size.chars * weight.keywords > MOST_FAULT_CHARS:
            return []
        with _panics():
            try:
                return list(self._validator.iter_errors(value))
            except UnicodeEncodeError:
                return []


def check_schema(document: Mapping[str, object]) -> str:
    """Return why a JSON schema cannot be used, as the rest of a sentence, or "" if it can."""
    try:
        return _why_unusable(_text_of(document))
    except RecursionError:
        return "it is nested too deep"


def schema_of(document: Mapping[str, object] | str) -> Schema:
    """Return the compiled form of a schema that `check_schema` accepted; recent ones are shared."""
    return _remembered(_text_of(document))


def _text_of(document: Mapping[str, object] | str) -> str:
    return json.dumps(document, separators=(",", ":"))


@lru_cache(maxsize=REMEMBERED)
def _remembered(text: str) -> Schema:
    return Schema(json.loads(text))


@lru_cache(maxsize=REMEMBERED)
def _why_unusable(text: str) -> str:
    try:
        _Compiled(text, BACKTRACKS)
    except ExpansionError as error:
        return str(error)
    except ValueError as error:
        place = getattr(error, "instance_path", None)
        if place is None:
            return (
                "it is nested too deep"
                if "Recursion" in str(error)
                else f"it cannot be applied ({type(error).__name__})"
            )
        return f"at {short_place('/'.join(map(str, place)))}: {_short(getattr(error, 'message', ''))}"
    except _PanicError:
        return "it cannot be applied (PanicError)"
    return ""


def _searches(patterns: Mapping[str, str]) -> dict[str, int]:
    """Return `{pattern: the steps of its search for one character}`.

    Args:
        patterns: {pattern: its place}
    """
    searches: dict[str, int] = {}
    total = 0
    for pattern, place in patterns.items():
        steps = searches[pattern] = _search_steps(pattern)
        if not steps:
            shown = repr(pattern) if len(pattern) <= MAX_SHOWN else f"{pattern[:MAX_SHOWN]!r}…"
            raise ExpansionError(f"at {short_place(place)}: {shown} is no pattern, or one that is too large")
        total += steps + PATTERN_STEPS
        if total > MOST_SEARCH_STEPS:
            raise ExpansionError(f"it takes too long to check: {SIMPLER}")
    return searches


def _search_steps(pattern: str) -> int:
    """Return the steps of a pattern's search for one character; 0 if it is not a pattern, or too large."""
    import jsonschema_rs as rs  # noqa: PLC0415 - see above

    if len(pattern) > MAX_PATTERN:
        return 0
    sizes = [size for size in PATTERN_SIZES if size > 8 * len(pattern)]
    tried: list[tuple[int, rs.RegexOptions | rs.FancyRegexOptions]] = []
    tried.extend((size // BYTES_PER_STEP, rs.RegexOptions(size_limit=size)) for size in sizes)
    tried.extend((steps, rs.FancyRegexOptions(size_limit=size)) for size, steps in HARD_STEPS.items())
    for steps, options in tried:
        try:
            with _panics():
                rs.Draft202012Validator({"pattern": pattern}, pattern_options=options)
        except (ValueError, _PanicError):
            continue
        return steps
    return 0


@contextmanager
def _panics() -> Iterator[None]:
    """Turn a panic of the extension into an ordinary exception: it derives from none."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _PanicError(str(error)) from error


def _required_names(part: Mapping[str, object]) -> int:
    names = part.get("required")
    return len(names) if isinstance(names, list) else 0


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is never fetched")


def _draft_of(document: Mapping[str, object]) -> int:
    """Return the number of the draft that a schema names; 0 for the newest, or if it names no known one."""
    found = re.search(
        r"^https?://json-schema.org/draft(?:-0([467])|/(2019)-09)/schema#?$", str(document.get("$schema"))
    )
    return int(found[1] or found[2]) if found else 0


def _size_of(values: Sequence[Found]) -> _Size:
    """Return the size of all values together: the longest one is not enough where there are thousands."""
    objects, depth, level = 0, 0, [found.value for found in values]
    count = len(level)
    while level:
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
                count, objects = count + len(value), objects + 1
            elif isinstance(value, list):
                inner.extend(value)
        count += len(inner)
        depth += bool(inner)
        level = inner
    has_long_number = any(_LONG_NUMBER.search(found.text) for found in values)
    return _Size(count, objects, depth, sum(len(found.text) for found in values), has_long_number)


def _place_of(path: list[str | int]) -> str:
    """Return the place of a value in an answer, e.g. `$.visits[2].city`."""
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return f"${parts}" if len(parts) <= MAX_PLACE else short_place(parts)


def _short(text: str) -> str:
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 1] + "…"
