"""Several answers to one prompt become the one result of their line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from obcd.core.answer.outcomes import Cost, Failure, KeptAnswer, ModelAnswer, Response, Result
from obcd.core.answer.several import join
from tests.golden.wording import wording

COST = Cost(0.1, 0.2, 0.3, 0.4, 0.5, prompt_tokens=3, eval_tokens=7)
FAILED = Failure(ordinal=1, line=4, kind="timeout", message="no answer", attempts=4, endpoint="a")


def answer(text: str, seed: int, reason: str = "stop", attempts: int = 1, repairs: int = 0) -> Response:
    told = ModelAnswer(
        text=text, done_reason=reason, cost=COST, finished=100.0 + seed, repairs=repairs, logprobs=[{"token": text}]
    )
    return Response(ordinal=seed, line=4, attempts=attempts, endpoint="gpu0", answer=told, seed=seed)


def test_one_answer_is_the_result_of_its_line() -> None:
    assert join([answer("a", 0)]) == answer("a", 0)
    assert join([FAILED]) == FAILED


def test_several_answers_stand_in_one_result_with_the_sums_of_their_counters() -> None:
    results = (answer("a", 0), answer("b", 1, "length", attempts=3, repairs=2), answer("c", 2, repairs=1))

    joined = join(results)

    assert isinstance(joined, Response)
    assert joined.responses == results
    assert (joined.answer.text, joined.answer.done_reason, joined.attempts) == ("a", "length", 3)
    assert joined.answer.cost == Cost(0.3, 0.6, 0.9, 1.2, 1.5, prompt_tokens=9, eval_tokens=21)
    assert (joined.answer.finished, joined.answer.repairs) == (102.0, 3)
    assert (joined.seed, joined.answer.logprobs) == (None, None)


def test_one_failed_answer_is_the_failure_of_its_line_and_the_others_are_kept() -> None:
    results: list[Result] = [answer("a", 0), FAILED, answer("c", 2)]

    joined = join(results)

    assert isinstance(joined, Failure)
    assert (joined.kind, joined.attempts, joined.endpoint) == ("timeout", 4, "a")
    assert joined.message == wording("1-of-3-answers-failed-the")
    assert joined.responses == (results[0], results[2])


def test_line_of_failures_alone_keeps_nothing() -> None:
    assert join([FAILED, FAILED]).responses == ()


@pytest.mark.parametrize("count", [1, 2])
def test_line_is_cached_hedged_or_the_same_as_another_only_where_each_answer_is(count: int) -> None:
    results = [answer("a", 0), answer("b", 1)]
    results[:count] = (result._replace(is_cached=True, is_hedged=True, same_as=2) for result in results[:count])
    failures = [replace(FAILED, same_as=2 if number < count else None) for number in range(2)]

    joined, failed = join(results), join(failures)

    assert isinstance(joined, Response)
    assert (joined.is_cached, joined.is_hedged, joined.same_as, failed.same_as) == (
        (True, True, 2, 2) if count == 2 else (False, False, None, None)
    )


def test_result_of_an_equal_request_differs_in_place_and_time_only() -> None:
    first = answer("a", 0)
    untimed = Cost(prompt_tokens=3, eval_tokens=7)

    assert first.repeated(7, 9) == first._replace(
        ordinal=7, line=9, same_as=4, answer=first.answer._replace(cost=untimed)
    )

    failed = replace(FAILED, kept=KeptAnswer(text="no", cost=COST, repairs=2))
    kept = KeptAnswer(text="no", cost=untimed, repairs=2)
    assert failed.repeated(7, 9) == replace(failed, ordinal=7, line=9, same_as=4, kept=kept)
    assert FAILED.repeated(7, 9) == replace(FAILED, ordinal=7, line=9, same_as=4)
