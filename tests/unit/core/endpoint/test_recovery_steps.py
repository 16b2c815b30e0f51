"""What is done about an endpoint that answers nobody: one step after the other, and never one too many."""

from __future__ import annotations

import itertools

import pytest

from obcd.core.endpoint.recovery_steps import (
    MOVES,
    REST_BASE,
    REST_LIMIT,
    RESTING,
    RecoveryFinding,
    RecoveryStep,
    RecoverySteps,
)
from obcd.errors import IllegalMoveError
from tests.golden.wording import wording

YES, NO, SILENT, ERROR = RecoveryFinding.YES, RecoveryFinding.NO, RecoveryFinding.SILENT, RecoveryFinding.ERROR


def steps_after(*findings: RecoveryFinding, now: float = 0.0) -> RecoverySteps:
    steps = RecoverySteps("gpu0")
    assert steps.begin(now)
    for finding in findings:
        steps.note(finding, now)
    return steps


@pytest.mark.parametrize(
    ("findings", "step", "words"),
    [
        ((NO,), RecoveryStep.OVER, wording("its-model-is-not-loaded")),
        ((YES, YES), RecoveryStep.OVER, wording("it-is-slow-and-does-not")),
        ((YES, ERROR), RecoveryStep.OVER, wording("does-not-hang")),
        ((YES, SILENT, YES, YES, YES), RecoveryStep.OVER, wording("it-hung-its-model-is-unloaded")),
        ((SILENT,), RecoveryStep.REST, wording("start-the-server-again")),
        ((YES, SILENT, YES, ERROR), RecoveryStep.REST, wording("start-the-server-again")),
        ((YES, SILENT, YES, YES, NO), RecoveryStep.REST, wording("cannot-be-unloaded-it-stays-loaded")),
    ],
    ids=["not loaded", "slow", "errors", "hangs", "wedged", "refuses", "stays"],
)
def test_round_ends_where_it_should(findings: tuple[RecoveryFinding, ...], step: RecoveryStep, words: str) -> None:
    steps = steps_after(*findings)

    assert (steps.step, steps.is_at_rest) == (step, True)
    assert words in steps.sentence


def test_nothing_is_unloaded_before_a_token_failed_to_come_and_what_is_in_flight_was_broken_off() -> None:
    # given every way up to an unload
    ways: list[tuple[RecoveryStep, ...]] = [(RecoveryStep.LOOK,)]
    found = []
    while ways:
        way = ways.pop()
        for (step, finding), after in MOVES.items():
            if step is way[-1] and after not in RESTING:
                ways.append((*way, after))
                if after is RecoveryStep.UNLOAD:
                    found.append((*way, finding))

    # then there is but one
    assert [way[:3] for way in found] == [(RecoveryStep.LOOK, RecoveryStep.TOKEN, RecoveryStep.CANCEL)]
    assert [key for key, after in MOVES.items() if after is RecoveryStep.CANCEL] == [(RecoveryStep.TOKEN, SILENT)]


@pytest.mark.parametrize("step", [step for step in RecoveryStep if step not in RESTING])
def test_every_step_has_a_move_for_silence_and_for_errors_but_ours(step: RecoveryStep) -> None:
    calls = {RecoveryStep.LOOK, RecoveryStep.TOKEN, RecoveryStep.UNLOAD, RecoveryStep.GONE}

    assert {finding for at, finding in MOVES if at is step} >= ({SILENT, ERROR} if step in calls else {YES})


def test_what_cannot_come_of_a_step_is_an_error_and_changes_nothing() -> None:
    steps = steps_after(YES)

    with pytest.raises(IllegalMoveError):
        steps.note(NO, 0.0)
    with pytest.raises(IllegalMoveError):
        steps.begin(0.0)

    assert steps.step is RecoveryStep.TOKEN


def test_rests_grow_until_somebody_is_answered() -> None:
    steps, now, pauses = RecoverySteps("gpu0"), 0.0, []
    for _ in range(12):
        assert steps.begin(now)
        steps.note(SILENT, now)
        pauses.append(steps.retry_at - now)
        assert not steps.begin(steps.retry_at - 0.001)
        now = steps.retry_at

    assert 0.75 * REST_BASE <= pauses[0] <= REST_BASE
    assert all(later > 1.3 * earlier for earlier, later in itertools.pairwise(pauses[:6]))
    assert max(pauses) <= REST_LIMIT

    steps.on_answer()
    assert (steps.step, steps.sentence) == (RecoveryStep.CALM, "")
    assert steps.begin(now)
    steps.note(SILENT, now)
    assert steps.retry_at - now == pytest.approx(pauses[0])


def test_round_that_helped_makes_no_pause_before_the_next_one() -> None:
    steps = steps_after(YES, SILENT, YES, YES, YES)

    assert steps.begin(0.0)


def test_answer_in_the_middle_of_a_round_does_not_break_it_off() -> None:
    steps = steps_after(YES, SILENT, YES)

    steps.on_answer()

    assert steps.step is RecoveryStep.UNLOAD
