"""Schemas that take too long: none holds a thread for longer than it may, whatever makes it slow."""

from __future__ import annotations

import json
import threading
import tracemalloc
from typing import Any

import jsonschema
import pytest

from obcd.core.schema import schemas, validation_limits
from obcd.core.schema.schemas import Fit, Misfit, Schema, check_schema
from obcd.core.schema.validation_limits import OverdueError, spend, within

#: Some sixty letters are enough: what a search does doubles with about each of them.
EVIL = "^(a|aa)+$"
LETTERS = "a" * 60 + "b"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"

#: Without the limit these take minutes to years; the one of pytest ends them then.
pytestmark = pytest.mark.timeout(20)


def doubled(keyword: str, depth: int, end: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of which each part is looked at twice by the part before it."""
    parts = {f"p{n}": {keyword: [{"$ref": f"#/$defs/p{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/p0", "$defs": {**parts, f"p{depth}": end}}


def dependent(depth: int) -> dict[str, Any]:
    """Return the same by what is evaluated, where no keyword is come by on the way."""
    twice = [{"dependentSchemas": {key: {"$ref": f"#/$defs/p{n + 1}"} for key in "xy"}} for n in range(depth)]
    parts = {f"p{n}": part for n, part in enumerate(twice)}
    return {"unevaluatedProperties": False, "$ref": "#/$defs/p0", "$defs": {**parts, f"p{depth}": {}}}


EVIL_ONES: dict[str, tuple[dict[str, Any], Any]] = {
    "pattern": ({"pattern": EVIL}, LETTERS),
    "patternProperties": ({"patternProperties": {EVIL: True}}, {LETTERS: 1}),
    "additionalProperties": ({"additionalProperties": False, "patternProperties": {EVIL: True}}, {LETTERS: 1}),
    "propertyNames": ({"propertyNames": {"pattern": EVIL}}, {LETTERS: 1}),
    "draft 7": ({"$schema": DRAFT_7, "pattern": EVIL}, LETTERS),
    "another draft further down": ({"items": {"$schema": DRAFT_7, "pattern": EVIL}}, [LETTERS]),
    "data that is referred to": ({"$ref": "#/default", "default": {"$schema": DRAFT_7, "pattern": EVIL}}, LETTERS),
    "anyOf": (doubled("anyOf", 30, {"type": "null"}), 1),
    "allOf": (doubled("allOf", 30, {"type": "integer"}), 1),
    "oneOf": (doubled("oneOf", 30, {"type": "null"}), 1),
    "what is evaluated": (dependent(30), {"x": 1, "y": 1}),
    "contains": ({"contains": {"enum": [[n] for n in range(20_000)]}}, [[-1]] * 20_000),
}


@pytest.mark.parametrize(("schema", "answer"), EVIL_ONES.values(), ids=EVIL_ONES)
def test_answer_that_takes_too_long_is_a_misfit_that_is_not_asked_again(
    schema: dict[str, Any], answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "SECONDS", 0.05)

    judged = Schema(schema).judge(json.dumps(answer))

    assert isinstance(judged, Misfit)
    assert judged.reason == "the schema takes longer than 0.05 s on this answer: simplify it (patterns, anyOf)"
    assert judged.is_final


@pytest.mark.parametrize("keyword", ["anyOf", "allOf", "oneOf"])
def test_schema_that_takes_too_long_for_any_answer_is_refused(keyword: str) -> None:
    assert check_schema(doubled(keyword, 30, {"type": "boolean"} if keyword != "allOf" else {})) == (
        "it takes too long to check: simplify it (patterns, anyOf)"
    )


@pytest.mark.parametrize("pattern", ["[a-z]" * 990, "(a{90}){90}", "(()()){600}"])
def test_schema_of_patterns_that_take_too_long_together_is_refused(pattern: str) -> None:
    few, many = ({"properties": {f"f{n}": {"pattern": f"{n}{pattern}"} for n in range(count)}} for count in (20, 2000))

    assert check_schema(few) == ""
    assert check_schema(many) == "it takes too long to check: simplify it (patterns, anyOf)"


def test_check_of_a_schema_is_counted_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"properties": {f"f{n}": {"type": "string"} for n in range(100)}}
    found = []
    for steps in range(1000, 9000, 200):
        schemas._why_unusable.cache_clear()
        monkeypatch.setattr(schemas, "STEPS", steps)
        found.append(check_schema(schema) == "")
    schemas._why_unusable.cache_clear()

    assert set(found) == {False, True}
    assert found == sorted(found)  # from some number of steps on it is taken, and always from there on


def test_faults_are_bounded_in_number_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    long, many = json.dumps("x" * 30_000), json.dumps(["x"] * 1000)
    schema = {"anyOf": [{"type": "integer"}] * 3000}
    tracemalloc.start()

    judged = Schema(schema).judge(long)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    monkeypatch.setattr(validation_limits, "MOST_FAULTS", 500)
    too_many = Schema({"anyOf": [{"items": {"type": "integer"}}]}).judge(many)

    assert isinstance(judged, Misfit)
    assert peak < 30_000_000
    assert isinstance(too_many, Misfit)
    assert too_many.reason == ("the schema finds more than 500 faults on this answer: simplify it (patterns, anyOf)")


def test_unevaluated_items_are_looked_for_in_lists_of_some_length_alone() -> None:
    schema = Schema({"prefixItems": [{"type": "integer"}], "unevaluatedItems": {"type": "string"}})
    most = [1, *["x"] * (validation_limits.MOST_UNEVALUATED - 1)]

    assert isinstance(schema.judge(json.dumps(most)), Fit)
    judged = schema.judge(json.dumps([*most, "x"]))

    assert isinstance(judged, Misfit)
    assert judged.reason.startswith(
        "the schema has `unevaluatedItems` for a list of more than 2000 items on this answer"
    )
    assert judged.is_final


def test_many_different_items_are_told_apart_in_no_time() -> None:
    items = [{"a": n} for n in range(10_000)]
    schema = Schema({"uniqueItems": True})

    assert schema.judge(json.dumps(items)) == Fit(items, json.dumps(items))
    assert isinstance(schema.judge(json.dumps([*items, {"a": 0}])), Misfit)
    assert check_schema({"$schema": "http://json-schema.org/draft-04/schema#", "enum": items}) == ""
    assert check_schema({"required": items}) != ""


@pytest.mark.parametrize(
    "items",
    [
        [], [1], [1, 1], [1, 1.0], [1, True], [0, False], [None, False, 0, "", [], {}], ["a", "a"], [[1], [1.0]],
        [[1], [True]], [{"a": 1, "b": [2]}, {"b": [2], "a": 1.0}], [{"a": 1}, {"a": 1, "b": 1}], [[["list"]], ["list"]],
    ],
)  # fmt: skip
def test_items_are_unique_as_jsonschema_has_it(items: list[Any]) -> None:
    schema = {"uniqueItems": True}

    judged = Schema(schema).judge(json.dumps(items))

    assert isinstance(judged, Fit) == jsonschema.Draft202012Validator(schema).is_valid(items)


@pytest.mark.parametrize(
    ("pattern", "fitting", "misfit"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", "2025-03-11", "2025-3-11"),
        (r"^(?=.*\d)(?!.*\s).{3,8}$", "ab1", "ab 1"),
        (r"^\p{L}+$", "Jürgen", "J2"),
        (r"^(?<year>\d{4})$", "2025", "25"),
        (r"^([0-9A-F]{2}:){5}[0-9A-F]{2}$", "00:1A:2B:3C:4D:5E", "00:1A"),
        (r"^\p{Lu}{20}\p{Nd}{20}\p{L}{20}$", "A" * 20 + "1" * 20 + "b" * 20, "A" * 60),
        ("b", "abc", "ac"),
    ],
)
def test_pattern_is_held_to(pattern: str, fitting: str, misfit: str) -> None:
    schema = {"pattern": pattern}

    assert check_schema(schema) == ""
    assert isinstance(Schema(schema).judge(json.dumps(fitting)), Fit)
    assert isinstance(Schema(schema).judge(json.dumps(misfit)), Misfit)


@pytest.mark.parametrize(
    ("step", "number", "is_multiple"),
    [
        (0.01, 19.99, True), (0.01, 0.29, True), (0.01, 0.295, False), (0.1, 3, True), (2, 4.0, True), (2, 3, False),
        (0.01, 1e300, True), (1e-300, 5e-300, True), (3, 10**400, False), (0.5, -1.5, True), (0.01, "19.999", True),
    ],
)  # fmt: skip
def test_multiple_is_one_of_the_number_as_it_is_written(step: float, number: Any, is_multiple: bool) -> None:
    assert isinstance(Schema({"multipleOf": step}).judge(json.dumps(number)), Fit) == is_multiple


@pytest.mark.parametrize(
    ("more", "record", "told"),
    [
        ({}, {"a": 1, "x-1": 1}, None),
        ({}, {"a": 1, "x-1": "y"}, "At $.x-1: 'y' is not of type 'integer'"),
        ({}, {"a": 1, "b": 1}, None),
        ({"additionalProperties": False}, {"a": 1, "x-1": 1}, None),
        (
            {"additionalProperties": False},
            {"a": 1, "x-1": 1, "b": 1},
            "At $: Additional properties are not allowed ('b' was unexpected)",
        ),
        ({"additionalProperties": {"type": "null"}}, {"a": 1, "x-1": 1, "b": None}, None),
        ({"additionalProperties": {"type": "null"}}, {"b": 1}, "At $.b: 1 is not of type 'null'"),
        ({"additionalProperties": False}, 5, None),
    ],
)
def test_properties_are_found_by_name_or_pattern(more: dict[str, Any], record: Any, told: str | None) -> None:
    schema = Schema({"properties": {"a": {}}, "patternProperties": {"^x-": {"type": "integer"}}, **more})

    judged = schema.judge(json.dumps(record))

    assert (judged.told if isinstance(judged, Misfit) else None) == told


def test_draft_of_a_part_goes_on_for_its_parts() -> None:
    # `items` was a list in draft 7; in 2020-12 a list there is none.
    schema = {"properties": {"a": {"$schema": DRAFT_7, "items": [{"type": "string"}]}}}

    assert isinstance(Schema(schema).judge('{"a": ["x", 1]}'), Fit)
    assert isinstance(Schema(schema).judge('{"a": [1]}'), Misfit)


def test_limit_is_that_of_its_thread() -> None:
    judged: list[Fit | Misfit] = []
    schema = Schema({"type": "integer"})
    with within(-1):
        thread = threading.Thread(target=lambda: judged.append(schema.judge("1")))
        thread.start()
        thread.join()

        with pytest.raises(OverdueError):
            spend()

    assert judged == [Fit(1, "1")]
    assert spend() > 0
