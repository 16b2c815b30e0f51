"""The speed of a GPU is shared by what runs on it."""

from __future__ import annotations

import asyncio

import pytest

from obcd.standins.simulated.sharing import SharedRate, TokenClock


def test_one_alone_has_the_whole_speed() -> None:
    rate = SharedRate(10.0, 0.5)

    rate.start(1, 20.0, 100.0)

    assert rate.next_end() == pytest.approx(102.0)
    assert rate.take_done(102.0) == [1]
    assert rate.next_end() is None


def test_each_slows_as_more_run_and_speeds_up_when_one_stops() -> None:
    rate = SharedRate(10.0, 1.0)
    rate.start(1, 20.0, 0.0)
    rate.start(2, 20.0, 1.0)  # the first has made 10 by now, and both make 5 a second from here

    assert rate.next_end() == pytest.approx(3.0)
    rate.stop(2, 2.0)  # the first has made 15
    assert rate.next_end() == pytest.approx(2.5)
    assert rate.take_done(2.4) == []
    assert rate.take_done(2.5) == [1]


def test_total_speed_follows_the_formula() -> None:
    rate = SharedRate(60.0, 0.1)
    for key in range(8):
        rate.start(key, 60.0, 0.0)

    assert 8 * rate.rate() == pytest.approx(60.0 * 8 / 1.7)
    assert rate.take_done(1.7) == list(range(8))


def test_cancelled_and_failed_generations_leave_the_clock() -> None:
    async def story() -> tuple[bool, str]:
        clock = TokenClock(1000.0, 0.0)
        slow = asyncio.ensure_future(clock.spend(1e9))
        other = asyncio.ensure_future(clock.spend(1e9))
        await clock.spend(1.0)
        slow.cancel()
        await asyncio.wait([slow])
        clock.fail(ValueError("crash"))
        await asyncio.wait([other])
        await clock.spend(1.0)
        return slow.cancelled(), str(other.exception())

    assert asyncio.run(story()) == (True, "crash")
