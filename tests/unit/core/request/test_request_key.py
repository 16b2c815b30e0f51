from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings
from obcd.core.request.request_key import KEPT_BYTES, DuplicateFinder, digest_of, key_of, times_of

COLD = JobSettings(model="llama3.2", options={"temperature": 0})
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f"}}
STRICT = {"type": "function", "function": {"name": "f", "strict": True}}
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
        key({"prompt": "Why?", "tools": [TOOL]}),
        key({"prompt": "Why?", "tools": [STRICT]}),
        key({"prompt": "Why?", "tools": [STRICT]}, replace(COLD, repairs=0)),
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


def test_first_equal_one_of_each_is_found_however_many_there_are() -> None:
    # given as many different ones as make the table grow thrice, each about three times, and some that are like none
    drawn = random.Random(7)
    values = [drawn.randrange(9000) for _ in range(27_000)]
    sames, seen = DuplicateFinder(), dict[int, int]()

    for ordinal, value in enumerate(values):
        if ordinal % 100 == 0:
            assert sames.take(None) == ordinal
        else:
            digest = hashlib.sha256(str(value).encode()).digest()
            assert sames.take(digest) == seen.setdefault(value, ordinal)

    assert sames.repeated == len(values) - len(values) // 100 - len(seen)


def test_digests_that_begin_alike_are_not_the_same() -> None:
    sames, begun = DuplicateFinder(), b"x" * (KEPT_BYTES - 1)

    assert [sames.take(begun + end) for end in (b"a", b"b", b"a", b"b", b"c")] == [0, 1, 0, 1, 4]


def test_zeros_are_a_digest_as_any() -> None:
    sames = DuplicateFinder()

    assert [sames.take(digest) for digest in (None, bytes(32), None, bytes(32))] == [0, 1, 2, 1]


def test_memory_is_at_most_32_bytes_a_request() -> None:
    sames = DuplicateFinder()
    for number in range(100_000):
        sames.take(number.to_bytes(32, "little"))

    assert len(sames._digests) + 4 * len(sames._table) <= 32 * 100_000


def test_each_first_one_counts_for_all_of_its_kind() -> None:
    assert list(times_of([0, 1, 0, 3, 0, 1])) == [3, 2, 0, 1, 0, 0]


def test_requests_at_any_temperature_can_be_the_same() -> None:
    warm = replace(COLD, options={"temperature": 1.0})
    one, other = (parse_line(json.dumps({"prompt": text}).encode(), 1) for text in ("a", "b"))

    assert digest_of(one, warm) == digest_of(one, warm)
    assert len({digest_of(one, warm), digest_of(other, warm), digest_of(one, COLD), digest_of(one, warm, "x")}) == 4
