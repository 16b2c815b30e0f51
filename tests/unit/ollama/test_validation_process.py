"""Judging in a process of its own."""

from __future__ import annotations

import json

import pytest

from obcd.core.schema.schemas import Fit, Misfit, Schema
from obcd.ollama import validation_process
from obcd.ollama.validation_process import judge_apart
from tests.golden.wording import wording

SCHEMA = {"properties": {"age": {"type": "integer"}}}


@pytest.mark.parametrize(
    "answer", ['{"age": 5}', '<think>so</think>{"age": "5"}', '{"age": "x"}', "no", '{"age": "\\ud800"}', "\ud800 {}"]
)
def test_judgement_is_the_same_as_here(answer: str) -> None:
    assert judge_apart(SCHEMA, answer) == Schema(SCHEMA).judge(answer)


def test_judgement_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_process, "SECONDS", 0.1)
    text = json.dumps("a" * 100_000)

    judged = judge_apart({"pattern": "(?:(?=.*x).)+y"}, f"<think>so</think>{text}")

    assert isinstance(judged, Misfit)
    assert judged.reason == wording("the-schema-takes-longer-than-0-2")
    assert (judged.text, judged.thoughts, judged.is_final) == (text, "so", True)


def test_judgement_that_may_take_long_and_does_not_is_made() -> None:
    schema = {"pattern": "^(?:(?!--)[a-z-])+$"}
    long = json.dumps("a" * 20_000)

    assert isinstance(judge_apart(schema, long), Fit)
    assert isinstance(judge_apart(schema, json.dumps("a--" * 5000)), Misfit)
