"""Who is begun next, and who is acquitted when: on values and with a clerk that only notes what it is asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.clock import monotonic
from obcd.coordinator.clerk import Clerk, Done, Failed
from obcd.coordinator.quarantine import QUIET_SECONDS, Quarantine, choose
from obcd.coordinator.running import RunningJob
from obcd.coordinator.signboard import Signboard
from obcd.core.records import JobSettings
from obcd.spool.job import JobHeader
from obcd.spool.layout import Layout
from obcd.spool.recovery import LoadedJob
from tests.unit.coordinator.test_running import job


class NotingClerk(Clerk):
    """Notes the calls; each is answered at once."""

    def __init__(self, layout: Layout, asked: list[tuple[str, ...]]) -> None:
        super().__init__("intake", layout)
        self.asked = asked

    def ask(self, then: Callable[[Done | Failed], None], name: str, *arguments: Any) -> None:
        self.asked.append((name, *arguments))
        then(Done(None))


@pytest.fixture
def asked() -> list[tuple[str, ...]]:
    return []


@pytest.fixture
def kept_apart(tmp_path: Path, asked: list[tuple[str, ...]]) -> Quarantine:
    layout = Layout.at(tmp_path / "root")
    layout.create([])
    return Quarantine(layout.jobs, NotingClerk(layout, asked), Signboard(layout))


def header(name: str) -> JobHeader:
    return JobHeader(id=name, name=f"{name}.jsonl", requests=10, settings=JobSettings(model="llama3.2"))


def headers(*names: str) -> deque[JobHeader]:
    return deque(map(header, names))


@pytest.mark.parametrize(
    ("in_vain", "is_busy", "chosen"),
    [
        ({}, False, 0),
        ({"a": 1}, False, 0),  # once is no suspicion: a machine's OOM killer, an administrator
        ({"a": 2}, False, 1),
        ({"a": 2}, True, 1),
        ({"a": 2, "b": 2, "c": 2}, False, 0),
        ({"a": 4, "b": 3, "c": 2}, False, 2),
        ({"a": 2, "b": 2, "c": 2}, True, None),
    ],
)
def test_suspects_come_last_one_at_a_time_the_least_suspected_first(
    in_vain: dict[str, int], is_busy: bool, chosen: int | None
) -> None:
    assert choose(headers("a", "b", "c"), in_vain, is_busy=is_busy) == chosen


def test_nothing_accepted_is_nothing_to_begin() -> None:
    assert choose([], {"a": 2}, is_busy=False) is None


def loaded(quarantine: Quarantine, name: str, done: int, running: dict[str, RunningJob]) -> None:
    """Have a job read, as the coordinator does."""
    assert not quarantine.keeps(header(name), Done(LoadedJob.__new__(LoadedJob)))
    running[name] = job(10, done, 1.0)


def test_next_suspect_is_begun_when_the_first_has_a_new_result(kept_apart: Quarantine) -> None:
    running: dict[str, RunningJob] = {}
    accepted = headers("a", "b")
    kept_apart.take_over([], {"a": 2, "b": 2})
    first = kept_apart.take(accepted, running)
    assert first is not None
    assert first.id == "a"
    assert kept_apart.take(accepted, running) is None

    loaded(kept_apart, "a", 3, running)
    assert kept_apart.take(accepted, running) is None
    running["a"] = job(10, 4, 1.0)

    second = kept_apart.take(accepted, running)
    assert second is not None
    assert second.id == "b"


def test_suspect_that_is_published_or_unreadable_keeps_nobody_waiting(kept_apart: Quarantine) -> None:
    running: dict[str, RunningJob] = {}
    accepted = headers("a", "b", "c")
    kept_apart.take_over([], {"a": 2, "b": 2, "c": 2})
    kept_apart.take(accepted, running)
    loaded(kept_apart, "a", 10, running)
    assert kept_apart.take(accepted, running) is None
    del running["a"]
    second = kept_apart.take(accepted, running)
    assert second is not None

    assert not kept_apart.keeps(second, Failed("damaged"))

    third = kept_apart.take(accepted, running)
    assert third is not None
    assert third.id == "c"


def test_job_without_a_result_is_acquitted_after_a_quiet_while(
    kept_apart: Quarantine, asked: list[tuple[str, ...]]
) -> None:
    running: dict[str, RunningJob] = {}
    kept_apart.take(headers("a"), running)
    loaded(kept_apart, "a", 0, running)

    kept_apart.turn(running, monotonic() + QUIET_SECONDS - 1)
    assert asked == []
    kept_apart.turn(running, monotonic() + QUIET_SECONDS + 1)
    kept_apart.turn(running, monotonic() + 2 * QUIET_SECONDS)

    assert asked == [("acquit", "a")]


def test_released_job_is_given_back_once(kept_apart: Quarantine, asked: list[tuple[str, ...]]) -> None:
    given: list[JobHeader] = []
    assert kept_apart.keeps(header("a"), Done(None))
    assert "a.jsonl is QUARANTINED" in kept_apart.troubles()[0]

    assert kept_apart.release("a", given.append)
    assert not kept_apart.release("a", given.append)
    assert not kept_apart.release("b", given.append)

    assert given == [header("a")]
    assert asked == [("release", "a")]
    assert kept_apart.troubles() == []
