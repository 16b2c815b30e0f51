"""Conversations in the forms that people have: what becomes of each, in obcd's lines and in OpenAI's alike."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request, chat_body
from obcd.core.request.rows import Reading
from obcd.errors import LineError
from tests.golden.wording import wording

PIXEL = base64.b64encode(bytes(range(60))).decode()
ASK = {"role": "user", "content": "The weather?"}
ANSWERED = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
RESULT = {"role": "tool", "tool_name": "f", "content": "1"}


def ours(messages: list[Any], **more: Any) -> Request:
    return parse_line(json.dumps({"messages": messages, **more}).encode(), 1)


def openai(messages: list[Any]) -> Request:
    return parse_line(json.dumps({"custom_id": "a", "body": {"model": "m", "messages": messages}}).encode(), 1)


def refusal(messages: list[Any], *ignored: str) -> str:
    with pytest.raises(LineError) as caught:
        parse_line(json.dumps({"messages": messages}).encode(), 1, Reading(ignore=frozenset(ignored)))
    return str(caught.value)


#: {what: (messages as people have them, Ollama's)}
SAME: dict[str, tuple[list[Any], list[Any]]] = {
    "developer": (
        [{"role": "developer", "content": "Be brief"}, ASK],
        [{"role": "system", "content": "Be brief"}, ASK],
    ),
    "capital letters": ([{"role": "User", "content": "The weather?"}], [ASK]),
    "text parts": (
        [{"role": "user", "content": [{"type": "text", "text": "The"}, {"type": "input_text", "text": "weather?"}]}],
        [{"role": "user", "content": "The\nweather?"}],
    ),
    "bare parts": ([{"role": "user", "content": ["The", {"text": "weather?"}]}], [{**ASK, "content": "The\nweather?"}]),
    "parts of the system": (
        [{"role": "system", "content": [{"type": "text", "text": "S"}]}, ASK],
        [{"role": "system", "content": "S"}, ASK],
    ),
    "a picture as OpenAI has it": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]}],
        [{"role": "user", "content": "", "images": [PIXEL]}],
    ),
    "a picture as its newer API has it": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}]}],
        [{"role": "user", "content": "", "images": [PIXEL]}],
    ),
    "a picture as Anthropic has it": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    "What?",
                ],
            }
        ],
        [{"role": "user", "content": "What?", "images": [PIXEL]}],
    ),
    "a picture of a data set": (
        [{"role": "user", "content": [{"type": "image", "image": PIXEL}]}],
        [{"role": "user", "content": "", "images": [PIXEL]}],
    ),
    "null beside calls": (
        [
            ASK,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        ],
        [ASK, ANSWERED],
    ),
    "no arguments": (
        [ASK, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}],
        [ASK, ANSWERED],
    ),
    "null arguments": (
        [ASK, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": None}}]}],
        [ASK, ANSWERED],
    ),
    "a call without function": (
        [ASK, {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}],
        [ASK, ANSWERED],
    ),
    "a call without a role": (
        [ASK, {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}],
        [ASK, ANSWERED],
    ),
    "calls in a text": (
        [ASK, {"role": "assistant", "content": "", "tool_calls": '[{"name": "f", "arguments": {}}]'}],
        [ASK, ANSWERED],
    ),
    "the older call": (
        [ASK, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}],
        [ASK, ANSWERED],
    ),
    "the older result": ([ASK, ANSWERED, {"role": "function", "name": "f", "content": "1"}], [ASK, ANSWERED, RESULT]),
    "a result by name": ([ASK, ANSWERED, {"role": "tool", "name": "f", "content": "1"}], [ASK, ANSWERED, RESULT]),
    "a result by its place": ([ASK, ANSWERED, {"role": "tool", "content": "1"}], [ASK, ANSWERED, RESULT]),
    "results in another order": (
        [
            ASK,
            {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}, {"name": "g"}]},
            {"role": "tool", "name": "g", "content": "2"},
            {"role": "tool", "content": "1"},
        ],
        [
            ASK,
            {
                **ANSWERED,
                "tool_calls": [*ANSWERED["tool_calls"], {"function": {"name": "g", "arguments": {}}}],
            },
            {"role": "tool", "tool_name": "g", "content": "2"},
            RESULT,
        ],
    ),
    "a result in parts": (
        [ASK, ANSWERED, {"role": "tool", "tool_name": "f", "content": [{"type": "text", "text": "1"}]}],
        [ASK, ANSWERED, RESULT],
    ),
    "a result that is an object": (
        [ASK, ANSWERED, {"role": "tool", "name": "f", "content": {"ä": [1]}}],
        [ASK, ANSWERED, {**RESULT, "content": '{"ä": [1]}'}],
    ),
    "a result by its id": (
        [
            ASK,
            {**ANSWERED, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ],
        [
            ASK,
            {**ANSWERED, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "1", "tool_name": "f"},
        ],
    ),
    "blocks of Anthropic's": (
        [
            ASK,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "1"}, "And now?"]},
        ],
        [
            ASK,
            {**ANSWERED, "thinking": "Hm.", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "1", "tool_call_id": "c1", "tool_name": "f"},
            {"role": "user", "content": "And now?"},
        ],
    ),
    "thoughts as vLLM has them": (
        [ASK, {"role": "assistant", "reasoning_content": "Hm.", "content": "Rain."}, ASK],
        [ASK, {"role": "assistant", "thinking": "Hm.", "content": "Rain."}, ASK],
    ),
    "a refusal": (
        [ASK, {"role": "assistant", "content": None, "refusal": "No."}, ASK],
        [ASK, {"role": "assistant", "content": "No."}, ASK],
    ),
    "columns of a data set without a value": (
        [{**ASK, "tool_calls": None, "name": "", "tool_call_id": None, "images": [], "prefix": False}],
        [ASK],
    ),
    "labels of training and of data sets": (
        [{**ASK, "weight": 0, "train": False, "timestamp": 17, "metadata": {"a": 1}, "language": "en"}],
        [ASK],
    ),
    "one speaker with a name": (
        [{**ASK, "name": "Ann"}, {"role": "assistant", "content": "Rain."}, {**ASK, "name": "Ann"}],
        [ASK, {"role": "assistant", "content": "Rain."}, ASK],
    ),
    "ShareGPT's names": (
        [
            {"from": "system", "value": "S"},
            {"from": "human", "value": "The weather?"},
            {"from": "gpt", "value": "Rain."},
            {"from": "human", "value": "The weather?"},
        ],
        [{"role": "system", "content": "S"}, ASK, {"role": "assistant", "content": "Rain."}, ASK],
    ),
    "calls of ShareGPT in a row": (
        [
            {"from": "human", "value": "The weather?"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
            {"from": "function_call", "value": '[{"name": "g", "parameters": {"a": 1}}]'},
            {"from": "observation", "value": "1"},
            {"from": "observation", "value": "2"},
        ],
        [
            ASK,
            {**ANSWERED, "tool_calls": [*ANSWERED["tool_calls"], {"function": {"name": "g", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "1", "tool_name": "f"},
            {"role": "tool", "content": "2", "tool_name": "g"},
        ],
    ),
    "pairs": (
        [{"human": "The weather?", "assistant": "Rain."}, {"human": "The weather?", "assistant": ""}],
        [ASK, {"role": "assistant", "content": "Rain."}, ASK],
    ),
}


@pytest.mark.parametrize(("given", "sent"), SAME.values(), ids=SAME)
def test_messages_with_the_same_meaning_are_sent_as_ollamas(given: list[Any], sent: list[Any]) -> None:
    assert ours(given).messages == sent
    assert openai(given).messages == sent


def test_single_message_of_the_seed_is_read_by_the_same_rules() -> None:
    request = parse_line(json.dumps({"role": "human", "content": [{"type": "text", "text": "Hi"}]}).encode(), 1)

    assert request.messages == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("text", ["", "  ", None, []])
def test_empty_system_message_means_that_there_is_none(text: Any) -> None:
    messages = [{"role": "system", "content": text}, ASK]
    job = JobSettings(model="m", system="The profile's")

    for request in (ours(messages), openai(messages)):
        assert chat_body(request, job)["messages"] == [ASK]
    assert chat_body(ours([ASK]), job)["messages"][0]["role"] == "system"
    assert chat_body(ours(messages, system="The line's"), job)["messages"][0]["content"] == "The line's"


def test_what_is_dropped_is_recorded_once_by_its_place() -> None:
    request = ours([{**ASK, "weight": 0, "name": "Ann"}, {"role": "assistant", "content": "a", "weight": 1}, ASK])

    assert request.dropped == ("messages[].weight", "messages[].name")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"role": "user", "content": "a", "audio": {"id": "x"}}, wording("messages-0-audio-is-not-supported")),
        ({"role": "assistant", "content": "a", "prefix": True}, wording("messages-0-prefix-is-not-supported")),
        ({"role": "user", "content": [{"type": "video_url"}]}, wording("messages-0-content-0-is-a-part")),
        ({"role": "assistant", "content": [{"type": "image", "image": PIXEL}]}, "`messages[0].content[0]` is a part"),
        ({"role": "user", "content": [{"type": "image", "image": "cat.png"}]}, wording("messages-0-content-0-image")),
        ({"from": "function_call", "value": "call f"}, wording("messages-0-value-must-be-a-call")),
        ({"role": "tool", "content": "1", "name": "f", "tool_name": "g"}, wording("messages-0-tool-name-and-tool")),
        ({"role": "assistant", "content": "a", "thinking": "b", "reasoning": "c"}, wording("messages-0-reasoning-and")),
        (
            {"role": "assistant", "function_call": {"name": "f"}, "tool_calls": [{"name": "g"}]},
            "`messages[0].tool_calls` differs from another key that means `tool_calls`",
        ),
        ({"assistant": "", "human": "x", "wish": 1}, "`messages[0].wish` is not supported"),
        ({"role": "user", "content": "a", "contents": "b"}, "`messages[0].contents` is not supported"),
    ],
)
def test_what_would_change_the_meaning_is_refused_by_its_name(message: dict[str, Any], sentence: str) -> None:
    assert refusal([message]).startswith(sentence)


def test_speakers_with_different_names_are_refused_unless_names_are_ignored() -> None:
    messages = [{**ASK, "name": "Ann"}, {**ASK, "name": "Bob"}]

    assert refusal(messages).startswith(wording("messages-names-several-speakers"))
    request = parse_line(json.dumps({"messages": messages}).encode(), 1, Reading(ignore=frozenset(("name",))))
    assert (request.messages, request.dropped) == ([ASK, ASK], ("messages[].name",))


def test_key_that_a_profile_ignores_is_dropped() -> None:
    raw = json.dumps({"messages": [{**ASK, "mood": "sad"}], "options": {"mirostat": 2, "seed": 1}}).encode()

    request = parse_line(raw, 1, Reading(ignore=frozenset(("mood", "mirostat", "seed"))))

    assert (request.messages, request.options) == ([ASK], {"seed": 1})
    assert request.dropped == ("messages[].mood", "options.mirostat")


def test_hostile_conversation_takes_linear_time_and_quotes_nothing() -> None:
    call = {"role": "assistant", "tool_calls": [{"id": str(n), "name": "f", "arguments": "{}"} for n in range(5000)]}
    results = [{"role": "tool", "tool_call_id": str(n), "content": "1"} for n in reversed(range(5000))]
    began = time.process_time()

    request = ours([ASK, call, *results])

    assert time.process_time() - began < 2
    assert len(request.messages) == 5002
    assert "x" * 50 not in refusal([{"role": "x" * 10**5, "content": "a"}])
    assert len(refusal([{"role": "user", "content": "a", "x" * 10**5: 1}])) < 200
