"""Made-up answers fit their schemas and never change."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest

from obcd.standins.simulated.made_up_answers import WORDS, fitting_text, fitting_value, normal, words


def test_words_are_as_many_as_asked_for_and_always_the_same() -> None:
    assert len(set(WORDS)) == 256
    assert len(words(b"seed", 40).split()) == 40
    assert words(b"seed", 40) == words(b"seed", 40) != words(b"other", 40)


def test_normal_draws_have_mean_zero_and_deviation_one() -> None:
    draws = [normal(Random(number).randbytes(12)) for number in range(2000)]

    mean = sum(draws) / len(draws)
    assert abs(mean) < 0.1
    assert sum((draw - mean) ** 2 for draw in draws) / len(draws) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("seed", [b"a", b"b", b"c"])
def test_object_has_its_properties_with_their_types(seed: bytes) -> None:
    schema = {
        "type": "object",
        "properties": {
            "mood": {"enum": ["glad", "sad"]},
            "count": {"type": "integer", "minimum": 3, "maximum": 5},
            "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 3},
            "kind": {"const": "note"},
            "maybe": {"type": ["null", "boolean"]},
            "code": {"type": "string", "minLength": 12, "maxLength": 14},
        },
        "required": ["mood", "extra"],
    }

    value: Any = fitting_value(schema, seed)

    assert value["mood"] in {"glad", "sad"}
    assert value["count"] in {3, 4, 5}
    assert 0 < value["share"] <= 1
    assert [type(tag) for tag in value["tags"]] == [str, str, str]
    assert (value["kind"], type(value["maybe"]), "extra" in value) == ("note", bool, True)
    assert 12 <= len(value["code"]) <= 14
    assert value == fitting_value(schema, seed)


def test_references_and_combinations_are_followed() -> None:
    schema: dict[str, Any] = {
        "$defs": {"name": {"type": "string", "enum": ["Ada"]}, "tree": {
            "type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}}},
        "allOf": [{"properties": {"a": {"$ref": "#/$defs/name"}}}, {"properties": {"b": {"type": "integer"}}}],
    }  # fmt: skip

    value: Any = fitting_value(schema, b"seed")

    assert value["a"] == "Ada"
    assert isinstance(value["b"], int)
    assert fitting_value({"$ref": "#/$defs/tree", "$defs": schema["$defs"]}, b"seed") is not None
    assert isinstance(fitting_value({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, b"seed"), bool)


@pytest.mark.parametrize(
    "pattern", [r"^\d{4}-\d{2}$", r"^[A-Z]{2,3}[0-9]+$", r"(yes|no) please", r"^[^a-z]x?$", r"\w+@\w+\.org"]
)
def test_texts_match_simple_patterns(pattern: str) -> None:
    for number in range(20):
        assert re.search(pattern, fitting_text(pattern, Random(number)))


@pytest.mark.parametrize("pattern", [r"^(?=x)y$", "[", "(", "a{x}"])
def test_pattern_beyond_our_means_gives_a_word(pattern: str) -> None:
    assert fitting_text(pattern, Random(1)) in WORDS
