"""Counters: what grows with a result, an attempt and a job, and what does not."""

from __future__ import annotations

from dataclasses import replace

from obcd.coordinator.metering.counters import (
    MOST_MODELS,
    OTHER_MODELS,
    REQUEST_BOUNDS,
    CounterSet,
    CountersView,
    Histogram,
)
from obcd.core.answer.counts import Counts

ANSWER = Counts(responses=1, prompt_tokens=40, eval_tokens=7, work_seconds=0.75, wait_seconds=0.25, repairs=1)


def counted(*results: Counts, model: str = "llama3.2:latest", failure: str = "") -> CountersView:
    counters = CounterSet(5.0)
    for counts in results:
        counters.on_recorded(counts, model, failure)
    return counters.view()


def test_answer_counts_with_its_tokens_repairs_and_times() -> None:
    view = counted(ANSWER, ANSWER)

    assert (view.responses, view.prompt_tokens, view.output_tokens, view.repairs) == (2, 80, 14, 2)
    (model,) = view.models
    assert model.model == "llama3.2"
    assert model.duration.counts[REQUEST_BOUNDS.index(1.0)] == sum(model.duration.counts) == 2
    assert model.queue.counts[REQUEST_BOUNDS.index(0.5)] == sum(model.queue.counts) == 2
    assert (model.duration.sum, model.queue.sum) == (2.0, 0.5)


def test_answer_from_the_cache_is_a_hit_without_work() -> None:
    view = counted(replace(ANSWER, cached=1))

    assert (view.responses, view.cache_hits, view.attempts) == (1, 1, 0)
    assert (view.prompt_tokens, view.output_tokens, view.repairs, view.models) == (0, 0, 0, ())


def test_equal_requests_count_each_and_their_tokens_once() -> None:
    view = counted(ANSWER.times(3))

    assert (view.responses, view.prompt_tokens, view.output_tokens, view.repairs) == (3, 40, 7, 1)
    assert sum(view.models[0].duration.counts) == 1


def test_group_of_vectors_counts_the_tokens_of_its_call_and_one_duration() -> None:
    first, other = Counts(responses=1, grouped=1, prompt_tokens=90, work_seconds=2.0), Counts(responses=1, grouped=1)
    view = counted(first.times(2), other)

    assert (view.responses, view.prompt_tokens) == (3, 90)
    assert sum(view.models[0].duration.counts) == 1


def test_failure_counts_by_class_with_the_tokens_that_it_cost() -> None:
    view = counted(Counts(failures=1, eval_tokens=9), Counts(failures=2), failure="invalid_answer")

    assert (dict(view.failures), view.output_tokens, view.models) == ({"invalid_answer": 3}, 9, ())


def test_attempts_and_retries_count_apart_from_results() -> None:
    counters = CounterSet(0.0)
    for fault in ("", "busy", "busy", "cut"):
        counters.on_attempt(fault)
    view = counters.view()

    assert (view.attempts, dict(view.retries), view.responses) == (4, {"busy": 2, "cut": 1}, 0)


def test_cancelled_job_counts_what_a_clerk_records_for_it() -> None:
    counters = CounterSet(0.0)
    counters.on_complete(0)
    counters.on_complete(6)
    view = counters.view()

    assert (view.jobs_finished, dict(view.failures)) == (2, {"cancelled": 6})


def test_models_beyond_the_limit_share_their_histograms() -> None:
    counters = CounterSet(0.0)
    for number in range(MOST_MODELS + 5):
        counters.on_recorded(ANSWER, f"m{number}")
    view = counters.view()

    assert len(view.models) == MOST_MODELS + 1
    assert (view.models[-1].model, sum(view.models[-1].duration.counts)) == (OTHER_MODELS, 5)


def test_value_on_a_bound_is_below_it_and_one_above_all_is_kept() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 99.0):
        histogram.observe(value)

    assert (histogram.view().counts, histogram.view().sum) == ((1, 2, 1), 103.5)
