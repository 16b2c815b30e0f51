"""The catalogue of sentences holds what tests use, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.golden.wording import SENTENCES, wording

TESTS = Path(__file__).parents[1]


def test_every_sentence_is_expected_by_a_test() -> None:
    calls = re.compile(r'\bwording\(\s*"([^"]+)"')
    used = {key for path in TESTS.rglob("*.py") for key in calls.findall(path.read_text("utf-8"))}

    assert used == set(SENTENCES)


def test_no_sentence_stands_there_twice() -> None:
    assert len(set(SENTENCES.values())) == len(SENTENCES)


def test_facts_fill_the_gaps_and_must_be_as_many() -> None:
    key = next(key for key, text in SENTENCES.items() if text.count("{}") == 1)

    assert "card 7" in wording(key, "card 7")
    with pytest.raises(ValueError, match="zip"):
        wording(key, "one", "two")
