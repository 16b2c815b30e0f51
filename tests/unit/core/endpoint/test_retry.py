"""Pauses grow, stay within their limit, and differ between requests."""

from __future__ import annotations

import pytest

from obcd.core.endpoint.retry import REQUEST_BASE, REQUEST_LIMIT, pause


@pytest.mark.parametrize("count", range(1, 12))
def test_pause_doubles_up_to_the_limit_less_a_quarter_at_most(count: int) -> None:
    full = min(REQUEST_LIMIT, REQUEST_BASE * 2 ** (count - 1))

    for key in map(str, range(50)):
        assert full * 0.75 <= pause(count, REQUEST_BASE, REQUEST_LIMIT, key) <= full


def test_what_failed_together_does_not_come_back_together() -> None:
    assert len({pause(3, REQUEST_BASE, REQUEST_LIMIT, f"job/{ordinal}") for ordinal in range(100)}) > 90


def test_same_inputs_wait_the_same_time() -> None:
    assert pause(2, 1.0, 60.0, "a") == pause(2, 1.0, 60.0, "a")


@pytest.mark.parametrize("count", [-5, 0, 1])
def test_count_below_one_is_the_first(count: int) -> None:
    assert 0.75 <= pause(count, 1.0, 60.0) <= 1.0


def test_endless_failures_do_not_overflow() -> None:
    assert 45.0 <= pause(10**9, 1.0, 60.0) <= 60.0
