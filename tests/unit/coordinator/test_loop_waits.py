"""The main loop's sleep: what ends it, what it tells, and how long the loop rests between two turns."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from obcd.coordinator.loop_waits import REST_SECONDS, REST_SHARE, TickPacing, Waker


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(2)]
    yield made
    for ends in made:
        for end in ends:
            os.close(end)


def test_sleep_tells_which_descriptors_can_be_read_and_only_of_those_it_was_given(pipes: list[tuple[int, int]]) -> None:
    # given
    waker = Waker()
    (first, to_first), (second, to_second) = pipes
    os.write(to_first, b".")
    os.write(to_second, b".")

    # then
    assert waker.sleep({first}, 60) == {first}
    assert waker.sleep({first, second}, 60) == {first, second}
    assert waker.sleep({second}, 60) == {second}


def test_descriptor_that_is_another_file_by_now_is_looked_at_as_that(pipes: list[tuple[int, int]]) -> None:
    # given a descriptor that was readable
    waker = Waker()
    (first, to_first), (second, to_second) = pipes
    os.write(to_first, b".")
    waker.sleep({first}, 60)

    # when its number goes to another file, as that of a worker does whose successor starts
    os.dup2(second, first)

    # then
    assert waker.sleep({first}, 0) == set()
    os.write(to_second, b".")
    assert waker.sleep({first}, 60) == {first}


def test_wake_ends_one_sleep() -> None:
    waker = Waker()
    waker.wake()
    waker.wake()
    assert waker._reader in waker.sleep(frozenset(), 60)
    assert waker.sleep(frozenset(), 0) == set()


def test_rest_is_a_small_share_of_what_requests_take_and_nothing_before_one_was_answered() -> None:
    pacing = TickPacing()
    assert pacing.seconds == 0
    for _ in range(100):
        pacing.on_answer(0.5)
    assert pacing.seconds == pytest.approx(0.5 * REST_SHARE, rel=0.01)
    for _ in range(100):
        pacing.on_answer(600.0)
    assert pacing.seconds == REST_SECONDS


def test_one_short_request_shortens_the_rest_at_once() -> None:
    pacing = TickPacing()
    for _ in range(100):
        pacing.on_answer(60.0)
    pacing.on_answer(0.01)
    assert pacing.seconds == pytest.approx(0.01 * REST_SHARE)
