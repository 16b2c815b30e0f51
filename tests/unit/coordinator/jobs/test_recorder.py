"""The recorder: what it says is recorded is on disk, once, whatever the disk did in between."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.coordinator.disk_watch import DiskWatch
from obcd.coordinator.jobs import recorder as module
from obcd.coordinator.jobs.recorder import Entry, Recorder
from obcd.coordinator.loop_waits import Waker
from obcd.core.answer.counts import Counts
from obcd.core.answer.outcomes import Failure
from obcd.core.answer.record_codec import encode
from obcd.spool.job import ledger
from tests.support import wait_until

JOB, OTHER = "job", "other"


def entry(ordinal: int, job: str = JOB) -> Entry:
    record = encode(Failure(ordinal=ordinal, line=ordinal + 1, kind="x", message=""))
    return Entry(job, record, Counts(failures=1))


@pytest.fixture
def room(tmp_path: Path) -> DiskWatch:
    """Return a room that nobody looks at: it knows what the recorder says."""
    return DiskWatch(tmp_path)


def trouble(room: DiskWatch) -> str:
    room.tick(0.0)
    return room.trouble


@pytest.fixture
def recorder(tmp_path: Path, room: DiskWatch, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    for job in (JOB, OTHER):
        (tmp_path / job).mkdir()
    made = Recorder(tmp_path, Waker(), room)
    made.open(JOB, 0)
    made.open(OTHER, 0)
    yield made
    made.stop(5)


def recorded(recorder: Recorder, count: int) -> list[Entry]:
    found: list[Entry] = []

    def enough() -> bool:
        found.extend(recorder.recorded())
        return len(found) >= count

    wait_until(enough, 5)
    return found


def ordinals(folder: Path) -> list[int]:
    replayed = ledger.replay(folder / ledger.NAME, 100)
    lines = (folder / ledger.NAME).read_bytes().count(b"\n")
    done = [ordinal for ordinal, flag in enumerate(replayed.done) if flag]
    assert lines == len(done), "a record stands in the ledger twice"
    return done


def test_what_is_recorded_is_in_the_ledger(recorder: Recorder, tmp_path: Path) -> None:
    for ordinal in range(20):
        recorder.add(entry(ordinal, OTHER if ordinal % 2 else JOB))

    assert len(recorded(recorder, 20)) == 20

    assert ordinals(tmp_path / JOB) == list(range(0, 20, 2))
    assert ordinals(tmp_path / OTHER) == list(range(1, 20, 2))
    assert recorder.pending == 0


@pytest.mark.parametrize("step", ["write", "sync"])
def test_disk_that_refuses_is_waited_for_and_nothing_is_written_twice(
    recorder: Recorder, room: DiskWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    refusals = [OSError(errno.ENOSPC, "No space left on device")] * 3
    true = getattr(ledger.LedgerWriter, step)

    def refuse(self: ledger.LedgerWriter, *arguments: object) -> None:
        true(self, *arguments)  # a failed write may have left something behind
        if refusals:
            assert recorder.recorded() == []
            raise refusals.pop()

    monkeypatch.setattr(ledger.LedgerWriter, step, refuse)
    for ordinal in range(5):
        recorder.add(entry(ordinal))

    assert len(recorded(recorder, 5)) == 5

    assert not refusals
    assert ordinals(tmp_path / JOB) == [0, 1, 2, 3, 4]
    wait_until(lambda: trouble(room) == "", 5)


def test_room_is_told_what_the_disk_said(recorder: Recorder, room: DiskWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: ledger.LedgerWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger.LedgerWriter, "sync", refuse)
    recorder.add(entry(0))

    wait_until(lambda: "No space left on device" in trouble(room), 5)
    assert recorder.pending == 1


def test_job_that_is_forgotten_holds_no_other_up(recorder: Recorder, room: DiskWatch, tmp_path: Path) -> None:
    (tmp_path / JOB).rmdir()
    recorder.add(entry(0))
    recorder.add(entry(1, OTHER))
    wait_until(lambda: trouble(room), 5)

    recorder.forget(JOB)

    assert {item.job for item in recorded(recorder, 1)} == {OTHER}
    assert ordinals(tmp_path / OTHER) == [1]


def test_job_that_is_forgotten_leaves_no_trouble_behind(recorder: Recorder, room: DiskWatch, tmp_path: Path) -> None:
    (tmp_path / JOB).rmdir()
    recorder.add(entry(0))
    wait_until(lambda: trouble(room), 5)

    recorder.forget(JOB)

    wait_until(lambda: trouble(room) == "", 5)


def test_where_nothing_is_in_flight_no_company_is_waited_for(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given company that would be waited for longer than this test may take
    monkeypatch.setattr(module, "GATHER_SECONDS", 3600.0)
    recorder.add(entry(0))

    # when
    recorder.hurry()

    # then
    assert len(recorded(recorder, 1)) == 1


def test_results_of_a_group_are_one_write_and_one_sync(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for step in ("write", "sync"):
        true = getattr(ledger.LedgerWriter, step)

        def count(self: ledger.LedgerWriter, *arguments: object, step: str = step, true: Any = true) -> None:
            steps.append(step)
            true(self, *arguments)

        monkeypatch.setattr(ledger.LedgerWriter, step, count)

    recorder.add(*(entry(ordinal) for ordinal in range(64)))
    recorder.hurry()

    assert len(recorded(recorder, 64)) == 64
    assert steps == ["write", "sync"]
    assert ordinals(tmp_path / JOB) == list(range(64))


def test_errand_runs_in_the_thread_of_the_recorder_after_what_is_queued(recorder: Recorder, tmp_path: Path) -> None:
    seen: list[tuple[str, list[int]]] = []
    recorder.add(entry(0))
    recorder.run_later(lambda: seen.append((threading.current_thread().name, ordinals(tmp_path / JOB))))

    wait_until(lambda: bool(seen), 5)

    assert seen == [("recorder", [0])]


def test_errands_are_run_at_the_end_too(recorder: Recorder) -> None:
    is_held, seen = threading.Event(), list[int]()
    recorder.run_later(lambda: is_held.wait(5))
    recorder.run_later(lambda: seen.append(1))
    stop = threading.Thread(target=recorder.stop, args=(5.0,))
    stop.start()
    recorder.run_later(lambda: seen.append(2))
    is_held.set()
    stop.join(5)

    assert seen == [1, 2]
