"""Long lines come first in a job whose own answers bear out that they take long, and in no other."""

from __future__ import annotations

import random

import pytest

from obcd.core.pending.backlog import Backlog
from obcd.core.pending.longest_first import KNOWN, MOST_REQUESTS, SIZES, LongestFirst, sort_sizes
from obcd.core.request.records import Signature

MODEL, OTHER = Signature("m:latest", ()), Signature("n:latest", ())
NOBODY: frozenset[str] = frozenset()


def make_backlog(lengths: list[int]) -> Backlog:
    return Backlog("j", bytes(len(lengths)), (MODEL,), sizes=sort_sizes(lengths), limit=4)


def take(backlog: Backlog, number: int = 0) -> int:
    ordinal = backlog.lease(number, "a", NOBODY, 0.0)
    assert ordinal is not None
    return ordinal


def test_sizes_are_eighths_of_the_lines() -> None:
    lengths = random.Random(1).sample(range(1000), 800)
    sizes = sort_sizes(lengths)
    assert [sizes.count(size) for size in range(SIZES)] == [100] * SIZES
    assert max(length for length, size in zip(lengths, sizes, strict=True) if size == 0) < min(
        length for length, size in zip(lengths, sizes, strict=True) if size == 7
    )


@pytest.mark.parametrize("lengths", [[], [5] * 1000, list(range(KNOWN)), range(MOST_REQUESTS + 1)])
def test_there_are_none_where_they_are_of_no_use(lengths: list[int]) -> None:
    assert sort_sizes(lengths) == b""


def test_long_lines_come_first_once_answers_were_as_long_as_their_lines() -> None:
    # given
    dice = random.Random(1)
    lengths = [dice.randrange(10, 1000) for _ in range(400)]
    backlog = make_backlog(lengths)

    # when
    first = [take(backlog) for _ in range(KNOWN)]
    for ordinal in first:
        backlog.on_answer(ordinal, lengths[ordinal] * dice.uniform(0.01, 0.02))
        backlog.end(ordinal)
    rest = [take(backlog) for _ in range(400 - KNOWN)]

    # then
    assert first == list(range(KNOWN))
    assert sorted(rest) == list(range(KNOWN, 400))
    sizes = sort_sizes(lengths)
    assert rest == sorted(rest, key=lambda ordinal: (-sizes[ordinal], ordinal))
    assert backlog.lease(0, "a", NOBODY, 0.0) is None


@pytest.mark.parametrize("time", [lambda length: 1.0, lambda length: 1000.0 / length, lambda length: 0.0])
def test_where_length_does_not_tell_the_order_stays(time) -> None:  # type: ignore[no-untyped-def]
    lengths = [10 + 7 * number % 400 for number in range(400)]
    backlog = make_backlog(lengths)
    for expected in range(400):
        ordinal = take(backlog)
        assert ordinal == expected
        backlog.on_answer(ordinal, time(lengths[ordinal]))


def test_what_is_given_back_comes_again_and_nothing_twice() -> None:
    # given a job in which long lines come first by now
    lengths = list(range(1, 401))
    backlog = make_backlog(lengths)
    for _ in range(KNOWN):
        backlog.on_answer(take(backlog), 1.0)
    for length in range(400 - KNOWN, 400):
        backlog.on_answer(length, float(length))
    taken = [take(backlog) for _ in range(100)]

    # when
    backlog.postpone(taken[0], 1.0)
    backlog.postpone(taken[1], 1.0)

    # then
    rest = []
    while (ordinal := backlog.lease(0, "a", frozenset({"a"}), 5.0)) is not None:
        rest.append(ordinal)
    assert sorted([*taken[2:], *rest]) == list(range(KNOWN, 400))


def test_each_signature_keeps_its_own() -> None:
    lengths, column = list(range(1, 401)), bytes(number % 2 for number in range(400))
    backlog = Backlog("j", bytes(400), (MODEL, OTHER), column, sizes=sort_sizes(lengths), limit=4)
    for ordinal in range(KNOWN):
        backlog.on_answer(ordinal, 2.0**ordinal)
    for ordinal in range(400 - KNOWN, 400):
        backlog.on_answer(ordinal, 2.0**ordinal)

    assert (take(backlog, 0), take(backlog, 1)) == (350, 351)
    odd = {take(backlog, 1) for _ in range(199)}
    assert {ordinal % 2 for ordinal in odd} == {1}


def test_correlation_is_that_of_size_and_logarithm() -> None:
    tells, nothing = LongestFirst(), LongestFirst()
    for size in range(8):
        tells.note(size, 3.0**size)
        nothing.note(3, 3.0**size)
    assert tells.correlation == pytest.approx(1.0)
    assert nothing.correlation == 0.0
