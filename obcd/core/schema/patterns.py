"""Patterns of strangers: what is too large to be compiled is refused, what was compiled is kept within bounds. Pure.

By `regex`, not `re`: its searches let go of the interpreter lock and take a limit of time. It knows `\\p{L}` besides,
which patterns of JSON schemas may have.
"""

from __future__ import annotations

import re
import threading
from math import prod
from typing import TYPE_CHECKING

from obcd.errors import ObcdError

if TYPE_CHECKING:
    import regex

#: Longest pattern, in characters: `regex` compiles in Python, 5 ms for a thousand characters.
MAX_PATTERN = 5000
#: Most places of a compiled pattern: `regex` writes `(a{1000}){1000}` out, half a second and 300 MB (2026.11).
MAX_PLACES = 100_000
#: Most groups of a compiled pattern: `regex` goes along empty ones from each to the end, `(()()){9000}` for 18 s.
MAX_GROUPS = 3000
#: Most places of all compiled patterns that are kept: 100 MB of the worst.
KEPT_PLACES = 300_000

#: A count behind a group, or behind what may be the end of one (a comment, a set): it multiplies what stands before it.
_OF_GROUPS = re.compile(r"(?<=[)\s}?*+])\{\s*(\d+)")
#: Any other count.
_OF_CHARACTERS = re.compile(r"(?<![)\s}?*+])\{\s*(\d+)")
#: A property: its braces hold no count, and what it stands for is one character.
_PROPERTY = re.compile(r"\\[pP]\{\^?[A-Za-z][^{}]*\}")
#: The flag that lets comments stand within a count.
_VERBOSE = re.compile(r"\(\?[\w-]*x[\w-]*[:)]")


class PatternError(ObcdError, ValueError):
    """A text is no pattern, or one that is too large to search with; its text is the reason."""


class Patterns:
    """Compiled patterns that were asked for, until they are too large together: then all are forgotten. Any thread."""

    def __init__(self) -> None:
        self._known: dict[str, regex.Pattern[str]] = {}
        self._places = 0
        self._lock = threading.Lock()

    def find(self, pattern: str) -> regex.Pattern[str]:
        """Return a pattern as `regex` takes it.

        Raises:
            PatternError: If it is none, or too large.
        """
        found = self._known.get(pattern)
        return self._add(pattern) if found is None else found

    def _add(self, pattern: str) -> regex.Pattern[str]:
        import regex  # noqa: PLC0415 - ten milliseconds, and most commands have no pattern

        places, _ = _size_of(pattern)
        try:
            compiled = regex.compile(pattern, cache_pattern=False)
        except (regex.error, OverflowError, RecursionError) as error:
            raise PatternError(str(error)) from error
        with self._lock:
            if self._places + places > KEPT_PLACES:
                self._known, self._places = {}, 0
            self._known[pattern] = compiled
            self._places += places
        return compiled


_patterns = Patterns()


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Return a pattern out of those that this process keeps; see `Patterns.find`."""
    return _patterns.find(pattern)


def steps_of(pattern: str) -> int:
    """Return what it takes to compile a pattern, in steps of some five microseconds (see `limited`).

    Raises:
        PatternError: If it is too large.
    """
    places, groups = _size_of(pattern)
    return len(pattern) + places // 10 + groups * groups // 500


def _size_of(pattern: str) -> tuple[int, int]:
    """Return no fewer places and groups than a pattern has when it is compiled, however they lie in each other."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"it is longer than {MAX_PATTERN} characters")
    if _VERBOSE.search(pattern):
        raise PatternError("the flag x is not taken: write it without comments")
    plain = _PROPERTY.sub("p", pattern)
    written = len(pattern) + sum(map(int, _OF_CHARACTERS.findall(plain)))
    times = prod(max(1, int(count)) for count in _OF_GROUPS.findall(plain))
    places, groups = written * times, pattern.count("(") * times
    if places > MAX_PLACES or groups > MAX_GROUPS:
        raise PatternError("its counts multiply to too many places: write smaller ones, or * and +")
    return places, groups
