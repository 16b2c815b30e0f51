from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from obcd.core.lines import parse_line
from obcd.core.records import JobSettings
from obcd.core.sameness import key_of

COLD = JobSettings(model="llama3.2", options={"temperature": 0})
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
LINE: dict[str, Any] = {"prompt": "Why?", "system": "Be short.", "format": SCHEMA}


def key(line: dict[str, Any], settings: JobSettings = COLD, digest: str = "a80c4f17acd5", number: int = 1) -> Any:
    return key_of(parse_line(json.dumps(line).encode(), number), settings, digest)


def test_equal_questions_have_one_key_wherever_they_stand() -> None:
    assert len(key(LINE)) == 32
    assert key(LINE) == key({**LINE, "id": "other", "ward": 7}, number=9)
    assert key(LINE) == key(LINE, replace(COLD, model="Llama3.2:latest", attempts=1, request_timeout_seconds=1.0))
    ordered, turned = ({"seed": 1, "top_k": 2}, {"top_k": 2, "seed": 1})
    assert key({**LINE, "options": ordered}) == key({**LINE, "options": turned})


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Why? "},
        {"system": ""},
        {"model": "qwen2.5"},
        {"options": {"num_ctx": 4096}},
        {"options": {"num_predict": 9}},
        {"options": {"seed": 1}},
        {"think": True},
        {"logprobs": True},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        # a grammar has the order of its schema's keys
        {"format": {"type": "object", "properties": dict(reversed(SCHEMA["properties"].items()))}},  # type: ignore[attr-defined]
        {"format": "json"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_an_answer_depends_on_changes_the_key(change: dict[str, Any]) -> None:
    assert key({**LINE, **change}) not in (None, key(LINE))


def test_weights_kind_and_how_the_answer_is_held_to_its_schema_change_the_key() -> None:
    found = [
        key(LINE),
        key(LINE, digest="6a0746a1ec1a"),
        key(LINE, replace(COLD, repairs=0)),
        key(LINE, replace(COLD, send_schema=False)),
        key({"prompt": "Why?"}),
        key({"complete": "Why?"}),
        key({"embed": "Why?"}),
    ]

    assert None not in found
    assert len(set(found)) == len(found)


def test_only_what_is_answered_alike_each_time_has_a_key() -> None:
    warm = replace(COLD, options={})

    assert key(LINE, warm) is None
    assert key({**LINE, "options": {"temperature": 0.1}}) is None
    assert key({**LINE, "options": {"seed": -1}}, warm) is None  # Ollama draws one
    assert key({**LINE, "options": {"seed": 0}}, warm) is not None
    assert key({**LINE, "options": {"temperature": 0.0}}, warm) is not None
    assert key({"embed": "Why?"}, warm) is not None
