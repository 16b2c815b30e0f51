"""The limit of a request that is repaired: each repair may take as long as a request, all of them no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from obcd.core.endpoint.deadlines import Deadlines
from obcd.spool.job.cache import AnswerCache
from obcd.workers import worker
from obcd.workers.job_requests import JobRequests
from obcd.workers.loader import Loader, Preflight
from obcd.workers.recovery_driver import RecoveryDriver
from obcd.workers.worker import WorkerSpec


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(worker, "monotonic", lambda: 100.0)
    loader = Loader("http://127.0.0.1:1", Preflight())
    recovery = RecoveryDriver("http://127.0.0.1:1", loader, Deadlines(), lambda: None, lambda _: None)
    common = worker._Common(loader, recovery, JobRequests(tmp_path), AnswerCache(tmp_path / "cache.sqlite", print))
    made = worker._Slot(common, WorkerSpec("a", "http://127.0.0.1:1", tmp_path, 1.0), lambda _: None)
    made._ticket, made.limit = 7, 105.0
    return made


@pytest.mark.parametrize(("last", "limit"), [(600.0, 130.0), (120.0, 120.0)])
def test_repair_gets_a_limit_of_its_own_within_that_of_all(slot: Any, last: float, limit: float) -> None:
    assert slot._extend(7, took=4.0, seconds=30.0, last=last)
    assert slot.limit == limit


def test_repair_that_would_surely_take_too_long_is_not_begun(slot: Any) -> None:
    assert not slot._extend(7, took=4.0, seconds=30.0, last=103.0)
    assert slot.limit == 105.0


def test_limit_that_is_over_stays_over(slot: Any) -> None:
    slot.enforce_limit(106.0)

    assert slot._extend(7, took=1.0, seconds=30.0, last=600.0)
    assert slot.limit is None  # what is posted next is broken off at once
