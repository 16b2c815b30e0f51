"""What is nearly JSON: read where there is one way to read it, in bounded time, and nothing is made up."""

from __future__ import annotations

import json
import time

import pytest

from obcd.core.schema.near_json import MOST_CHARS, NearReader


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": [1, 2,],}', {"a": 1, "b": [1, 2]}),
        ("{'a': None}", {"a": None}),
        ("{'a': True, 'b': [False]}", {"a": True, "b": [False]}),
        ('{"a": "two\nlines\tand a tab"}', {"a": "two\nlines\tand a tab"}),
        ('{"a": "one \\\n line", "b": "\\\\\n"}', {"a": "one  line", "b": "\\\n"}),
        ('{"a": 1, // one\n "b": 2 /* two */, # three\n "c": 3}', {"a": 1, "b": 2, "c": 3}),
        ("{a: 1, b_c: 'x'}", {"a": 1, "b_c": "x"}),
        ("{'a': 'it\\'s', 'b': 'say \"so\"'}", {"a": "it's", "b": 'say "so"'}),
        ('{"a": "http://x/#y", "b": "None", "c": "[1,]"}', {"a": "http://x/#y", "b": "None", "c": "[1,]"}),
        ('{"a": "\\u00e4\\n\ud800",}', {"a": "ä\n\ud800"}),
        ("[+1, .5, 0x10,]", [1, 0.5, 16]),
    ],
)
def test_one_way_to_read_it_is_taken(text: str, value: object) -> None:
    near = NearReader(200).read(f"so {text} and", 3)

    assert near is not None
    assert (near.value, json.loads(near.text), near.end) == (value, value, 3 + len(text))
    assert near.has_bare_keys == text.startswith("{a")


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 1",  # cut short: nothing is completed
        "{'a': [1, 2}",
        "{'a': }",
        "{'a': <string>}",  # the form of a repair, copied
        "{'a': x}",
        "{'a': 54 years}",
        "{'a': 1 'b': 2}",
        "{'a': 'it's'}",
        "{'a': 1, ...}",
        "{'a': 1, 'a': 2}",  # which of them is meant?
        "{'a': {'b': 1, 'b': 1}, 'c': 2}",
        "{'a': NaN}",
        "[-Infinity,]",
        "[1e999,]",
        "[undefined,]",
        "[1,,2]",
        "{'a': '\\d'}",  # no escape of JSON
        "{'a': /* never closed }",
        "[" * 201 + "]" * 201,
    ],
)
def test_what_has_no_one_way_to_be_read_is_left_alone(text: str) -> None:
    assert NearReader(200).read(text, 0) is None


@pytest.mark.parametrize("unit", ["[", "['", "[/*", "['\\'", "/**/", "'a' "])
def test_hostile_text_takes_bounded_time(unit: str) -> None:
    text = "[" + unit * (2**20 // len(unit))
    reader = NearReader(200)

    started = time.process_time()
    for start in range(100):
        reader.read(text, start)

    assert time.process_time() - started < 2.5


def test_answer_that_is_longer_than_is_read_again_is_left_alone() -> None:
    text = "['" + "a" * MOST_CHARS + "',]"

    assert NearReader(200).read(text, 0) is None
