"""Lines of Anthropic's Message Batches."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.records import Request
from obcd.core.request.rows import Reading
from obcd.errors import LineError
from tests.golden.wording import wording

HELLO = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
MOST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": HELLO}


def line(params: Any, *ignore: str, **around: Any) -> Request:
    raw = json.dumps({"custom_id": "r-1", "params": params, **around}).encode()
    return parse_line(raw, 7, Reading(ignore=frozenset(ignore)))


def test_every_parameter_with_an_equivalent_is_taken() -> None:
    request = line(
        {
            **MOST, "system": [{"type": "text", "text": "Be brief"}], "temperature": 0.5, "top_p": 0.9, "top_k": 4,
            "stop_sequences": ["END"], "stream": False, "metadata": {"user_id": "u"}, "service_tier": "auto",
            "thinking": {"type": "disabled"}, "tool_choice": {"type": "auto"},
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        },
        ward=5,
    )  # fmt: skip

    assert (request.id, request.model, request.system, request.think) == ("r-1", "m", "Be brief", False)
    assert request.messages == [{"role": "user", "content": "Hello"}]
    assert request.options == {"num_predict": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop": ["END"]}
    assert request.tools == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    ]
    assert request.extra == {"ward": 5}


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({}, wording("params-messages-must-be-a-list")),
        ({**MOST, "mcp_servers": [{}]}, wording("params-mcp-servers-is-not")),
        ({**MOST, "stream": True}, wording("params-stream-is-not-supported")),
        ({**MOST, "tool_choice": {"type": "any"}}, wording("params-tool-choice-must-be")),
        ({**MOST, "tools": [{"type": "web_search_20250305", "name": "w"}]}, wording("params-tools-0-must-have")),
        ({**MOST, "thinking": {"type": "enabled", "budget_tokens": 5}}, wording("params-thinking-budget-tokens")),
        ({**MOST, "temperature": "hot"}, "`options.temperature` must be a number"),
    ],
)
def test_what_has_no_equivalent_is_refused_by_its_name(params: Any, sentence: str) -> None:
    with pytest.raises(LineError) as caught:
        line(params)

    assert str(caught.value).startswith(sentence)


def test_what_the_profile_ignores_is_dropped() -> None:
    params = {**MOST, "thinking": {"type": "enabled", "budget_tokens": 5}, "tool_choice": {"type": "any"}}

    request = line(params, "budget_tokens", "tool_choice")

    assert request.think is True
    assert request.dropped == ("params.thinking.budget_tokens", "params.tool_choice")


def test_key_beside_the_params_that_would_have_an_effect_is_refused() -> None:
    with pytest.raises(LineError) as caught:
        line(MOST, system="a")

    assert str(caught.value) == wording("system-is-beside-the-params")
