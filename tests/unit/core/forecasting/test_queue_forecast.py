from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from obcd.core.forecasting.queue_forecast import Capacity, Load, forecast
from obcd.core.forecasting.windows import Windows
from obcd.core.pending.fair_share import Rank

BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 12, 1, 22, 0, tzinfo=BERLIN).timestamp()
HOUR = 3600.0


def load(job: str, hours: float, requests: int = 10_000, submitter: int = 1, **more: object) -> Load:
    return Load(job=job, submitter=submitter, requests=requests, seconds=hours * HOUR * 10, **more)  # type: ignore[arg-type]


def ends(
    *loads: Load, sites: tuple[Capacity, ...] = (Capacity(name="gpu0", slots=10),), active_jobs: int = 32
) -> dict[str, float]:
    """Return the hours until each job ends; ten slots do a job of one hour in one hour."""
    found = forecast(loads, sites, AT, active_jobs=active_jobs)
    return {job: round((end - AT) / HOUR, 2) if end is not None else -1 for job, end in found.items()}


def test_job_alone_takes_its_work_over_the_slots() -> None:
    assert ends(load("a", 2)) == {"a": 2.0}


def test_jobs_of_one_submitter_take_turns() -> None:
    assert ends(load("a", 1), load("b", 2)) == {"a": 3.0, "b": 3.0}  # by requests: those of b take twice as long
    assert ends(load("a", 1, 1000), load("b", 2, 2000)) == {"a": 2.0, "b": 3.0}


def test_submitter_with_many_jobs_gets_no_more_than_one_with_a_single_one() -> None:
    many = [load(f"m{number}", 1, submitter=1) for number in range(4)]

    assert ends(*many, load("single", 1, submitter=2))["single"] == 2.0


def test_higher_rank_of_the_same_submitter_goes_first_and_takes_nothing_from_others() -> None:
    urgent, usual = load("urgent", 1, rank=Rank(0, 1)), load("usual", 1)

    assert ends(urgent, usual) == {"urgent": 1.0, "usual": 2.0}
    other = load("other", 3, 30_000, submitter=2)
    assert ends(urgent, usual, other) == {"urgent": 2.0, "usual": 4.0, "other": 5.0}
    assert ends(load("urgent", 1), usual, other)["other"] == 5.0


def test_daemons_rank_goes_before_all() -> None:
    assert ends(load("a", 1, rank=Rank(1, 1)), load("b", 1, submitter=2)) == {"a": 1.0, "b": 2.0}


def test_job_that_waits_in_line_starts_when_another_ends() -> None:
    loads = load("a", 1), load("b", 1, is_active=False), load("c", 1, submitter=2, is_active=False)

    assert ends(*loads, active_jobs=1) == {"a": 2.0, "b": 3.0, "c": 2.0}


def test_window_of_the_job_stops_its_clock() -> None:
    nights = Windows.parse("20:00-07:00", BERLIN)

    # Nine hours are left of this night; the tenth is in the next one, and before 07:00 some seconds are lost.
    assert ends(load("a", 10, windows=nights))["a"] == pytest.approx(23.0, abs=0.02)
    assert ends(load("a", 10, windows=nights), load("b", 10, 10_000, 2)) == {
        "a": pytest.approx(27.5, abs=0.02),  # half of nine hours, then all of the next night
        "b": pytest.approx(14.5, abs=0.02),
    }


def test_long_requests_lose_more_at_the_end_of_a_window() -> None:
    nights = Windows.parse("20:00-07:00", BERLIN)

    assert ends(load("a", 9.5, 100, windows=nights))["a"] == pytest.approx(22.5 + 1.25 * 0.95, abs=0.2)


def test_window_of_an_endpoint_takes_its_slots_away() -> None:
    sites = (
        Capacity(name="gpu0", slots=10),
        Capacity(name="gpu1", slots=10, windows=Windows.parse("20:00-23:00", BERLIN)),
    )

    assert ends(load("a", 4), sites=sites)["a"] == pytest.approx(3.0, abs=0.02)
    assert ends(load("a", 4, sites=frozenset({"gpu0"})), sites=sites)["a"] == pytest.approx(4.0, abs=0.02)


def test_job_that_no_endpoint_serves_has_no_foreseeable_end() -> None:
    assert ends(load("a", 1, sites=frozenset()), load("b", 1)) == {"a": -1, "b": 1.0}
    assert ends(load("a", 1), sites=()) == {"a": -1}
    assert ends(load("a", 24 * 365)) == {"a": -1}


def test_few_requests_cannot_use_all_slots() -> None:
    two = load("two", 0.2, 2)  # an hour each
    assert ends(two)["two"] == 1.0
    assert ends(two, load("a", 1, submitter=2))["a"] == pytest.approx(1.2, abs=0.05)


def test_spread_of_the_last_requests_is_added_to_the_end() -> None:
    assert ends(load("a", 1, spread=600.0))["a"] == pytest.approx(1 + 2.15 / 6, abs=0.01)


def test_job_without_requests_ends_now() -> None:
    assert ends(load("a", 0, 0)) == {"a": 0.0}
