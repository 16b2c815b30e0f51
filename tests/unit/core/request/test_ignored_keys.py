"""Keys that look like wishes and are only echoed: which ones, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.ignored_keys import describe_ignored, note_unobeyed
from obcd.core.request.lines import parse_line
from obcd.core.request.rows import Reading
from tests.golden.wording import wording


def noted(*documents: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for line, document in enumerate(documents, 1):
        note_unobeyed(found, parse_line(json.dumps(document).encode(), line))
    return found


@pytest.mark.parametrize(
    ("document", "keys"),
    [
        ({"role": "user", "content": "x", "model": "m", "options": {"seed": 1}, "n": 2}, ["model", "n", "options"]),
        ({"prompt": "x", "temperature": 0, "max_tokens": 5}, ["max_tokens", "temperature"]),
        ({"prompt": "x", "suffix": "y", "raw": True}, ["raw", "suffix"]),
        ({"messages": [{"role": "user", "content": "x"}], "functions": []}, ["functions"]),
        ({"prompt": "x", "note": "y", "mrn": "0017"}, []),
        ({"prompt": "x", "options": {"temperature": 0}, "model": "m", "n": 2}, []),
        ({"role": "user", "content": "x", "images": ["iVBORw0KGgo="], "id": 3}, []),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_a_line_most_likely_wished_and_will_not_get(document: dict[str, Any], keys: list[str]) -> None:
    assert list(noted(document)) == keys


TURNS = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]


def test_r09_conversation_that_ends_with_the_assistant_is_remarked() -> None:
    found = noted({"prompt": "x"}, {"messages": TURNS}, {"messages": TURNS}, {"messages": TURNS[:3]})

    assert found == {"messages[-1]": 2}
    assert describe_ignored(found) == [wording("conversation-ends-with-the-assistant")]


def test_r09_conversation_whose_last_message_is_dropped_is_not_remarked() -> None:
    found: dict[str, int] = {}
    note_unobeyed(found, parse_line(json.dumps({"messages": TURNS}).encode(), 1, Reading(drop_last_assistant=True)))

    assert found == {}


def test_each_key_is_told_once_with_its_first_line_and_what_to_write() -> None:
    found = noted({"prompt": "x"}, {"prompt": "x", "temperature": 0}, {"prompt": "x", "temperature": 1, "suffix": "y"})

    assert found == {"temperature": 2, "suffix": 3}
    assert describe_ignored(found) == [
        wording("temperature-line-2-is-only-echoed"),
        wording("suffix-line-3-is-only-echoed"),
    ]
