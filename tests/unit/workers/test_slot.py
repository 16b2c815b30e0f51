"""The threads of a worker: every ticket and every probe comes back."""

from __future__ import annotations

import queue
import select
import threading
from pathlib import Path
from typing import Any

import pytest

from obcd.core.faults import Harm, Remedy
from obcd.workers import worker
from obcd.workers.channel import Channel, channel_pair
from obcd.workers.messages import Ask, Faulted, Probed, ProbeNow
from obcd.workers.worker import WorkerSpec

SECRET = "Name: John Smith"


@pytest.mark.parametrize("error", [ValueError(SECRET), RuntimeError(SECRET), RecursionError(SECRET), MemoryError()])
def test_error_that_nobody_expected_is_a_fault_and_the_thread_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    # given a job cache that fails as nothing should
    def fails(*_: object) -> Any:
        raise error

    monkeypatch.setattr(worker, "parse_line", fails)
    monkeypatch.setattr(worker, "read_request_line", fails)
    jobs = worker._JobCache(tmp_path)
    if isinstance(error, ValueError):  # that one is expected there
        monkeypatch.setattr(jobs, "read", lambda *_: (None, None))
    asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
    said: queue.SimpleQueue[Faulted] = queue.SimpleQueue()
    slot = worker._Slot(asks, worker._Loader(), jobs, WorkerSpec("a", "http://127.0.0.1:1", 1, tmp_path, 1.0), said.put)
    threading.Thread(target=slot.run, daemon=True).start()

    for ticket in (7, 8):
        # when
        asks.put(Ask(ticket, "j", 0, 1))
        answer = said.get(timeout=10)

        # then
        assert answer.ticket == ticket
        fault = answer.fault
        assert (fault.kind, fault.remedy, fault.costs_attempt, fault.harm) == (
            "worker_fault",
            Remedy.ELSEWHERE,
            True,
            Harm.NONE,
        )
        assert "Smith" not in fault.message
        assert slot.limit is None


def test_probe_that_fails_as_none_should_is_told_and_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: str) -> Any:
        raise AssertionError(SECRET)

    monkeypatch.setattr(worker, "probe", fails)
    ours, theirs = channel_pair()
    made = worker._Worker(Channel(theirs), WorkerSpec("a", "http://127.0.0.1:1", 0, tmp_path, 1.0))
    threading.Thread(target=made._probe_forever, daemon=True).start()

    for _ in range(2):
        select.select([ours], [], [], 10)
        (message,) = ours.receive()
        assert isinstance(message, Probed)
        assert (message.probe.failure or "").startswith("the worker failed while it probed it (AssertionError at ")
        made._take(ProbeNow())
    select.select([ours], [], [], 10)
    ours.receive()
    ours.close()
    theirs.close()
