"""When a preview is extended and removed. The clerk is asked and never starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.coordinator.clerk.calls import CallFailed, ExtendPreview, ForgetPreview
from obcd.coordinator.jobs import previews
from obcd.coordinator.jobs.previews import RETRY_SECONDS, SHOW_SECONDS, Previews
from obcd.coordinator.jobs.running_job import RunningJob
from obcd.coordinator.view import JobState
from obcd.core.answer.counts import Counts
from obcd.core.endpoint.rates import Rate
from obcd.core.pending.backlog import Backlog
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from tests.unit.spool.spools import SETTINGS

PARTIAL = Path("/outbox/notes.partial")


class Errands:
    """Stands for the clerk: keeps what it is asked."""

    def __init__(self, *_: object) -> None:
        self.asked: list[tuple[Any, Callable[[Any], None]]] = []
        self.stops = 0

    @property
    def pending(self) -> int:
        return len(self.asked)

    def submit(self, call: Any, then: Callable[[Any], None]) -> None:
        self.asked.append((call, then))

    def fileno(self) -> int | None:
        return None

    def tick(self, now: float, readable: object) -> None: ...

    def stop(self) -> None:
        self.stops += 1

    def finish(self, outcome: object = True) -> Any:
        """Answer the oldest errand, and return it."""
        call, then = self.asked.pop(0)
        then(outcome)
        return call


class Bench:
    """Previews of one running job, whose progress folder is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clerk = Errands()
        monkeypatch.setattr(previews, "Clerk", lambda *_: self.clerk)
        self.partial: Path | None = PARTIAL
        header = JobHeader(id="job1", name="notes.jsonl", uid=7, requests=9, settings=SETTINGS)
        backlog = Backlog("job1", bytes(9), (), bytes(9), limit=4)
        self.job = RunningJob(header, backlog, Counts(), Rate(0.0), Rate(0.0))
        self.running = {"job1": self.job}
        self.previews = Previews(Layout.at(Path("/spool")), self.running, self)  # type: ignore[arg-type]
        self.previews.show(frozenset({"job1"}))

    def find_partial(self, job: str) -> Path | None:
        return self.partial

    def tick(self, now: float, *, has_room: bool = True) -> list[Any]:
        self.previews.tick(now, (), has_room=has_room)
        return [call for call, _ in self.clerk.asked]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_job_is_shown_when_it_has_its_folder_and_then_twice_a_second_while_it_grows(bench: Bench) -> None:
    bench.partial = None
    assert bench.tick(0.0) == []
    bench.partial = PARTIAL
    bench.job.counts.responses = 2

    assert bench.tick(1.0) == [ExtendPreview(bench.job.header, PARTIAL, 2)]
    bench.job.counts.responses = 3
    assert len(bench.tick(1.1)) == 1  # the clerk is still at it
    bench.clerk.finish()

    assert bench.previews.next_due() == pytest.approx(1.1 + SHOW_SECONDS)
    assert bench.tick(1.1 + SHOW_SECONDS / 2) == []
    assert [call.done for call in bench.tick(1.1 + SHOW_SECONDS)] == [3]
    bench.clerk.finish()
    assert bench.tick(99.0) == []
    assert bench.previews.next_due() is None


def test_preview_that_is_behind_is_extended_at_once(bench: Bench) -> None:
    bench.job.counts.responses = 2
    bench.tick(0.0)
    bench.clerk.finish(outcome=False)

    assert [call.done for call in bench.tick(0.1)] == [2]


@pytest.mark.parametrize("reason", ["nobody looks", "no room", "complete", "published"])
def test_preview_ends_when_nobody_looks_or_nothing_may_be_written(bench: Bench, reason: str) -> None:
    bench.job.counts.responses = 2
    bench.tick(0.0)
    bench.clerk.finish()

    if reason == "nobody looks":
        bench.previews.show(frozenset())
    elif reason == "complete":
        bench.job.move(JobState.COMPLETE)
    elif reason == "published":
        bench.running.clear()

    gone = reason in {"complete", "published"}
    assert bench.tick(1.0, has_room=reason != "no room") == [ForgetPreview("job1", None if gone else PARTIAL)]
    bench.clerk.finish(None)
    bench.previews.show(frozenset())
    assert bench.tick(2.0) == []
    assert bench.clerk.stops == 1


def test_full_disk_is_tried_again_and_a_damaged_job_is_not(bench: Bench) -> None:
    bench.job.counts.responses = 2
    bench.tick(0.0)
    bench.clerk.finish(CallFailed("No space left on device", is_disk=True))
    assert bench.tick(RETRY_SECONDS / 2) == []
    assert len(bench.tick(RETRY_SECONDS)) == 1

    bench.clerk.finish(CallFailed("obcd's clerk died 3 times during this"))

    assert bench.tick(100.0) == [ForgetPreview("job1", PARTIAL)]
    bench.clerk.finish(None)
    assert bench.tick(200.0) == []
    bench.previews.show(frozenset())
    bench.previews.show(frozenset({"job1"}))
    assert len(bench.tick(300.0)) == 1


def test_new_progress_folder_gets_the_whole_preview(bench: Bench) -> None:
    bench.job.counts.responses = 2
    bench.tick(0.0)
    bench.clerk.finish()
    bench.partial = PARTIAL.with_name("notes.job1.partial")

    assert bench.tick(1.0) == [ExtendPreview(bench.job.header, bench.partial, 2)]
