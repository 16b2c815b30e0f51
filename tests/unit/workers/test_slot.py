"""The threads of a worker: every ticket and every probe comes back."""

from __future__ import annotations

import queue
import select
import threading
from pathlib import Path
from typing import Any

import pytest

from obcd.core.faults import Harm, Remedy, worker_fault
from obcd.workers import worker
from obcd.workers.channel import Channel, channel_pair
from obcd.workers.messages import Ask, Faulted, Probed, ProbeNow, Resize
from obcd.workers.worker import WorkerSpec
from tests.support import wait_until

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
    def fails(*_: object) -> Any:
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


def test_slots_grow_and_shrink_by_a_message_and_the_surplus_finishes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a worker of one slot, whose requests take until they are released
    asked, release = threading.Semaphore(0), threading.Semaphore(0)

    def ask(slot: Any, message: Ask) -> Faulted:
        asked.release()
        release.acquire()
        return Faulted(message.ticket, 0, worker_fault("over"))

    monkeypatch.setattr(worker._Slot, "_ask", ask)
    ours, theirs = channel_pair()
    made = worker._Worker(Channel(theirs), WorkerSpec("a", "http://127.0.0.1:1", 0, tmp_path, 1.0))

    def asked_at_once(count: int) -> bool:
        return all(asked.acquire(timeout=10) for _ in range(count)) and not asked.acquire(timeout=0.05)

    # when it grows to three, then three at once are asked
    made._take(Resize(3, 2.0))
    for ticket in range(8):
        made._take(Ask(ticket, "j", 0, 1))
    assert asked_at_once(3)

    # when it shrinks to one while all are busy, then grows to two before any has left
    made._take(Resize(1, 2.0))
    made._take(Resize(2, 7.0))
    release.release(3)

    # then all eight come back, and two slots are left, with the new limit
    release.release(5)
    answers: list[Any] = []
    while len(answers) < 8:
        assert select.select([ours], [], [], 10)[0]
        answers += ours.receive()
    assert sorted(item.ticket for item in answers) == list(range(8))
    wait_until(lambda: sum(not slot.has_left for slot in made._slots) == 2)
    assert {slot._transport.connect_timeout for slot in made._slots if not slot.has_left} == {7.0}
    made._take(Resize(0, 7.0))
    wait_until(lambda: all(slot.has_left for slot in made._slots))
    ours.close()
    theirs.close()
