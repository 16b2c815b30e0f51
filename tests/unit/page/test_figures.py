from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obcd.page import figures

GAP = "\u202f"


@pytest.mark.parametrize(("number", "text"), [
    (0, "0"), (999, "999"), (12345, f"12{GAP}345"), (-5, "0"), (math.nan, "0"),
    (10**400, f"1{GAP}000{GAP}000{GAP}000{GAP}000{GAP}000"),
])  # fmt: skip
def test_count_groups_its_digits_and_is_bounded(number: float, text: str) -> None:
    assert figures.count(number) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (0.042, "0.04"), (7.26, "7.3"), (128.4, "128"), (9.96, "10.0")])
def test_rate_has_two_or_three_digits(number: float, text: str) -> None:
    assert figures.rate(number) == text


@pytest.mark.parametrize(("part", "whole", "text"), [
    (0, 0, "0 %"), (1, 3, "33 %"), (999, 1000, "99 %"), (1000, 1000, "100 %"), (5, 3, "100 %"), (-1, 3, "0 %"),
])  # fmt: skip
def test_only_what_is_whole_is_a_hundred_percent(part: int, whole: int, text: str) -> None:
    assert figures.percent(figures.share(part, whole)).replace(GAP, " ") == text


@pytest.mark.parametrize(("number", "text"), [
    (None, "–"), (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (85_899_345_920, "85.9 GB"), (999_600_000, "1.0 GB"),
])  # fmt: skip
def test_bytes_have_their_unit(number: int | None, text: str) -> None:
    assert figures.size(number).replace(GAP, " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (42.0, "42 s"), (86400.0, "24 h 00 min"), (1e300, "11574 days")]
)
def test_span_is_for_people_and_bounded(seconds: float | None, text: str) -> None:
    assert figures.span(seconds) == text


@given(st.floats() | st.integers())
def test_no_number_fails(number: float) -> None:
    made = (
        figures.count(number),
        figures.rate(number),
        figures.span(number),
        figures.moment(number),
        figures.hour(number),
    )

    assert all(len(text) < 40 for text in made)
    assert figures.machine_time(number).endswith("Z")
    assert 0 <= figures.share(number, 7) <= 1
