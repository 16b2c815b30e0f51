from __future__ import annotations

import pytest

from obcd.text import duration, join_lines, one_line, plural, printable
from tests.golden.wording import wording


def test_printable_text_moves_no_cursor_and_hides_nothing() -> None:
    assert printable("a\x1b[2J\u202e\\\udcff é") == "a\\x1b[2J\\u202e\\\\\\udcff é"


def test_line_stays_one_line_and_what_is_escaped_is_not_escaped_again() -> None:
    assert one_line("a\nb\x1b") == "a\\nb\\x1b"
    assert one_line("a\\x1b") == "a\\x1b"


def test_fault_of_several_lines_reads_as_one() -> None:
    fault = "the configuration x has 2 faults:\n  at a: b\n  at c: d"

    assert join_lines(fault, 400) == wording("the-configuration-x-has-2-faults")
    assert join_lines("x" * 900, 400) == "x" * 399 + "…"


@pytest.mark.parametrize(
    ("count", "nouns", "said"),
    [(0, "", "0 files"), (1, "", "1 file"), (30000, "", "30 000 files"), (2, "of them", "2 of them")],
)
def test_noun_agrees_with_its_number(count: int, nouns: str, said: str) -> None:
    assert plural(count, "file", nouns) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (-1.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200.0, "3 min 20 s"),
        (3600.0, "1 h 00 min"),
        (7500.0, "2 h 05 min"),
    ],
)
def test_span_is_said_as_people_say_it(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said
