"""Who is begun next, and who is acquitted when: on values and with a clerk that only notes what it is asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.clock import monotonic
from obcd.coordinator.clerk import Clerk, Done, Failed
from obcd.coordinator.quarantine import DISK_SECONDS, QUIET_SECONDS, Quarantine, choose
from obcd.coordinator.running import RunningJob
from obcd.coordinator.signboard import Signboard
from obcd.core.counts import Counts
from obcd.core.records import JobSettings
from obcd.spool.job import JobHeader
from obcd.spool.layout import Layout
from obcd.spool.ledger import Replay
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
def accepted() -> deque[JobHeader]:
    return deque()


@pytest.fixture
def kept_apart(tmp_path: Path, accepted: deque[JobHeader], asked: list[tuple[str, ...]]) -> Quarantine:
    layout = Layout.at(tmp_path / "root")
    layout.create([])
    return Quarantine(accepted, layout.jobs, NotingClerk(layout, asked), Signboard(layout))


def header(name: str) -> JobHeader:
    return JobHeader(id=name, name=f"{name}.jsonl", requests=10, settings=JobSettings(model="llama3.2"))


def headers(*names: str) -> deque[JobHeader]:
    return deque(map(header, names))


@pytest.mark.parametrize(
    ("in_vain", "is_busy", "chosen"),
    [
        ({}, False, 0),
        ({"a": 1}, False, 0),  # once is no suspicion: a machine's OOM killer, an administrator
        ({"a": 2}, False, 0),
        ({"a": 2}, True, 1),
        ({"b": 2}, False, 0),
        ({"a": 2, "b": 2, "c": 2}, False, 0),
        ({"a": 4, "b": 3, "c": 2}, False, 2),
        ({"a": 4, "c": 3}, False, 2),
        ({"a": 2, "b": 2, "c": 2}, True, None),
    ],
)
def test_suspects_are_begun_one_at_a_time_the_least_suspected_first(
    in_vain: dict[str, int], is_busy: bool, chosen: int | None
) -> None:
    assert choose(headers("a", "b", "c"), in_vain, is_busy=is_busy) == chosen


def test_nothing_accepted_is_nothing_to_begin() -> None:
    assert choose([], {"a": 2}, is_busy=False) is None


def loaded(quarantine: Quarantine, name: str, done: int, running: dict[str, RunningJob]) -> None:
    """Have a job read, as the coordinator does."""
    replay = Replay(done=bytes(10), size=0, counts=Counts(responses=done))
    assert not quarantine.keeps(header(name), Done(LoadedJob(header(name), replay, b"")))
    running[name] = job(10, done, 1.0)


def test_next_suspect_is_begun_when_the_first_has_a_new_result(
    kept_apart: Quarantine, accepted: deque[JobHeader]
) -> None:
    running: dict[str, RunningJob] = {}
    accepted.extend(headers("a", "b"))
    kept_apart.take_over([], {"a": 2, "b": 2})
    first = kept_apart.take(running)
    assert first is not None
    assert first.id == "a"
    assert kept_apart.take(running) is None

    loaded(kept_apart, "a", 3, running)
    assert kept_apart.take(running) is None
    running["a"] = job(10, 4, 1.0)

    second = kept_apart.take(running)
    assert second is not None
    assert second.id == "b"


def test_suspect_that_is_published_or_unreadable_keeps_nobody_waiting(
    kept_apart: Quarantine, accepted: deque[JobHeader]
) -> None:
    running: dict[str, RunningJob] = {}
    accepted.extend(headers("a", "b", "c"))
    kept_apart.take_over([], {"a": 2, "b": 2, "c": 2})
    kept_apart.take(running)
    loaded(kept_apart, "a", 10, running)
    del running["a"]  # nobody may have looked between
    second = kept_apart.take(running)
    assert second is not None

    assert not kept_apart.keeps(second, Failed("damaged"))

    third = kept_apart.take(running)
    assert third is not None
    assert third.id == "c"


def test_job_without_a_result_is_acquitted_after_a_quiet_while(
    kept_apart: Quarantine, accepted: deque[JobHeader], asked: list[tuple[str, ...]]
) -> None:
    running: dict[str, RunningJob] = {}
    accepted.append(header("a"))
    kept_apart.take(running)
    loaded(kept_apart, "a", 0, running)

    kept_apart.turn(running, monotonic() + QUIET_SECONDS - 1)
    assert asked == []
    kept_apart.turn(running, monotonic() + QUIET_SECONDS + 1)
    kept_apart.turn(running, monotonic() + 2 * QUIET_SECONDS)

    assert asked == [("acquit", "a")]


def test_released_job_is_begun_again_once(
    kept_apart: Quarantine, accepted: deque[JobHeader], asked: list[tuple[str, ...]]
) -> None:
    assert kept_apart.keeps(header("a"), Done(None))
    assert "a.jsonl is QUARANTINED" in kept_apart.troubles()[0]
    assert [item["state"] for item in kept_apart.reports()] == ["QUARANTINED"]

    assert kept_apart.release("a")
    assert not kept_apart.release("a")
    assert not kept_apart.release("b")

    assert list(accepted) == [header("a")]
    assert asked == [("release", "a")]
    assert kept_apart.troubles() == []
    assert kept_apart.reports() == []


def test_job_that_the_disk_does_not_let_us_read_is_tried_again_later_and_holds_nobody_up(
    kept_apart: Quarantine, accepted: deque[JobHeader]
) -> None:
    accepted.extend(headers("a", "b"))
    first = kept_apart.take({})
    assert first is not None

    assert kept_apart.keeps(first, Failed("No space left on device", is_disk=True))

    assert "a.jsonl cannot be read: No space left" in kept_apart.troubles()[0]
    second = kept_apart.take({})
    assert second is not None
    assert second.id == "b"
    assert kept_apart.take({}) is None
    kept_apart.turn({}, monotonic() + DISK_SECONDS + 1)
    assert kept_apart.troubles() == []
    again = kept_apart.take({})
    assert again is not None
    assert again.id == "a"


def test_job_that_cannot_be_read_at_all_is_kept_and_told_with_its_reason(kept_apart: Quarantine) -> None:
    assert not kept_apart.keeps(header("a"), Failed("obcd's clerk died 3 times over it", died=True))

    assert list(kept_apart.kept) == ["a"]
    assert kept_apart.troubles() == [
        "a.jsonl cannot be run: obcd's clerk died 3 times over it; it is kept in jobs/a: look at it"
    ]
    assert kept_apart.troubles(["a", "b"])[1:] == [
        "jobs/b is damaged and left as it is: drop its input.jsonl again, then remove it"
    ]
