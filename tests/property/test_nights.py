"""Nights with windows on a simulated clock: nothing is in flight outside, and nothing is lost or answered twice."""

from __future__ import annotations

import random
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obcd.core.forecasting.windows import Windows
from obcd.core.scheduling.attempt_count import FREE_FAULTS
from tests.standins.nights import ABORT_SECONDS, SimulatedCluster

BERLIN = ZoneInfo("Europe/Berlin")


def pass_nights(cluster: SimulatedCluster, seconds: float, jumps: list[tuple[float, float]] | None = None) -> None:
    """Let time pass; after each tick nothing may be in flight outside its windows except what is being aborted.

    Args:
        jumps: [(moment, seconds by which the clock on the wall jumps then)].
    """
    end, coming = cluster.now + seconds, sorted(jumps or [])
    closed_since: dict[int, float] = {}
    while True:
        cluster.tick()
        for ticket, lease in cluster.out.items():
            windows = (cluster.endpoint_windows.get(lease.endpoint), cluster.job_windows.get(lease.job))
            if any(one is not None and not one.is_open(cluster.at) for one in windows):
                since = closed_since.setdefault(ticket, cluster.now)
                assert cluster.now - since <= ABORT_SECONDS + 1e-6
        nearest = min(cluster.next_change(), coming[0][0] if coming else end, end)
        if nearest >= end:
            return
        cluster.now = max(nearest, cluster.now + 1e-6)
        while coming and coming[0][0] <= cluster.now:
            cluster.offset += coming.pop(0)[1]


def check_nothing_is_lost(cluster: SimulatedCluster) -> None:
    assert max(cluster.answers.values(), default=1) == 1  # paid once
    for job, backlog in cluster.backlogs.items():
        answered = sum(1 for name, _ in cluster.answers if name == job)
        assert backlog.unfinished == len(backlog) - answered
        assert not backlog.attempts  # nothing was charged


@pytest.mark.parametrize("day", ["2026-10-23", "2027-03-26"])
def test_nothing_is_in_flight_after_the_end_of_a_window(day: str) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=BERLIN).timestamp()
    cluster = SimulatedCluster(
        {"gpu0": 4, "gpu1": 2}, start, random.Random(day), mean_seconds=900.0, spread=1.0, limit=7200.0
    )
    cluster.endpoint_windows["gpu0"] = Windows.parse("20:00-02:30", BERLIN)
    cluster.add_job("night", 2000, Windows.parse(["mon-fri 22:00-06:00", "sat,sun 21:30-07:00"], BERLIN))
    cluster.add_job("evening", 2000, Windows.parse("18:00-23:00", BERLIN))

    pass_nights(cluster, 5 * 86400)

    check_nothing_is_lost(cluster)
    assert cluster.answers.total() > 500
    assert cluster.broken_off > 0
    assert cluster.broken_off < cluster.answers.total() / 20  # near the end only what should finish is sent


def test_request_that_no_window_is_long_enough_for_is_broken_off_for_ever_and_never_charged() -> None:
    start = datetime(2026, 12, 1, 12, 0, tzinfo=BERLIN).timestamp()
    cluster = SimulatedCluster({"gpu0": 1}, start, random.Random(1), mean_seconds=20_000.0, spread=0.0, limit=1e9)
    backlog = cluster.add_job("night", 1, Windows.parse("22:00-23:00", BERLIN))

    pass_nights(cluster, (FREE_FAULTS + 10) * 86400)

    assert cluster.broken_off == FREE_FAULTS + 10
    assert (backlog.unfinished, backlog.attempts) == (1, {})


@settings(max_examples=8, deadline=None)
@given(
    jumps=st.lists(
        st.tuples(st.floats(0, 2 * 86400), st.floats(-86400, 86400) | st.sampled_from([3600.0, -3600.0])), max_size=4
    ),
    hour=st.integers(0, 23),
    seed=st.integers(0, 99),
)
def test_clock_that_jumps_loses_nothing(jumps: list[tuple[float, float]], hour: int, seed: int) -> None:
    start = datetime(2027, 3, 27, hour, 0, tzinfo=BERLIN).timestamp()
    cluster = SimulatedCluster({"gpu0": 2, "gpu1": 1}, start, random.Random(seed), mean_seconds=1800.0, limit=1e9)
    cluster.endpoint_windows["gpu1"] = Windows.parse("20:00-07:00", BERLIN)
    cluster.add_job("night", 60, Windows.parse("22:00-06:00", BERLIN))
    cluster.add_job("always", 30)

    pass_nights(cluster, 3 * 86400, jumps)

    check_nothing_is_lost(cluster)
    pass_nights(cluster, 12 * 86400)
    assert all(backlog.unfinished == 0 for backlog in cluster.backlogs.values())


@pytest.mark.soak
def test_thousand_nights() -> None:
    start = datetime(2026, 1, 1, 12, 0, tzinfo=BERLIN).timestamp()
    cluster = SimulatedCluster(
        {"gpu0": 3, "gpu1": 2}, start, random.Random(20), mean_seconds=1500.0, spread=1.0, limit=7200
    )
    cluster.endpoint_windows["gpu1"] = Windows.parse("mon-fri 19:00-02:30", BERLIN)
    cluster.add_job("night", 200_000, Windows.parse("20:00-07:00", BERLIN))

    pass_nights(cluster, 1000 * 86400)

    check_nothing_is_lost(cluster)
    assert cluster.broken_off > 100


@pytest.mark.parametrize("of_job", [True, False])
def test_nothing_is_sent_that_could_not_finish_before_the_end(*, of_job: bool) -> None:
    start = datetime(2026, 12, 1, 12, 0, tzinfo=BERLIN).timestamp()
    cluster = SimulatedCluster({"gpu0": 4}, start, random.Random(1), mean_seconds=1000.0, spread=0.0, limit=1e9)
    window = Windows.parse("22:00-01:00", BERLIN)
    cluster.add_job("night", 200, window if of_job else None)
    if not of_job:
        cluster.endpoint_windows["gpu0"] = window

    pass_nights(cluster, 4 * 86400)

    assert cluster.broken_off == 0
    assert cluster.answers.total() == 4 * 4 * 9  # of ten that fit, one would end too near the end of the window
