"""The limit of a request that is repaired: each repair may take as long as a request, all of them no longer."""

from __future__ import annotations

import pytest

from obcd.ollama.transport import Transport
from obcd.workers.slots import in_flight
from obcd.workers.slots.in_flight import InFlight


@pytest.fixture
def request_(monkeypatch: pytest.MonkeyPatch) -> InFlight:
    monkeypatch.setattr(in_flight, "monotonic", lambda: 100.0)
    made = InFlight(Transport("http://127.0.0.1:1", 1.0))
    made.begin([7], set())
    made.limit = 105.0
    return made


@pytest.mark.parametrize(("last", "limit"), [(600.0, 130.0), (120.0, 120.0)])
def test_repair_gets_a_limit_of_its_own_within_that_of_all(request_: InFlight, last: float, limit: float) -> None:
    assert request_.extend(took=4.0, seconds=30.0, last=last)
    assert request_.limit == limit


def test_repair_that_would_surely_take_too_long_is_not_begun(request_: InFlight) -> None:
    assert not request_.extend(took=4.0, seconds=30.0, last=103.0)
    assert request_.limit == 105.0


def test_limit_that_is_over_stays_over(request_: InFlight) -> None:
    request_.enforce_limit(106.0)

    assert request_.extend(took=1.0, seconds=30.0, last=600.0)
    assert request_.limit is None  # what is posted next is broken off at once
