"""The desk: how often it looks at the inbox, and what it says of what it took. The clerk is asked and never starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.coordinator import desk as module
from obcd.coordinator.clerk import Done, Failed
from obcd.coordinator.desk import (
    DISK_SECONDS,
    LEAST_PAUSE,
    MOST_TOLD,
    NO_ROOM,
    PAUSE_BY_COST,
    SCAN_IDLE,
    Desk,
)
from obcd.spool.intake import Accepted, Order
from obcd.spool.job import JobHeader
from obcd.spool.recovery import Claim
from tests.unit.spool.spools import SETTINGS, drop_of, make_layout, put, put_marker

Then = Callable[[Done | Failed], None]


class Errands:
    """Stands for the clerk: keeps what it is asked."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self.asked: list[tuple[Then, Order]] = []

    def ask(self, then: Then, name: str, *arguments: Any) -> None:
        self.asked.append((then, arguments[0]))

    def accept(self, requests: int = 1, bad_lines: int = 0) -> None:
        """Answer the oldest errand: the file became a job."""
        then, order = self.asked.pop(0)
        (self._inbox / order.drop.key.name).unlink()
        header = JobHeader(
            id=order.job, name=order.drop.key.name, requests=requests, settings=SETTINGS, bad_lines=bad_lines
        )
        then(Done(Accepted(header)))


class Bench:
    """A desk over a real inbox, and a count of its scans."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = make_layout(root)
        self.clerk = Errands(self.layout.inbox)
        self.jobs: list[JobHeader] = []
        self.desk = Desk(Settings(), self.layout, self.clerk, self.jobs.append, tuple)  # type: ignore[arg-type]
        self.scans = 0
        self.cost = 0.0
        self._clock = 0.0
        scan = self.desk._inbox.scan

        def counted(now: float) -> Any:
            self.scans += 1
            self._clock += self.cost
            return scan(now)

        monkeypatch.setattr(self.desk._inbox, "scan", counted)
        monkeypatch.setattr(module, "monotonic", lambda: self._clock)

    def drop(self, name: str) -> None:
        put_marker(put(self.layout, b'{"prompt": "one"}\n', name))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("cost", [0.0, 0.25])
def test_scans_of_a_burst_are_as_many_as_its_time_allows_and_not_as_its_files(bench: Bench, cost: float) -> None:
    bench.cost = cost
    for number in range(50):
        bench.drop(f"{number}.jsonl")
    bench.desk.turn(0.0)
    assert len(bench.clerk.asked) == 50

    turns = [number / 50 for number in range(1, 51)]  # a verdict every 20 ms for a second
    for now in turns:
        bench.clerk.accept()
        bench.desk.turn(now)

    assert len(bench.jobs) == 50
    assert bench.scans <= 2 + 1.0 / max(LEAST_PAUSE, PAUSE_BY_COST * cost)


def test_single_drop_is_looked_at_in_the_turn_that_its_event_wakes(bench: Bench) -> None:
    bench.desk.turn(0.0)
    bench.drop("a.jsonl")

    bench.desk.wake()
    assert bench.desk.next_scan() <= 1.0
    bench.desk.turn(1.0)

    assert [order.drop.key.name for _, order in bench.clerk.asked] == ["a.jsonl"]


def test_newer_file_of_a_name_is_taken_soon_after_the_verdict_on_the_older(bench: Bench) -> None:
    bench.drop("a.jsonl")
    bench.desk.turn(0.0)

    bench.clerk.accept()
    bench.drop("a.jsonl")
    assert bench.desk.next_scan() == LEAST_PAUSE
    bench.desk.turn(LEAST_PAUSE)

    assert len(bench.clerk.asked) == 1


def test_another_configuration_is_a_scan_at_once(bench: Bench) -> None:
    bench.desk.turn(0.0)

    bench.desk.configure(Settings())

    assert bench.desk.next_scan() == 0.0


@pytest.mark.parametrize(
    ("requests", "bad", "told"),
    [(1, 0, "1 request"), (1, 1, "1 request, 1 of them a bad line"), (30, 2, "30 requests, 2 of them bad lines")],
)
def test_job_is_told_with_its_size(
    bench: Bench, caplog: pytest.LogCaptureFixture, requests: int, bad: int, told: str
) -> None:
    bench.drop("a.jsonl")
    bench.desk.turn(0.0)

    with caplog.at_level(logging.INFO):
        bench.clerk.accept(requests, bad)

    assert caplog.messages == [f"a.jsonl accepted as job {bench.jobs[0].id}: {told}"]


# --- room, and shares ------------------------------------------------------------------------------------------------


def test_while_there_is_no_room_files_lie_where_they_are_and_some_are_told_why(bench: Bench) -> None:
    bench.desk.admit(False)
    for number in range(MOST_TOLD + 20):
        bench.drop(f"{number}.jsonl")
    for now in (0.0, 5.0, 10.0, 15.0):
        bench.desk.turn(now)
        assert bench.clerk.asked == []
    assert list(bench.desk.waiting.values()) == [NO_ROOM] * MOST_TOLD
    assert bench.desk.next_scan() == 15.0 + SCAN_IDLE

    bench.desk.admit(True)
    bench.desk.turn(16.0)

    assert len(bench.clerk.asked) == MOST_TOLD + 20
    while bench.clerk.asked:
        bench.clerk.accept()
    bench.desk.turn(21.0)
    assert bench.desk.waiting == {}


def test_claim_of_an_earlier_coordinator_waits_for_room_too(bench: Bench) -> None:
    claim = Claim("job1", drop_of(put(bench.layout, b'{"prompt": "one"}\n', "a.jsonl")))
    bench.desk.admit(False)
    bench.desk.take_claim(claim)
    bench.desk.turn(0.0)
    bench.desk.turn(DISK_SECONDS)
    assert bench.clerk.asked == []

    bench.desk.admit(True)
    bench.desk.turn(2 * DISK_SECONDS)

    assert [order.job for _, order in bench.clerk.asked if order.job == "job1"] == ["job1"]


@pytest.mark.case("A30")
def test_file_on_a_share_settles_for_a_minute_unless_it_has_a_marker(bench: Bench) -> None:
    put(bench.layout, b'{"prompt": "one"}\n', "plain.jsonl")
    bench.desk.settle_at_least(60.0)
    bench.desk.configure(Settings())  # a reload changes nothing of that
    bench.desk.turn(0.0)
    bench.drop("marked.jsonl")
    for now in (5.0, 30.0, 59.0):
        bench.desk.turn(now)
        assert [order.drop.key.name for _, order in bench.clerk.asked] == ["marked.jsonl"]

    bench.desk.turn(64.0)

    assert [order.drop.key.name for _, order in bench.clerk.asked] == ["marked.jsonl", "plain.jsonl"]
