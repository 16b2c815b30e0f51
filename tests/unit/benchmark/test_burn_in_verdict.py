"""Who is named after a burn-in, and by which evidence."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from obcd.benchmark.burn_in_verdict import BurnInTally, Evidence, find_oddities, find_usual
from obcd.benchmark.samples import Sample
from tests.golden.wording import wording

PROMPTS, SECONDS, SLOTS = 8, 120.0, 4
#: The digest of a card's answer to a prompt.
Answerer = Callable[[int, random.Random], int]


def right(prompt: int, _chance: random.Random) -> int:
    return prompt


def wrong_at(rate: float) -> Answerer:
    return lambda prompt, chance: chance.getrandbits(32) + 1000 if chance.random() < rate else prompt


def always_another(prompt: int, _chance: random.Random) -> int:
    return prompt + 500


def card(
    answer: Answerer = right, seconds: float = 1.0, *, late: float = 1.0, failed: int = 0, seed: int = 0
) -> BurnInTally:
    """Return the tally of a card whose requests take so long, from half of the time on `late` times as long."""
    tally, chance = BurnInTally(SLOTS, PROMPTS, 1000.0, SECONDS), random.Random(seed)
    for slot in range(SLOTS):
        now, number = 1000.0, slot
        while now < 1000.0 + SECONDS:
            took = seconds * (late if now > 1000.0 + SECONDS / 2 else 1.0)
            digest = answer(number % PROMPTS, chance)
            tally.take(Sample(prompt=number, began=now, ended=now + took, tokens=50, eval_seconds=took, digest=digest))
            now, number = now + took, number + SLOTS + 1
    for _ in range(failed):
        tally.take(Sample(prompt=0, began=1000.0, ended=1000.1, fault="crashed", message="the process crashed"))
    return tally


def named(**cards: BurnInTally) -> list[tuple[str, Evidence]]:
    return [(item.endpoint, item.evidence) for item in find_oddities(cards, dict.fromkeys(cards, "digest"))]


def test_cards_that_are_alike_are_not_named() -> None:
    assert named(a=card(), b=card(seconds=1.02), c=card(seconds=0.97), d=card()) == []


def test_speed_is_told_without_the_start() -> None:
    tally = BurnInTally(1, PROMPTS, 0.0, SECONDS)
    for second in range(11, 120):
        tally.take(Sample(prompt=0, began=second, ended=second + 1.0, tokens=50, eval_seconds=1.0))

    assert tally.tokens_per_second == pytest.approx(50.0, rel=0.02)
    assert card().tokens_per_second == pytest.approx(200.0, rel=0.01)


def test_card_that_answers_wrongly_now_and_then_is_named() -> None:
    found = named(a=card(), b=card(), c=card(wrong_at(0.05), seed=1))

    assert found == [("c", Evidence.ANSWERS), ("c", Evidence.UNSTEADY)]


def test_card_that_always_answers_in_another_way_is_not_called_unsteady() -> None:
    tallies = {"a": card(), "b": card(always_another), "c": card()}

    (only,) = find_oddities(tallies, dict.fromkeys(tallies, "digest"))

    assert (only.endpoint, only.evidence) == ("b", Evidence.ANSWERS)
    assert wording("in-the-same-way") in only.sentence


def test_answers_that_differ_on_every_card_are_no_evidence() -> None:
    restless = {name: card(wrong_at(0.2), seed=number) for number, name in enumerate("abcdef")}

    assert named(**restless) == []


def test_card_that_is_worse_than_restless_ones_is_named() -> None:
    restless = {name: card(wrong_at(0.1), seed=number) for number, name in enumerate("abcde")}

    assert ("f", Evidence.ANSWERS) in named(**restless, f=card(wrong_at(0.6), seed=9))


def test_two_odd_cards_of_five_are_both_named() -> None:
    found = named(a=card(), b=card(wrong_at(0.1), seed=1), c=card(), d=card(wrong_at(0.1), seed=2), e=card())

    assert {name for name, _ in found} == {"b", "d"}


def test_card_that_is_three_times_slower_is_named() -> None:
    assert named(a=card(), b=card(), c=card(seconds=3.0)) == [("c", Evidence.SPEED)]


def test_card_that_fails_where_the_others_do_not_is_named_with_the_reason() -> None:
    tallies = {"a": card(), "b": card(failed=1), "c": card()}

    (only,) = find_oddities(tallies, dict.fromkeys(tallies, "digest"))

    assert (only.endpoint, only.evidence) == ("b", Evidence.ERRORS)
    assert "1 of" in only.sentence
    assert "the process crashed" in only.sentence


def test_card_that_never_answered_is_named() -> None:
    silent = BurnInTally(SLOTS, PROMPTS, 1000.0, SECONDS)
    silent.take(Sample(prompt=0, began=0.0, ended=0.0, fault="load_failed", message="not enough memory"))

    assert ("c", Evidence.ERRORS) in named(a=card(), b=card(), c=silent)


def test_card_that_slows_down_is_named_though_it_is_alone() -> None:
    assert named(a=card(late=1.5)) == [("a", Evidence.SLOWING)]
    assert named(a=card(late=1.05)) == []


def test_run_that_was_too_short_says_nothing_of_slowing_down() -> None:
    tally = BurnInTally(SLOTS, PROMPTS, 0.0, SECONDS)
    for number in range(SLOTS):
        tally.take(Sample(prompt=number, began=0.0, ended=30.0, tokens=50, eval_seconds=30.0))

    assert tally.late_share is None


def test_run_that_was_broken_off_counts_until_then() -> None:
    tally = BurnInTally(1, PROMPTS, 0.0, SECONDS)
    for second in range(60):
        tally.take(Sample(prompt=0, began=second, ended=second + 1.0, tokens=50, eval_seconds=1.0))
    tally.end(60.0)

    assert tally.tokens_per_second == pytest.approx(50.0)
    assert tally.late_share == pytest.approx(1.0)


def test_answers_that_were_in_flight_at_the_end_are_no_slowing_down() -> None:
    # Four slots, begun one after the other, and answers of ten seconds: those in flight at 60 s are lost.
    tally = BurnInTally(SLOTS, PROMPTS, 0.0, SECONDS)
    for slot in range(SLOTS):
        for number in range(6):
            began = 2.5 * slot + 10.0 * number
            if began + 10.0 <= 60.0:
                tally.take(Sample(prompt=0, began=began, ended=began + 10.0, tokens=500, eval_seconds=10.0))
    tally.end(60.0)

    assert tally.tokens_per_second == pytest.approx(200.0, rel=0.05)


def test_of_two_that_differ_both_are_named() -> None:
    assert named(a=card(), b=card(always_another)) == [("a", Evidence.SPLIT), ("b", Evidence.SPLIT)]


def test_of_two_the_one_that_contradicts_itself_is_named() -> None:
    most_often_wrong: Answerer = lambda prompt, chance: prompt + 700 if chance.random() < 0.6 else prompt  # noqa: E731

    assert named(a=card(), b=card(wrong_at(0.1), seed=1)) == [("b", Evidence.UNSTEADY)]
    assert named(a=card(), b=card(most_often_wrong, seed=1)) == [("b", Evidence.UNSTEADY)]


def test_card_with_other_weights_is_named() -> None:
    tallies = {"a": card(), "b": card(), "c": card()}

    found = find_oddities(tallies, {"a": "one", "b": "two", "c": "one"})

    assert [(item.endpoint, item.evidence) for item in found] == [("b", Evidence.MODEL)]


def test_prompt_without_a_majority_is_not_compared() -> None:
    tallies = {"a": card(), "b": card(always_another), "c": card(lambda prompt, _: prompt + 900)}

    assert find_usual(tallies) == {}
    assert tallies["a"].count_other({}) == (0, 0)


def test_endpoint_has_one_vote_however_fast_it_is() -> None:
    tallies = {"a": card(), "b": card(), "c": card(always_another, seconds=0.1)}

    assert find_usual(tallies) == {prompt: prompt for prompt in range(PROMPTS)}
