"""Keys that look like wishes and are only echoed: which ones, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.keys.ignored_keys import describe_ignored, note_schema, note_unobeyed
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings
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
        (
            {"prompt": "x", "schema": {"type": "object"}, "option": {"seed": 1}, "image": "a.png"},
            ["image", "option", "schema"],
        ),
        ({"prompt": "x", "schema": "CREATE TABLE a (b)", "option": "A", "parameters": 7}, []),
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


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def test_r11_envelope_in_a_line_is_opened_and_reported_once() -> None:
    line = {"prompt": "x", "format": {"name": "x", "strict": True, "schema": SCHEMA}}

    found = noted({"prompt": "x", "format": SCHEMA}, line, line)

    assert parse_line(json.dumps(line).encode(), 1).format == SCHEMA
    assert describe_ignored(found) == [wording("line-2-format-is-an-envelope")]


def test_openai_formats_without_a_schema_are_meant_as_they_are() -> None:
    formats = [parse_line(json.dumps({"prompt": "x", "format": {"type": kind}}).encode(), 1).format
               for kind in ("json_object", "text")]  # fmt: skip

    assert formats == ["json", ""]


def test_pattern_that_the_server_gets_in_another_form_is_reported_with_its_first_line() -> None:
    lines = [{"prompt": "x", "format": {"type": "string", "pattern": f"^\\d{{{number}}}$"}} for number in range(1, 90)]

    found = noted(*lines, *lines)

    assert list(found.values()) == list(range(1, 21))
    assert describe_ignored(found)[1].startswith(wording("line-2-format-at-its-top-the"))


def test_remarks_about_the_schema_of_a_job_are_those_of_no_line() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x", "nullable": True}}}
    sent, kept = dict[str, int](), dict[str, int]()

    note_schema(sent, JobSettings(model="m", format=schema))
    note_schema(kept, JobSettings(model="m", format=schema, send_schema=False))

    assert (len(sent), len(kept)) == (2, 1)
    assert set(sent.values()) == {0}
    assert describe_ignored(kept)[0].startswith(wording("the-jobs-schema-at-properties-a"))
