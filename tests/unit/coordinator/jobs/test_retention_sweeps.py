"""When old answers are deleted and what is said of it. The clerk is asked and never starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.clock import wall
from obcd.config.settings import Settings
from obcd.config.tables import Spool
from obcd.coordinator.clerk.calls import CallFailed, Sweep
from obcd.coordinator.jobs import retention_sweeps
from obcd.coordinator.jobs.retention_sweeps import FIRST_SECONDS, SWEEP_SECONDS, TRIAL_SECONDS, Sweeper
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox.retention import Swept


class Errands:
    """Stands for the clerk: keeps what it is asked."""

    def __init__(self, *_: object) -> None:
        self.asked: list[tuple[Sweep, Callable[[Swept | CallFailed], None]]] = []
        self.stops = 0

    @property
    def pending(self) -> int:
        return len(self.asked)

    def submit(self, call: Sweep, then: Callable[[Swept | CallFailed], None]) -> None:
        self.asked.append((call, then))

    def tick(self, now: float) -> None: ...

    def replace_stopped(self) -> None: ...

    def stop(self) -> None:
        self.stops += 1

    def finish(self, outcome: Swept | CallFailed) -> float:
        """Answer the errand; return the moment before which it deletes."""
        call, then = self.asked.pop()
        then(outcome)
        return call.before


@pytest.fixture
def errands(monkeypatch: pytest.MonkeyPatch) -> Errands:
    made = Errands()
    monkeypatch.setattr(retention_sweeps, "Clerk", lambda *_: made)
    return made


def sweeper(folder: Path, **spool: Any) -> Sweeper:
    return Sweeper(Settings(spool=Spool(**spool)), Layout.at(folder))


def test_first_sweep_comes_soon_and_then_one_an_hour(errands: Errands, tmp_path: Path) -> None:
    made = sweeper(tmp_path)
    asked = []
    for now in (
        0.0,
        FIRST_SECONDS - 1,
        FIRST_SECONDS,
        FIRST_SECONDS + SWEEP_SECONDS - 1,
        FIRST_SECONDS + SWEEP_SECONDS,
    ):
        made.tick(now)
        asked.append(errands.pending)
        if errands.pending:
            assert errands.finish(Swept()) == 0.0  # kept for ever: only what a crash left hidden

    assert asked == [0, 0, 1, 0, 1]
    assert errands.stops == 3  # no process waits for the next hour


def test_changed_time_is_heeded_at_once(errands: Errands, tmp_path: Path) -> None:
    made = sweeper(tmp_path)
    made.tick(0.0)
    made.configure(Settings(spool=Spool(keep_days=2)))

    made.tick(1.0)

    assert errands.finish(Swept()) == pytest.approx(wall() - 2 * 86400, abs=60)


def test_rest_of_many_is_deleted_at_the_next_turn_and_each_is_named(
    errands: Errands, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = sweeper(tmp_path, keep_days=1)
    made.tick(0.0)
    made.tick(FIRST_SECONDS)
    errands.finish(Swept([("job1", "outbox/a"), ("job2", "outbox/b")], is_done=False))

    made.tick(FIRST_SECONDS + 5)

    assert errands.pending == 1
    assert [(record.__dict__["action"], record.__dict__["job"]) for record in caplog.records] == [
        ("job_swept", "job1"),
        ("job_swept", "job2"),
    ]


def test_trouble_is_said_once(errands: Errands, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = sweeper(tmp_path, keep_days=1)
    made.tick(0.0)
    outcomes: list[Swept | CallFailed] = [
        CallFailed("no"),
        Swept(trouble="no"),
        Swept(),
        CallFailed("again"),
    ]
    for number, outcome in enumerate(outcomes):
        made.tick(FIRST_SECONDS + number * SWEEP_SECONDS)
        errands.finish(outcome)

    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records] == ["no", "again"]


def test_folder_of_a_trial_is_swept_some_minutes_after_it_was_published(errands: Errands, tmp_path: Path) -> None:
    swept = sweeper(tmp_path)
    swept.tick(0.0)
    swept.tick(FIRST_SECONDS)
    errands.finish(Swept())

    swept.on_trial(now := FIRST_SECONDS + 60.0)
    swept.tick(now + TRIAL_SECONDS)
    assert errands.asked == []
    swept.tick(now + TRIAL_SECONDS + 2.0)

    call = errands.asked[0][0]
    assert call.before == 0.0
    assert wall() - TRIAL_SECONDS - 60 < call.trials_before <= wall() - TRIAL_SECONDS
