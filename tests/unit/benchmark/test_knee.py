"""Where more in flight brings nothing more, on the shapes that servers have."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from obcd.benchmark.knee import Limit, advise, find_knee, find_server_slots, is_in_vain
from obcd.benchmark.samples import LoadStep

LOADS = (1, 2, 4, 8, 16, 32, 64, 128)


def curve(speed: Callable[[int], float], loads: tuple[int, ...] = LOADS) -> list[tuple[int, float]]:
    return [(load, speed(load)) for load in loads]


def step(in_flight: int, speed: float, busy: float | None = None) -> LoadStep:
    """Return a step at which the server worked on `busy` requests, on all of them where None."""
    return LoadStep(
        in_flight=in_flight,
        requests=32,
        requests_per_second=speed / 100,
        tokens_per_second=speed,
        p50_seconds=1.0,
        p95_seconds=1.0,
        wait_seconds=0.0,
        busy_slots=in_flight if busy is None else busy,
    )


def with_slots(slots: int, slowdown: float = 0.1) -> Callable[[int], float]:
    """Return the speed of a server of so many slots that slow each other down."""
    return lambda load: 60 * min(load, slots) / (1 + slowdown * (min(load, slots) - 1))


@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16, 32])
def test_linear_then_flat_has_its_knee_at_the_corner(slots: int) -> None:
    assert find_knee(curve(lambda load: 50.0 * min(load, slots))) == slots


@pytest.mark.parametrize("slots", [1, 4, 8, 16])
def test_slots_that_slow_each_other_down_have_theirs_where_they_are_all_in_use(slots: int) -> None:
    assert find_knee(curve(with_slots(slots))) == slots


def test_hyperbola_has_its_knee_where_doubling_brings_less_than_a_tenth() -> None:
    assert find_knee(curve(lambda load: load / (1 + 0.07 * (load - 1)))) == 64


def test_speed_that_falls_after_a_maximum_has_it_there() -> None:
    assert find_knee([(1, 60), (2, 115), (4, 200), (8, 310), (16, 240), (32, 130)]) == 8


def test_endpoint_that_only_loses_has_it_at_one() -> None:
    assert find_knee([(1, 60), (2, 58), (4, 50)]) == 1


@pytest.mark.parametrize("slots", [4, 8, 16])
def test_noise_moves_it_by_one_step_at_most(slots: int) -> None:
    for seed in range(300):
        noise = random.Random(seed)
        noisy = [(load, speed * noise.gauss(1.0, 0.03)) for load, speed in curve(with_slots(slots))]

        assert find_knee(noisy) in {slots // 2, slots, 2 * slots}


def test_single_step_is_its_own_knee() -> None:
    assert find_knee([(4, 100.0)]) == 4


def test_ramp_is_in_vain_after_two_steps_without_gain() -> None:
    assert not is_in_vain([100])
    assert not is_in_vain([100, 101])
    assert is_in_vain([100, 101, 99])
    assert not is_in_vain([100, 101, 150])
    assert is_in_vain([100, 180, 185, 190])


def test_slots_of_a_server_show_when_requests_wait() -> None:
    assert find_server_slots([step(load, 60.0 * load) for load in (1, 2, 4, 8)]) is None
    assert find_server_slots([step(1, 60), step(4, 200), step(8, 260, 6.7), step(16, 260, 6.1)]) == 6


def test_endpoint_of_one_slot_is_recognised() -> None:
    advice = advise([step(1, 60), step(2, 61, 1.05), step(4, 60, 1.02)])

    assert (advice.limit, advice.slots, advice.knee, advice.server_slots) == (Limit.ONE_SLOT, 1, 1, 1)
    assert advice.num_parallel > 1


def test_endpoint_that_is_fastest_with_all_its_slots_may_want_more_of_them() -> None:
    advice = advise([step(1, 60), step(2, 110), step(4, 200), step(8, 270, 6.0), step(16, 270, 6.0)])

    assert (advice.limit, advice.slots, advice.num_parallel) == (Limit.SLOTS, 6, 12)


def test_endpoint_whose_card_is_full_before_its_slots_needs_fewer() -> None:
    advice = advise([step(1, 60), step(2, 110), step(4, 200), step(8, 205), step(16, 206), step(32, 206, 16.0)])

    assert (advice.limit, advice.slots, advice.num_parallel, advice.server_slots) == (Limit.CARD, 4, 4, 16)


def test_endpoint_that_still_grows_has_no_knee_yet() -> None:
    advice = advise([step(load, 50.0 * load) for load in (1, 2, 4)])

    assert (advice.limit, advice.slots) == (Limit.OPEN, 4)
