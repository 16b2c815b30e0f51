"""How long the cluster still takes: the work that is left over what is worked on at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from obcd.coordinator.jobs.recorder import Entry
from obcd.coordinator.jobs.running_job import RunningJob, time_to_go
from obcd.coordinator.view import JobState
from obcd.core.answer.counts import Counts
from obcd.core.endpoint.rates import Rate
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import JobSettings, Signature
from obcd.errors import IllegalMoveError
from obcd.spool.job.job_folder import JobHeader
from tests.openai_types import check_batch


def job(requests: int, answered: int, seconds: float) -> RunningJob:
    """Make a job of which some requests were answered, in `seconds` each."""
    header = JobHeader(id="j", name="j.jsonl", requests=requests, settings=JobSettings(model="m"))
    backlog = Backlog("j", bytes(requests), (Signature("m", ()),), limit=4)
    counts = Counts(responses=answered, work_seconds=answered * seconds)
    return RunningJob(header, backlog, counts, Rate(0.0), Rate(0.0))


def test_progress_of_a_file_of_openais_lines_holds_the_batch_object() -> None:
    running, plain = job(10, 4, 2.0), job(10, 4, 2.0)
    running.header = replace(running.header, asks="/v1/embeddings", accepted_at=1795373853.5)

    batch = check_batch(running.view(0.0).batch)

    assert (batch.status, batch.endpoint, batch.created_at) == ("in_progress", "/v1/embeddings", 1795373853)
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (10, 4, 0)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert "batch" not in plain.view(0.0).to_json()


def test_recorded_failures_count_by_class_for_all_requests_that_share_them() -> None:
    running = job(10, 4, 2.0)
    running.failures["timeout"] = 1  # as a restart reads it from the ledger

    running.on_recorded(Entry("j", b"", Counts(failures=3), "m", "timeout"), 1.0)
    running.on_recorded(Entry("j", b"", Counts(failures=1), "m", "bad_line"), 1.0)
    running.on_recorded(Entry("j", b"", Counts(responses=1), "m"), 1.0)

    view = running.view(1.0)
    assert view.failed_by_class == {"timeout": 4, "bad_line": 1}
    assert (view.done, view.failed) == (9, 4)


def test_nothing_is_said_while_nothing_is_known() -> None:
    assert time_to_go([], 100, 4) is None
    assert time_to_go([job(100, 0, 0.0)], 0, 4) is None
    assert time_to_go([job(100, 50, 2.0)], 0, 0) is None


def test_one_job_takes_its_rest_over_what_is_in_flight() -> None:
    assert time_to_go([job(100, 20, 2.0)], 0, 8) == pytest.approx(80 * 2.0 / 8)


def test_r28_wait_for_a_slot_is_no_work_and_takes_its_time_all_the_same() -> None:
    waiting = job(24, 12, 0.4)
    waiting.counts.wait_seconds = 12 * 2.8  # seven of eight requests in flight wait for the only slot

    assert waiting.view(0.0).work_seconds == 4.8
    assert time_to_go([waiting], 0, 8) == pytest.approx(12 * 0.4)


def test_tokens_from_the_prefix_cache_are_shown_once_a_reply_says_them() -> None:
    silent, told = job(10, 4, 2.0), job(10, 4, 2.0)
    told.counts.add(Counts(evaluated_tokens=31, cached_tokens=480, prompt_eval_seconds=0.25))

    assert not {"evaluated_tokens", "cached_tokens"} & silent.view(0.0).to_json().keys()
    assert (told.view(0.0).evaluated_tokens, told.view(0.0).cached_tokens) == (31, 480)
    assert told.view(0.0).prompt_eval_seconds == 0.2


def test_jobs_of_short_and_of_long_requests_count_by_their_work() -> None:
    # by results per second both look alike while they take turns
    assert time_to_go([job(10_010, 10, 0.1), job(110, 10, 60.0)], 0, 10) == pytest.approx(1000.0 * 0.7)


def test_what_has_not_begun_is_taken_to_be_as_long_as_the_rest() -> None:
    assert time_to_go([job(10, 5, 2.0), job(10, 0, 0.0)], 35, 5) == pytest.approx(50 * 2.0 / 5)


def test_last_request_takes_as_long_as_one() -> None:
    assert time_to_go([job(100, 99, 12.0)], 0, 8) == 12.0


def test_finished_job_adds_nothing() -> None:
    assert time_to_go([job(10, 10, 5.0)], 0, 8) == 0.0


def test_paused_job_tells_neither_speed_nor_time_to_go() -> None:
    paused = job(60, 12, 1.0)
    paused.answers.add(12, 1.0)
    assert paused.view(2.0).eta_seconds is not None

    paused.move(JobState.PAUSED)

    shown = paused.view(2.0)
    assert (shown.eta_seconds, shown.tokens_per_second, shown.requests_per_second) == (None, 0.0, 0.0)


def test_complete_job_goes_no_way_back() -> None:
    complete = job(10, 10, 1.0)
    complete.move(JobState.COMPLETE)

    with pytest.raises(IllegalMoveError, match="j cannot become RUNNING: it is COMPLETE"):
        complete.move(JobState.RUNNING)

    assert complete.state is JobState.COMPLETE
