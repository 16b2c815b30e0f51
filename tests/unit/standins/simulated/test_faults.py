"""Faults come when they are asked for, as often as asked, and by chance that can be repeated."""

from __future__ import annotations

import pytest

from obcd.errors import UsageError
from obcd.standins.simulated.faults import SimulatedFault, drawn_faults, marked_faults, parse_rate
from obcd.standins.wire.engine import EngineError


@pytest.mark.parametrize(
    ("prompt", "attempt", "faults"),
    [
        ("nothing", 1, []),
        ("please [[simulate:crash]] now", 7, [SimulatedFault("crash")]),
        ("[[simulate:status=503]]", 1, [SimulatedFault("status", 503.0)]),
        ("[[simulate:seconds=0.2]][[simulate:length]]", 1, [SimulatedFault("seconds", 0.2), SimulatedFault("length")]),
        ("[[simulate:hang*2]]", 2, [SimulatedFault("hang", 0.0, 2)]),
        ("[[simulate:hang*2]]", 3, []),
        ("[[simulate:status=500*1]]", 1, [SimulatedFault("status", 500.0, 1)]),
    ],
)
def test_markers_are_read(prompt: str, attempt: int, faults: list[SimulatedFault]) -> None:
    assert marked_faults(prompt, attempt) == faults


@pytest.mark.parametrize("prompt", ["[[simulate:explode]]", "[[simulate:status]]", "[[simulate:huge=1.2.3]]"])
def test_marker_that_means_nothing_is_refused_and_the_kinds_are_listed(prompt: str) -> None:
    with pytest.raises(EngineError, match="obcd simulate") as caught:
        marked_faults(prompt, 1)
    assert caught.value.status == 400


def test_rates_hit_their_share_and_each_attempt_anew() -> None:
    rates = [parse_rate("crash=0.25")]

    first = [bool(drawn_faults(rates, f"p{index}", 1)) for index in range(2000)]
    again = [bool(drawn_faults(rates, f"p{index}", 1)) for index in range(2000)]
    second = [bool(drawn_faults(rates, f"p{index}", 2)) for index in range(2000)]

    assert first == again != second
    assert sum(first) == pytest.approx(500, abs=80)
    assert sum(one and two for one, two in zip(first, second, strict=True)) == pytest.approx(125, abs=50)


def test_rate_may_carry_a_value() -> None:
    assert parse_rate("status=503=0.1").fault == SimulatedFault("status", 503.0)


@pytest.mark.parametrize("text", ["crash", "crash=2", "explode=0.1", "status=0.1", "crash=often", "=0.5"])
def test_rate_that_cannot_be_meant_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"--fault"):
        parse_rate(text)
