"""Limits that follow an endpoint's speed: a hang is noticed, and no honest request meets one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from obcd.core.answer.outcomes import Cost
from obcd.core.endpoint.deadlines import KNOWN, LEAST_SECONDS, Deadlines
from obcd.core.request.records import Signature

MODEL, OTHER = Signature("llama3.2:latest", (("num_ctx", 8192),)), Signature("qwen2.5:latest", (("num_ctx", 8192),))
LONGEST = 2000
MOST = 600.0


def answer(seconds_a_token: float, wait: float = 0.0) -> Cost:
    return Cost(
        wait_seconds=wait,
        prompt_tokens=1000,
        prompt_eval_seconds=0.5,
        eval_tokens=100,
        eval_seconds=100 * seconds_a_token,
    )


def learned(seconds_a_token: float, wait: float = 0.0, answers: int = KNOWN) -> Deadlines:
    deadlines = Deadlines()
    for _ in range(answers):
        deadlines.note(MODEL, answer(seconds_a_token, wait))
    return deadlines


def test_limit_is_a_multiple_of_what_the_longest_answer_takes() -> None:
    # given an endpoint that reads 2,000 tokens a second and writes 100
    deadlines = learned(0.01)

    # when a prompt of 10,000 bytes may be answered by 2,000 tokens, which take 2.5 s and 20 s
    limit = deadlines.limit(MODEL, 10_000, LONGEST, 1, MOST)

    assert limit == pytest.approx(4 * (2.5 + 20))


def test_wait_in_the_server_is_part_of_it() -> None:
    assert learned(0.01, wait=30.0).limit(MODEL, 0, LONGEST, 1, MOST) == pytest.approx(4 * (30 + 20))


def test_each_further_attempt_gets_twice_the_time_and_never_more_than_configured() -> None:
    deadlines = learned(0.01)

    limits = [deadlines.limit(MODEL, 0, LONGEST, attempt, MOST) for attempt in range(1, 6)]

    assert limits == pytest.approx([80, 160, 320, 600, 600])


def test_quick_answers_leave_a_stutter_its_time() -> None:
    assert learned(0.0001).limit(MODEL, 0, LONGEST, 1, MOST) == LEAST_SECONDS


def test_slow_endpoint_gets_the_time_it_needs() -> None:
    quick, slow = learned(0.01), learned(0.05)

    assert slow.limit(MODEL, 0, LONGEST, 1, MOST) == pytest.approx(5 * quick.limit(MODEL, 0, LONGEST, 1, MOST))


@pytest.mark.parametrize(
    ("deadlines", "longest"),
    [
        (Deadlines(), LONGEST),
        (learned(0.01, answers=KNOWN - 1), LONGEST),
        (learned(0.01), -1),
    ],
    ids=["nothing known", "too little known", "answers without end"],
)
def test_limit_is_the_configured_one_where_nothing_is_known(deadlines: Deadlines, longest: int) -> None:
    assert deadlines.limit(MODEL, 0, longest, 1, MOST) == MOST


def test_what_is_known_of_one_model_is_not_believed_of_another() -> None:
    assert learned(0.01).limit(OTHER, 0, LONGEST, 1, MOST) == MOST


def test_speed_that_changes_is_followed() -> None:
    deadlines = learned(0.01)

    for _ in range(50):
        deadlines.note(MODEL, answer(0.03))

    assert deadlines.limit(MODEL, 0, LONGEST, 1, MOST) == pytest.approx(4 * 60, rel=0.02)


def test_answers_without_tokens_teach_nothing_wrong() -> None:
    deadlines = Deadlines()
    for _ in range(KNOWN):
        deadlines.note(MODEL, answer(0.01)._replace(prompt_tokens=0, eval_tokens=0))

    assert deadlines.limit(MODEL, 0, LONGEST, 1, MOST) == LEAST_SECONDS


def test_prompts_out_of_the_servers_cache_do_not_shorten_the_limit_of_one_that_is_in_none() -> None:
    # given an endpoint that read one prompt, and then hundreds whose beginning it had in its cache
    deadlines = learned(0.01, answers=1)
    for _ in range(300):
        deadlines.note(MODEL, answer(0.01)._replace(prompt_eval_seconds=0.005))

    limit = deadlines.limit(MODEL, 10_000, LONGEST, 1, MOST)

    assert limit > 4 * (0.5 * 2.5 + 20)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda cost: cost._replace(prompt_eval_seconds=5.0), 25 + 20),
        (lambda cost: cost._replace(wait_seconds=30.0), 2.5 + 30 + 20),
        (lambda cost: cost._replace(eval_seconds=5.0), 2.5 + 100),
    ],
    ids=["reads slower", "has a queue", "writes slower"],
)
def test_endpoint_that_takes_longer_gets_more_time_at_once(change: Callable[[Cost], Cost], expected: float) -> None:
    deadlines = learned(0.01)

    deadlines.note(MODEL, change(answer(0.01)))

    assert deadlines.limit(MODEL, 10_000, LONGEST, 1, MOST) == pytest.approx(4 * expected)


def test_one_answer_that_is_quicker_shortens_the_limit_by_little() -> None:
    deadlines = learned(0.01, wait=30.0)

    deadlines.note(MODEL, answer(0.001))

    assert deadlines.limit(MODEL, 0, LONGEST, 1, MOST) > 0.9 * 4 * (30 + 20)


def test_queue_that_is_over_is_forgotten_by_and_by() -> None:
    deadlines = learned(0.01, wait=30.0)

    for _ in range(50):
        deadlines.note(MODEL, answer(0.01))

    assert deadlines.limit(MODEL, 0, LONGEST, 1, MOST) == pytest.approx(4 * 20, rel=0.02)


@pytest.mark.parametrize(
    ("deadlines", "seconds"),
    [
        (Deadlines(), LEAST_SECONDS),
        (learned(0.01), LEAST_SECONDS),
        (learned(0.01, wait=50.0), 4 * (50 + 2048 * 0.0005 + 0.01)),
    ],
    ids=["nothing known", "quick", "has a queue"],
)
def test_token_may_have_to_wait_for_a_slot_and_for_a_batch_of_somebody_elses_prompt(
    deadlines: Deadlines, seconds: float
) -> None:
    assert deadlines.token_limit(MODEL) == pytest.approx(seconds)
