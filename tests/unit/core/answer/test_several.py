"""Several answers to one prompt become the one result of their line."""

from __future__ import annotations

from typing import Any

from obcd.core.answer.several import join


def answer(text: str, seed: int, **fields: Any) -> dict[str, Any]:
    return {
        "outcome": "response",
        "line": 4,
        "attempts": 1,
        "endpoint": "gpu0",
        "response": text,
        "done_reason": "stop",
        "seed": seed,
        "seconds": 0.1,
        "prompt_tokens": 3,
        "eval_tokens": 7,
        "finished": 100.0 + seed,
        **fields,
    }


FAILED = {"outcome": "failure", "line": 4, "class": "timeout", "message": "no answer", "attempts": 4, "endpoint": "a"}


def test_one_answer_is_the_result_of_its_line() -> None:
    assert join([answer("a", 0)]) == answer("a", 0)
    assert join([FAILED]) == FAILED


def test_several_answers_stand_in_one_result_with_the_sums_of_their_counters() -> None:
    records = [answer("a", 0), answer("b", 1, done_reason="length", attempts=3, seconds=0.2), answer("c", 2)]

    joined = join(records)

    assert joined["responses"] == records
    assert (joined["response"], joined["done_reason"], joined["attempts"]) == ("a", "length", 3)
    assert (joined["seconds"], joined["prompt_tokens"], joined["eval_tokens"]) == (0.4, 9, 21)
    assert joined["finished"] == 102.0
    assert "seed" not in joined


def test_one_failed_answer_is_the_failure_of_its_line_and_the_others_are_kept() -> None:
    records = [answer("a", 0), FAILED, answer("c", 2)]

    joined = join(records)

    assert (joined["outcome"], joined["class"], joined["attempts"]) == ("failure", "timeout", 4)
    assert joined["message"] == "1 of 3 answers failed, the first since no answer"
    assert joined["responses"] == [records[0], records[2]]


def test_line_of_failures_alone_keeps_nothing() -> None:
    assert "responses" not in join([FAILED, FAILED])
