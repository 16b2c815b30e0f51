"""Who is not like the others."""

from __future__ import annotations

import random

import pytest

from obcd.benchmark.outliers import find_majority, find_outliers, is_rate_high


def test_one_three_times_slower_is_out_of_line() -> None:
    found = find_outliers({"a": 300.0, "b": 310.0, "c": 100.0, "d": 305.0})

    assert found == {"c": pytest.approx(100 / 302.5)}


def test_one_that_is_much_faster_is_too() -> None:
    assert list(find_outliers({"a": 300.0, "b": 310.0, "c": 900.0})) == ["c"]


def test_equal_cards_are_alike_within_some_percent() -> None:
    for seed in range(200):
        drawn = random.Random(seed)
        assert find_outliers({str(number): drawn.gauss(300.0, 9.0) for number in range(8)}) == {}


def test_identical_values_do_not_make_a_small_difference_large() -> None:
    assert find_outliers({"a": 300.0, "b": 300.0, "c": 300.0, "d": 290.0}) == {}


def test_one_that_is_off_is_seen_among_cards_that_differ_by_some_percent() -> None:
    assert list(find_outliers({"a": 300.0, "b": 310.0, "c": 290.0, "d": 305.0, "e": 180.0})) == ["e"]


def test_of_two_nobody_is_odd() -> None:
    assert find_outliers({"a": 300.0, "b": 10.0}) == {}
    assert find_outliers({}) == {}


def test_two_of_five_that_are_odd_do_not_hide_each_other() -> None:
    assert set(find_outliers({"a": 300, "b": 305, "c": 302, "d": 90, "e": 95})) == {"d", "e"}


def test_two_kinds_of_cards_are_no_outliers() -> None:
    assert find_outliers({"a": 300, "b": 300, "c": 100, "d": 100}) == {}


def test_nothing_answers_at_all_is_no_division_by_zero() -> None:
    assert find_outliers({"a": 0.0, "b": 0.0, "c": 0.0}) == {}


@pytest.mark.parametrize(
    ("cases", "total", "others", "is_high"),
    [
        (10, 2000, [(0, 2000)] * 3, True),  # one in two hundred, where the others have none
        (2, 2000, [(0, 2000)] * 3, False),  # two may be chance
        (440, 2000, [(400, 2000), (380, 2000), (420, 2000)], False),  # all differ by themselves
        (1200, 2000, [(400, 2000), (380, 2000), (420, 2000)], True),
        (100, 2000, [(0, 2000), (110, 2000), (0, 2000), (0, 2000)], True),  # two odd ones among five
        (4500, 20_000, [(4000, 20_000)] * 3, False),  # no chance, and yet nothing: answers that differ come in bursts
        (3, 30, [(2, 40)] * 3, False),  # twice the rate, and yet chance
        (5, 20, [], False),  # nobody to compare with
        (5, 20, [(0, 0)], False),
    ],
)
def test_rate_is_high_against_the_others(
    cases: int, total: int, others: list[tuple[int, int]], *, is_high: bool
) -> None:
    assert is_rate_high(cases, total, others) is is_high


def test_majority_is_more_than_half() -> None:
    assert find_majority(["x", "x", "y"]) == "x"
    assert find_majority(["x", "y"]) is None
    assert find_majority(["x", "y", "z"]) is None
    assert find_majority([]) is None
