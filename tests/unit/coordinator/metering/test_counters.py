"""Counters: what grows with a result, an attempt and a job, what does not, and what goes on over a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from obcd.coordinator.metering.counters import (
    MOST_MODELS,
    OTHER_MODELS,
    REQUEST_BOUNDS,
    CounterSet,
    CountersView,
    Histogram,
)
from obcd.coordinator.metering.counters_file import CountersFile
from obcd.core.answer.counts import Counts
from obcd.core.answer.outcomes import Failure
from obcd.core.answer.record_codec import encode
from obcd.spool.job.ledger import LedgerWriter, Replay, replay

ANSWER = Counts(responses=1, prompt_tokens=40, eval_tokens=7, work_seconds=0.75, wait_seconds=0.25)


def counted(*results: Counts) -> CountersView:
    counters = CounterSet(5.0)
    for counts in results:
        counters.on_recorded("j", counts, "llama3.2:latest")
    return counters.view()


def test_answer_counts_with_its_tokens_and_times() -> None:
    view = counted(ANSWER, ANSWER)

    assert (view.responses, view.prompt_tokens, view.output_tokens) == (2, 80, 14)
    (model,) = view.models
    assert model.model == "llama3.2"
    assert model.duration.counts[REQUEST_BOUNDS.index(1.0)] == sum(model.duration.counts) == 2
    assert model.queue.counts[REQUEST_BOUNDS.index(0.5)] == sum(model.queue.counts) == 2
    assert (model.duration.sum, model.queue.sum) == (2.0, 0.5)


def test_time_of_what_was_sent_once_counts_once() -> None:
    view = counted(replace(ANSWER, cached=1), ANSWER.times(3), Counts(responses=1, grouped=1))

    assert (view.responses, view.cache_hits) == (5, 1)
    assert sum(view.models[0].duration.counts) == 1


def test_attempts_and_retries_count_apart_from_results() -> None:
    counters = CounterSet(0.0)
    for fault in ("", "busy", "busy", "cut"):
        counters.on_attempt(fault)
    view = counters.view()

    assert (view.attempts, dict(view.retries), view.responses) == (4, {"busy": 2, "cut": 1}, 0)


def test_cancelled_job_counts_what_a_clerk_records_for_it() -> None:
    counters = CounterSet(0.0)
    counters.on_complete("a", 0)
    counters.on_complete("b", 6)
    view = counters.view()

    assert (view.jobs_finished, dict(view.failures)) == (2, {"cancelled": 6})


def test_models_beyond_the_limit_share_their_histograms() -> None:
    counters = CounterSet(0.0)
    for number in range(MOST_MODELS + 5):
        counters.on_recorded("j", ANSWER, f"m{number}")
    view = counters.view()

    assert len(view.models) == MOST_MODELS + 1
    assert (view.models[-1].model, sum(view.models[-1].duration.counts)) == (OTHER_MODELS, 5)


def test_value_on_a_bound_is_below_it_and_one_above_all_is_kept() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 99.0):
        histogram.observe(value)

    assert (histogram.view().counts, histogram.view().sum) == ((1, 2, 1), 103.5)


# --- over a restart --------------------------------------------------------------------------------------------------


class Life:
    """Coordinators one after the other, with one job whose ledger is real."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written = 0
        self.start()

    def start(self, *jobs: str) -> None:
        """Begin as a new coordinator that finds these jobs."""
        self.counters = CounterSet(0.0)
        self.file = CountersFile(self.root / "counters.json", self.counters)
        self.file.resume()
        self.file.open(jobs)

    def load(self) -> None:
        self.counters.on_loaded("j", self.replayed(self.counters.records_of("j")))
        self.file.keep()

    def replayed(self, records: int | None) -> Replay:
        return replay(self.root / "ledger.log", 100, counted=records)

    def record(self, number: int, *, is_counted: bool = True) -> None:
        """Write failures to the ledger; a coordinator that is killed does not count them."""
        writer = LedgerWriter(self.root, self.replayed(None).size)
        for _ in range(number):
            failure = Failure(ordinal=self.written, line=self.written + 1, kind="cut", message="m")
            writer.append([encode(failure)])
            self.written += 1
            if is_counted:
                self.counters.on_recorded("j", Counts.of(failure), "", "cut")
        writer.close()

    @property
    def failures(self) -> int:
        return self.counters.view().failures.get("cut", 0)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """Return the first coordinator."""
    return Life(tmp_path)


def test_killed_coordinator_goes_on_with_what_the_ledger_has(life: Life) -> None:
    life.load()
    life.record(3)
    life.file.keep()
    life.record(2)  # counted, and not kept
    life.record(2, is_counted=False)  # recorded, and not counted

    life.start("j")
    shown = life.failures
    life.load()

    assert (shown, life.failures) == (3, 7)
    life.record(1)
    assert life.failures == 8


def test_restart_in_order_counts_nothing_twice(life: Life) -> None:
    life.load()
    life.record(3)
    life.file.keep()
    for _ in range(3):
        life.start("j")
        life.load()

    assert life.failures == 3


def test_lines_that_were_no_requests_count_when_their_job_is_loaded(life: Life) -> None:
    life.record(4, is_counted=False)  # by the clerk that accepted the job
    life.load()

    assert life.failures == 4


def test_results_from_before_the_counters_do_not_count(life: Life) -> None:
    life.record(4, is_counted=False)
    life.start("j")  # there is no file: an older version recorded them
    life.load()
    life.record(1)

    assert life.failures == 1


def test_job_that_was_complete_and_not_published_is_finished_once(life: Life) -> None:
    life.load()
    life.record(2)
    life.counters.on_complete("j", 1)
    life.file.keep()

    life.start("j")
    life.load()
    life.counters.on_complete("j", 1)

    view = life.counters.view()
    assert (view.jobs_finished, dict(view.failures)) == (1, {"cut": 2, "cancelled": 1})


def test_published_jobs_are_forgotten_and_what_they_counted_stays(life: Life) -> None:
    life.load()
    life.record(2)
    life.counters.forget("j")
    life.file.keep()
    assert life.counters.kept().records == {}

    life.start()
    assert life.failures == 2


def test_job_that_went_while_no_coordinator_ran_is_forgotten(life: Life) -> None:
    life.load()
    life.start()

    assert life.counters.kept().records == {}


@pytest.mark.parametrize("content", ["", "{}", '{"since": "x"}', "[" * 100_000])
def test_file_that_cannot_be_read_means_zero(life: Life, content: str, caplog: pytest.LogCaptureFixture) -> None:
    life.load()
    life.record(2)
    (life.root / "counters.json").write_text(content, "utf-8")

    life.start("j")
    life.load()

    assert life.failures == 0
    assert [record.__dict__["action"] for record in caplog.records] == ["counters_lost"]


def test_file_that_cannot_be_written_is_logged_once(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    (life.root / "counters.json").mkdir()
    for number in range(3):
        life.counters.on_complete(f"j{number}", 0)
        life.file.keep()

    assert [record.__dict__["action"] for record in caplog.records] == ["counters_unwritten"]
