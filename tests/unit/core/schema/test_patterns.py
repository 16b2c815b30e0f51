"""Patterns that are taken, and those that are too large to be compiled."""

from __future__ import annotations

import pytest

from obcd.core.schema import patterns
from obcd.core.schema.patterns import PatternError, Patterns, compile_pattern


@pytest.mark.parametrize(
    "pattern",
    ["(a{1000}){1000}", "((a{99}){99}){99}", "a{99999999}", "(b{1000}[(]a){1000}", "(?:a{1000,})(?#c){1000}",
     r"(a{1000}\)){1000}", r"(\p{L}{1000}){1000}", r"(a{999}\\p{999999})",
     "(()()){2000}", "(?ix)a{5}", "(", r"\1", "a{4294967296}", "(" * 2000 + ")" * 2000],
)  # fmt: skip
def test_pattern_that_is_none_or_too_large_is_never_searched_with(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern)


def test_patterns_are_kept_until_they_are_too_large_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "KEPT_PLACES", 2 * len("first"))
    kept = Patterns()
    first = kept.find("first")

    assert kept.find("first") is first
    assert kept.find("second").search("a second") is not None
    assert kept.find("first") is not first
