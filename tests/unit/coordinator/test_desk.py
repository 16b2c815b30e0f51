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
from obcd.coordinator.desk import LEAST_PAUSE, PAUSE_BY_COST, Desk
from obcd.core.context import ContextPlan
from obcd.spool.intake import Accepted, Order
from obcd.spool.job import JobHeader
from tests.unit.spool.spools import SETTINGS, make_layout, put, put_marker

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


def test_job_is_told_with_the_contexts_that_were_chosen_for_it() -> None:
    plan = ContextPlan(num_ctx=4096, larger=16384, requests=9912, outliers=88)
    header = JobHeader(id="j", name="a.jsonl", requests=10_000, settings=SETTINGS, context=plan)

    assert module._size(header) == "10000 requests; num_ctx 4096 for 9912 requests, 16384 for 88"
