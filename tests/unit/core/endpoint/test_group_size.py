"""How many texts go into one call: found where groups are faster, and left alone where they are not."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from obcd.core.endpoint.group_size import MISFITS, MOST_SECONDS, REST_TEXTS, ROUNDS, SIZES, GroupSize

#: Texts of one whole examination.
EXAMINED = ROUNDS * sum(size * calls for size, calls in SIZES.items())


#: {size of a call: texts a second}, as measured at v0.33 and v0.24
FASTER, SAME = {1: 248, 4: 290, 16: 314, 64: 364}, {1: 249, 4: 250, 16: 252, 64: 254}


def serve(finder: GroupSize, texts: int, speeds: Mapping[int, float], noise: float = 0.0, most: int = 64) -> list[int]:
    """Let a server take so many texts; return the sizes of the calls.

    Args:
        noise: Share by which the time of a call differs, at random.
        most: Most requests in a call, because the texts are long.
    """
    drawn, sizes = random.Random(7), list[int]()
    while sum(sizes) < texts:
        size = min(finder.now, most)
        sizes.append(size)
        finder.on_call(size, size, size / speeds[finder.now] * drawn.uniform(1 - noise, 1 + noise))
    return sizes


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize(
    ("speeds", "found"),
    [
        (FASTER, 64),
        (SAME, 1),
        ({1: 1000, 4: 3000, 16: 4800, 64: 4850}, 16),  # as good as, and its replies come sooner
        ({1: 1000, 4: 900, 16: 700, 64: 500}, 1),
    ],
)
def test_size_is_the_smallest_that_is_as_fast_as_any_and_clearly_faster_than_none(
    speeds: Mapping[int, float], noise: float, found: int
) -> None:
    finder = GroupSize()

    serve(finder, EXAMINED + 64, speeds, noise)

    assert finder.now in ({found} if not noise or found == 1 else {16, 64})


def test_examination_takes_few_texts_and_comes_again_rarely() -> None:
    finder = GroupSize()

    sizes = serve(finder, REST_TEXTS, FASTER)

    assert sum(size for size in sizes if size < 64) < 0.01 * REST_TEXTS
    assert finder.now == 64


def test_size_changes_only_where_another_one_is_clearly_faster() -> None:
    finder = GroupSize()
    serve(finder, EXAMINED + 64, FASTER)

    serve(finder, REST_TEXTS + EXAMINED + 64, {1: 250, 4: 250, 16: 250, 64: 240})
    assert finder.now == 64
    serve(finder, REST_TEXTS + EXAMINED + 64, {1: 250, 4: 200, 16: 200, 64: 200})

    assert finder.now == 1


def test_call_never_takes_long_where_texts_do() -> None:
    finder = GroupSize()

    sizes = serve(finder, 2 * EXAMINED, {1: 5.0, 4: 7.0, 16: 9.0, 64: 10.0})

    assert max(sizes) / 5.0 <= MOST_SECONDS
    assert finder.now == 4


def test_texts_too_long_for_a_size_do_not_keep_the_examination_waiting() -> None:
    finder = GroupSize()

    sizes = serve(finder, 4 * EXAMINED, {1: 200, 4: 500, 16: 700, 64: 700}, most=10)

    assert finder.now == 4
    assert sizes.count(10) <= ROUNDS * (MISFITS + 1)


def test_timeouts_make_groups_smaller_until_they_are_none() -> None:
    finder = GroupSize()
    serve(finder, EXAMINED + 64, FASTER)

    found = [finder.now]
    for _ in range(4):
        finder.on_timeout()
        found.append(finder.now)

    assert found == [64, 16, 4, 1, 1]
