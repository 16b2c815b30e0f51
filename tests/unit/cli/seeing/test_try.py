"""`obcd try`: what it says when its time is over."""

from __future__ import annotations

from obcd.cli.seeing.try_ import _not_yet
from tests.golden.wording import wording


def test_trial_that_takes_too_long_says_how_long_why_and_what_to_do() -> None:
    said = _not_yet("notes.try.jsonl", 600.0, "waits for its window", is_coordinated=True)

    assert said == wording("not-answered-within")


def test_trial_without_a_coordinator_says_how_to_start_one() -> None:
    said = _not_yet("notes.try.jsonl", 600.0, "", is_coordinated=False)

    assert said.startswith(wording("not-answered-and-no-coordinator"))
    assert "obcd" in said.rpartition(": ")[2]
