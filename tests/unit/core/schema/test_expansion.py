"""Schemas that might take long: refused, or bounded before anything is compiled."""

from __future__ import annotations

import json
from time import thread_time
from typing import Any

import pytest

from obcd.core.schema.expansion import MOST_NESTED, MOST_REFERRED, MOST_STEPS, Expansion, steps_of
from obcd.core.schema.schemas import Fit, Misfit, Schema, check_schema
from tests.golden.wording import wording

DRAFT_7 = "http://json-schema.org/draft-07/schema#"

#: Without the limits these take minutes to years; the one of pytest ends them then.
pytestmark = pytest.mark.timeout(20)


def chained(depth: int, part: Any, end: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of which each part is made by `part` of a reference to the next."""
    parts = {f"p{n}": part({"$ref": f"#/$defs/p{n + 1}"}) for n in range(depth)}
    return {"$ref": "#/$defs/p0", "$defs": {**parts, f"p{depth}": end}}


def doubled(keyword: str, depth: int) -> dict[str, Any]:
    return chained(depth, lambda inner: {keyword: [inner, inner]}, {"type": "null"})


def lies(depth: int) -> Any:
    """Return an answer of that many brackets in each other."""
    answer: Any = 1
    for _ in range(depth):
        answer = {"a": answer, "b": 1}
    return answer


NODE = {"$ref": "#/$defs/n"}
#: {name: (schema, answer)}: both are taken, but not together here.
HEAVY: dict[str, tuple[dict[str, Any], Any]] = {
    "goes back": ({"pattern": "(?:(?=.*x).)+y"}, "a" * 20_000),
    "many states": ({"pattern": "[ab]*a[ab]{1000}c"}, "ab" * 20_000),
    "patternProperties": ({"patternProperties": {"[ab]*a[ab]{1000}c": True}}, {"ab" * 20_000: 1}),
    "propertyNames": ({"propertyNames": {"pattern": "(?:(?=.*x).)+y"}}, {"a" * 20_000: 1}),
    "draft 7": ({"$schema": DRAFT_7, "pattern": "(?:(?=.*x).)+y"}, "a" * 20_000),
    "data that is referred to": ({"$ref": "#/default", "default": {"pattern": "(?:(?=.*x).)+y"}}, "a" * 20_000),
    "doubled by name": (
        chained(30, lambda inner: {"anyOf": [{"properties": {"a": inner}, "required": ["q"]}] * 2}, {}),
        lies(30),
    ),
    "doubled by itself": (
        {**NODE, "$defs": {"n": {"anyOf": [{"properties": {"a": NODE}, "required": [x]} for x in "xyz"]}}},
        lies(30),
    ),
    "contains": ({"contains": {"enum": [[n] for n in range(5000)]}}, [[-1]] * 5000),
    "unique": ({"uniqueItems": True}, [{"a": [n] * 20} for n in range(20_000)]),
    "multipleOf": ({"items": {"multipleOf": 1e-300}}, [1e300] * 5000),
    "a long number": ({"multipleOf": 3}, 10**4000),
    "a long limit": ({"items": {"multipleOf": 10**4000}}, [1]),
}


@pytest.mark.parametrize(("schema", "answer"), HEAVY.values(), ids=HEAVY)
def test_what_may_take_long_is_judged_apart(schema: dict[str, Any], answer: Any) -> None:
    apart = Misfit("apart", "", "")

    assert check_schema(schema) == ""
    assert Schema(schema).judge(json.dumps(answer), lambda *_: apart) is apart


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"pattern": "^(a|aa)+$"}, "a" * 60),
        ({"pattern": "(x+x+)+y"}, "x" * 60 + "y"),
        ({"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}, "1.5"),
        ({"pattern": "^.{1,4000}$"}, "ab" * 1500),
        ({"properties": {f"p{n}": {"type": "string"} for n in range(100)}}, {f"p{n}": "x" for n in range(100)}),
        ({"anyOf": [{"type": "null"}, {"properties": {"a": {"$ref": "#"}}}]}, lies(20)),
        (chained(80, lambda inner: inner, {"type": "integer"}), 1),
        (doubled("anyOf", 10), None),
    ],
)
def test_what_is_soon_done_is_judged_here(schema: dict[str, Any], answer: Any) -> None:
    assert check_schema(schema) == ""
    assert isinstance(Schema(schema).judge(json.dumps(answer), lambda *_: Misfit("apart", "", "")), Fit)


@pytest.mark.parametrize(
    "schema",
    [
        *(doubled(keyword, 30) for keyword in ("anyOf", "allOf", "oneOf")),
        {
            **chained(30, lambda inner: {"dependentSchemas": {"x": inner, "y": inner}}, {}),
            "unevaluatedProperties": False,
        },
        chained(30, lambda inner: {"anyOf": [inner], "unevaluatedProperties": False}, {}),
        *(
            {"properties": {f"f{n}": {"pattern": f"{n}{text}"} for n in range(2000)}}
            for text in ("[a-z]" * 990, "(?=a)")
        ),
    ],
)
def test_schema_that_takes_too_long_for_any_answer_is_refused(schema: dict[str, Any]) -> None:
    started = thread_time()

    assert check_schema(schema) == wording("it-takes-too-long-to-check")
    assert thread_time() - started < 5


def test_schema_that_refers_in_too_long_a_row_is_refused() -> None:
    row = chained(MOST_NESTED, lambda inner: inner, {})
    parts = chained(MOST_REFERRED, lambda inner: {"properties": {"a": inner}}, {})

    assert check_schema(row) == wording("it-refers-to-itself-without-end")
    assert check_schema(parts) == wording("it-refers-to-more-than-parts", MOST_REFERRED)


@pytest.mark.parametrize(
    "pattern", ["(" * 2000 + ")" * 2000, "(?=" * 2000 + ")" * 2000, "((a{99}){99}){99}", "a{4294967296}"]
)
def test_pattern_that_is_too_large_is_refused(pattern: str) -> None:
    assert check_schema({"pattern": pattern}).endswith(wording("is-no-pattern-or-one-that"))


def test_deepest_answer_and_longest_row_go_together() -> None:
    row = MOST_NESTED // 2 - 5
    schema = chained(row, lambda inner: {"allOf": [inner]}, {"properties": {"a": {"$ref": "#/$defs/p0"}}})

    assert check_schema(schema) == ""
    assert isinstance(Schema(schema).judge(json.dumps(lies(190))), Fit)


def test_faults_are_bounded_in_number_and_length() -> None:
    started = thread_time()
    many = Schema({"items": {"type": "integer"}}).judge(json.dumps(["x"] * 100_000))
    long = Schema({"anyOf": [{"type": "integer"}] * 3000}).judge(json.dumps("x" * 30_000))

    for judged in (many, long):
        assert isinstance(judged, Misfit)
        assert judged.for_model == wording("at-it-does-not-satisfy-the")
    assert thread_time() - started < 2


def test_parts_that_apply_to_one_name_each_are_not_added_up() -> None:
    each: dict[str, object] = {"properties": {f"p{n}": {"type": "string"} for n in range(1000)}}
    all_of_them: dict[str, object] = {"allOf": [{"properties": {"a": {"type": "string"}}}] * 1000}

    assert Expansion(each).weight(steps_of, 1) < 10
    assert Expansion(all_of_them).weight(steps_of, 1) > 2000
    assert Expansion(doubled("anyOf", 30)).weight(steps_of, 0) > MOST_STEPS
