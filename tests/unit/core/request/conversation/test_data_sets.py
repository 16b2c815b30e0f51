"""Lines of data sets: ShareGPT and its relatives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.keys.ignored_keys import note_unobeyed
from obcd.core.request.lines import id_of_failed, parse_line
from obcd.core.request.records import Request
from obcd.core.request.rows import PLAIN
from obcd.core.tables.csv_cells import check_columns, read_cells
from obcd.errors import LineError
from tests.golden.wording import wording

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def parse(document: dict[str, Any]) -> Request:
    return parse_line(json.dumps(document).encode(), 7)


@pytest.mark.parametrize(
    "document",
    [
        {"conversations": [{"from": "human", "value": "Hi"}]},
        {"conversation": [{"role": "user", "content": "Hi", "toxic": False}]},
        {"turns": [{"role": "user", "text": "Hi"}]},
        {"turns": ["Hi"]},
        {"turns": [{"user": "Hi", "assistant": None}]},
        {"conversations": '[{"from": "human", "value": "Hi"}]'},
        {"conversations": [{"from": "human", "value": "Hi"}], "prompt": None},
        {"prompt": HI},
        {"prompt": HI, "messages": None, "chosen": [{"role": "assistant", "content": "Ho"}]},
    ],
)
def test_conversation_of_a_data_set_is_one(document: dict[str, Any]) -> None:
    assert parse(document).messages == HI


def test_its_system_and_tools_are_obeyed_and_what_describes_the_data_set_is_echoed() -> None:
    request = parse({
        "id": "c-1", "conversations": [{"from": "human", "value": "Hi"}], "system": "S", "tools": json.dumps([TOOL]),
        "model": "gpt-4", "options": ["a", "b"], "source": "web",
    })  # fmt: skip
    found: dict[str, int] = {}
    note_unobeyed(found, request)

    assert (request.id, request.system, request.tools, request.model) == ("c-1", "S", [TOOL], None)
    assert request.extra == {"model": "gpt-4", "options": ["a", "b"], "source": "web"}
    assert found == {"model": 7, "options": 7}


def test_conversation_in_a_cell_of_a_table_is_one() -> None:
    header = {"id": "7", "conversations": json.dumps([{"from": "human", "value": "Hi"}]), "format": "chat", "ward": ""}
    check_columns(list(header))

    request = parse(read_cells(header))

    assert (request.id, request.messages, request.format) == ("7", HI, None)
    assert request.extra == {"format": "chat", "ward": ""}


def test_tools_that_are_only_functions_are_tools() -> None:
    request = parse({"prompt": "a", "tools": [{"name": "f", "description": "d", "parameters": {"type": "object"}}]})

    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert request.tools == [{"type": "function", "function": function}]


def test_beside_a_prompt_such_keys_are_only_echoed() -> None:
    assert parse({"prompt": "a", "turns": ["x"], "conversations": [1]}).extra == {"turns": ["x"], "conversations": [1]}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"turns": ["Compose a text.", "Rewrite it."]}, wording("turns-is-a-list-of-2-texts")),
        ({"turns": ["a"], "conversations": ["b"]}, wording("both-conversations-and-turns")),
        ({"conversations": [{"from": "narrator", "value": "a"}]}, wording("conversations-0-from-must-be-one-of")),
        ({"turns": 2}, "no prompt in it"),
        ({"conversations": [], "system": "a"}, "no prompt in it"),
        ({" turns": ["a"]}, wording("the-key-has-a-space", " turns", "turns")),
    ],
)
def test_what_is_no_conversation_is_refused(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LineError) as caught:
        parse(document)

    assert str(caught.value).startswith(sentence)


def test_custom_id_is_the_id_of_a_line_without_one_and_is_echoed() -> None:
    assert (parse({"custom_id": "a", "prompt": "x"}).id, parse({"custom_id": 5, "prompt": "x"}).id) == ("a", 5)
    assert parse({"custom_id": "a", "prompt": "x"}).extra == {"custom_id": "a"}
    assert parse({"custom_id": "a", "id": 1, "embed": "x"}).id == 1
    assert parse({"custom_id": "a", "conversations": [{"from": "human", "value": "Hi"}]}).id == "a"
    for other in ("x" * 600, {"a": 1}, None, True, ""):
        assert parse({"custom_id": other, "prompt": "x"}).id == 7


def test_custom_id_is_the_id_of_a_line_that_failed() -> None:
    raw = b'{"custom_id": "a", "prompt": ""}'

    assert id_of_failed(raw, 7, PLAIN, asks_openai=False) == id_of_failed(raw, 7, PLAIN, asks_openai=True) == "a"
