from __future__ import annotations

import time

import pytest

from obcd.core.schema.extract import MAX_DEPTH, Found, NoJson, find_json
from tests.golden.wording import wording


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("  [1, 2.5]\n", [1, 2.5]),
        ("42", 42),
        ('"yes"', "yes"),
        ("null", None),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is:\n\n```\r\n{"a": 1}\r\n```\r\nAnything else?', {"a": 1}),
        ("~~~\n[1]\n~~~", [1]),
        ('```json\n{"a": "``` inside"}\n', {"a": "``` inside"}),  # never closed
        ('````\n```\nno\n```\n````\n```\n{"a": 1}\n```', {"a": 1}),
        ('```json {"a": 1} ```', {"a": 1}),
        ("```\n42\n```", 42),
        ('Sure! {"a": [1, {"b": "}"}]} Bye.', {"a": [1, {"b": "}"}]}),
        ('As {name} said [sic]: {"a": 1}', {"a": 1}),
        ('[see: {"a": 1}]', {"a": 1}),
        ('{ {"a": 1} }', {"a": 1}),
        ('[]{"a": 1}', []),
        ('{"a": "\\u00e4\\"\\\\"} trailing', {"a": 'ä"\\'}),
        ('{"a": 1, } oops, again: {"a": 2}', {"a": 2}),
        ('<think>maybe {"a": 0}?</think>\n{"a": 1}', {"a": 1}),
    ],
)
def test_json_is_found(text: str, value: object) -> None:
    assert find_json(text) == Found(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", wording("it-is-empty")),
        (" \n\t", wording("it-is-empty")),
        ("<think>for ever", wording("it-is-empty")),
        ("I cannot answer that.", wording("there-is-no-json-in-it")),
        ("as {name} said [sic]", wording("there-is-no-json-in-it")),
        ('[{"a": 1}, {"a": 2}, {"a"', wording("its-json-is-cut-short")),
        ('{"patient": {"name": "Ada"}, "note": "cut in the mid', wording("its-json-is-cut-short")),
        ('{"a": "text } and [ more', wording("its-json-is-cut-short")),
        ('{"patient": {"name": "Ada"}, oops: {"b": 1}}', wording("its-json-is-not-valid-from")),
        ("{'a': 1, 'b': {\"c\": 1}}", wording("its-json-is-not-valid-from-2")),
        ('{a: 1, b: {"c": 1}}', wording("its-json-is-not-valid-from-2")),
        ('{"a": 1,}', wording("its-json-is-not-valid-from-3")),
        ('{"a": "raw\nbreak", "b": {"c": 1}}', wording("its-json-is-not-valid-from-4")),
        ('{"a": 1, "a": 2}', wording("a-key-stands-in-its-json")),
        ('So: [{"b": {"a": 1, "a": 1}}], as asked.', wording("a-key-stands-in-its-json")),
        ('```json\n{"a": 1, "a": 2}\n```', wording("a-key-stands-in-its-json")),
        ("NaN", wording("its-json-holds-nan-infinity-or")),
        ('{"a": [NaN, {"b": 1}]}', wording("its-json-is-not-valid-from-5")),
        ("[-Infinity]", wording("its-json-is-not-valid-from-2")),
        ("1e999", wording("its-json-holds-nan-infinity-or")),
        ('so: {"a": 1e999}', wording("its-json-is-not-valid-from-6")),
        ("9" * 5000, wording("its-json-holds-nan-infinity-or")),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), wording("its-json-is-nested-more-than-2", MAX_DEPTH)),
        ("so " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), wording("its-json-is-nested-more-than-2", MAX_DEPTH)),
    ],
)
def test_what_is_not_whole_and_valid_is_refused_with_a_reason(text: str, reason: str) -> None:
    assert find_json(text) == NoJson(reason)


def test_deepest_nesting_is_taken() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH

    assert isinstance(find_json(text), Found)
    assert isinstance(find_json(f"so {text}"), Found)


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "{",
        '{"a":',
        '["',
        '\\"',
        '"',
        '["\\"',
        "[1,",
        "[ ",
        "```\n",
        "[]x",
        '{"a":1}}',
        "[x",
        "[" * 150 + "x",
        '["a" ',
    ],
)
@pytest.mark.parametrize("prefix", ["x", "x[", 'x{"', "[1,"])
def test_hostile_text_takes_linear_time(prefix: str, unit: str) -> None:
    text = prefix + unit * (50_000 // len(unit))

    started = time.process_time()
    find_json(text)

    # A second scan of the rest for each unit would take longer by far.
    assert time.process_time() - started < 2.5
