"""Tallies: what a result adds to the counters of the whole coordinator."""

from __future__ import annotations

from dataclasses import replace

from obcd.core.answer.counts import Counts
from obcd.core.answer.tally import Tally

ANSWER = Counts(responses=1, prompt_tokens=40, eval_tokens=7, work_seconds=0.75, wait_seconds=0.25, repairs=1)


def tallied(*results: Counts, failure: str = "") -> Tally:
    tally = Tally()
    for counts in results:
        tally.add(counts, failure)
    return tally


def test_answer_counts_with_its_tokens_and_repairs() -> None:
    assert tallied(ANSWER, ANSWER) == Tally(responses=2, prompt_tokens=80, output_tokens=14, repairs=2)


def test_answer_from_the_cache_is_a_hit_without_work() -> None:
    assert tallied(replace(ANSWER, cached=1)) == Tally(responses=1, cache_hits=1)


def test_equal_requests_count_each_and_their_tokens_once() -> None:
    assert tallied(ANSWER.times(3)) == Tally(responses=3, prompt_tokens=40, output_tokens=7, repairs=1)


def test_group_of_vectors_counts_the_tokens_of_its_call() -> None:
    first, other = Counts(responses=1, grouped=1, prompt_tokens=90, work_seconds=2.0), Counts(responses=1, grouped=1)

    assert tallied(first.times(2), other) == Tally(responses=3, prompt_tokens=90)


def test_failure_counts_by_class_with_the_tokens_that_it_cost() -> None:
    both = tallied(Counts(failures=1, eval_tokens=9), Counts(failures=2), failure="invalid_answer")

    assert both == Tally(failures={"invalid_answer": 3}, output_tokens=9)


def test_tallies_add_up() -> None:
    both = tallied(ANSWER, replace(ANSWER, cached=1))
    both.merge(tallied(ANSWER, Counts(failures=2), failure="busy"))
    both.merge(Tally(failures={"busy": 1, "cut": 1}))

    assert both == Tally(
        responses=3, failures={"busy": 3, "cut": 1}, prompt_tokens=80, output_tokens=14, cache_hits=1, repairs=2
    )
