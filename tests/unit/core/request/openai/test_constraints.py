"""Parameters of vLLM and of other services: exact equivalents, no-ops, and what a profile ignores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.openai.openai_request import COMPLETIONS, EMBEDDINGS, endpoint_of
from obcd.core.request.records import Kind, Request
from obcd.core.request.rows import Reading
from obcd.errors import LineError
from tests.golden.wording import wording

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}
FUNCTION = {"name": "f", "parameters": {"type": "object"}}


def line(body: dict[str, Any], ignore: tuple[str, ...] = (), **around: Any) -> Request:
    raw = json.dumps({"custom_id": "r-1", "body": body, **around}).encode()
    return parse_line(raw, 7, Reading(ignore=frozenset(ignore)))


def chat(*ignore: str, **wishes: Any) -> Request:
    return line({"model": "m", "messages": HELLO, **wishes}, ignore)


def refusal(**wishes: Any) -> str:
    with pytest.raises(LineError) as caught:
        chat(**wishes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "kind", "endpoint"),
    [
        ({"messages": HELLO}, Kind.CHAT, "/v1/chat/completions"),
        ({"prompt": "x"}, Kind.COMPLETE, COMPLETIONS),
        ({"input": "x"}, Kind.EMBED, EMBEDDINGS),
    ],
)
def test_line_without_method_and_url_requests_what_its_body_is_made_for(
    body: dict[str, Any], kind: Kind, endpoint: str
) -> None:
    request = line(body)

    assert (request.id, request.kind) == ("r-1", kind)
    assert endpoint_of({"custom_id": "r-1", "body": body}) == endpoint


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/chat/completions/", {"messages": HELLO}),
        ("v1/chat/completions", {"messages": HELLO}),
        ("/openai/v1/chat/completions", {"messages": HELLO}),
        ("/v1/fim/completions", {"prompt": "a", "suffix": "b"}),
    ],
)
def test_path_of_another_service_is_taken(url: str, body: dict[str, Any]) -> None:
    assert line(body, url=url, method="post ").id == "r-1"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"input": [{"role": "user", "content": "x"}]}, wording("body-input-holds-messages")),
        ({"input": "x", "instructions": "y"}, wording("body-instructions-is-not-supported")),
    ],
)
def test_body_for_responses_is_named_as_that(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LineError) as caught:
        line(body)

    assert str(caught.value).startswith(sentence)


NOTHING = {
    "ignore_eos": False, "min_tokens": 0, "n": 1, "best_of": 1, "logit_bias": {}, "use_beam_search": False,
    "skip_special_tokens": True, "spaces_between_special_tokens": True, "include_stop_str_in_output": False,
    "stop_token_ids": [], "bad_words": [], "length_penalty": 1.0, "add_generation_prompt": True, "documents": [],
    "continue_final_message": False, "prompt_logprobs": None, "guided_json": None, "chat_template": None,
    "chat_template_kwargs": {}, "structured_outputs": {}, "priority": 0, "include_reasoning": True,
    "add_special_tokens": False,
    "parallel_tool_calls": False,
    "guided_decoding_backend": "xgrammar", "safe_prompt": False, "context_length_exceeded_behavior": "error",
    "top_logprobs": 0, "logprobs": False, "reasoning_format": "parsed", "functions": [], "function_call": "none",
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), NOTHING.items())
def test_parameter_that_requests_nothing_changes_nothing(key: str, value: Any) -> None:
    if key == "n":
        assert (chat(n=1).count, chat(n=2, best_of=2).count) == (1, 2)
    else:
        assert chat(**{key: value}) == chat()


@pytest.mark.parametrize(
    ("wishes", "options"),
    [
        ({"top_k": -1, "min_p": 0.1, "repetition_penalty": 1}, {"min_p": 0.1, "repeat_penalty": 1, "top_k": -1}),
        ({"random_seed": 7, "max_new_tokens": 5}, {"seed": 7, "num_predict": 5}),
        ({"extra_body": {"top_k": 3}, "temperature": 0}, {"temperature": 0, "top_k": 3}),
        ({"seed": 7, "random_seed": 7}, {"seed": 7}),
    ],
)
def test_sampling_of_other_services_becomes_options(wishes: dict[str, Any], options: dict[str, Any]) -> None:
    assert chat(**wishes).options == options


@pytest.mark.parametrize(
    ("wishes", "think"),
    [
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"thinking": True, "reasoning_effort": "low"}}, "low"),
        ({"chat_template_kwargs": {"enable_thinking": None}}, None),
        ({"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, False),
        ({"enable_thinking": False}, False),
        ({"think": True, "reasoning_effort": "high"}, "high"),
        ({"reasoning": {"effort": "none"}}, False),
        ({"reasoning": {"enabled": True, "exclude": False}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "adaptive"}}, None),
    ],
)
def test_switch_of_thoughts_becomes_think(wishes: dict[str, Any], think: Any) -> None:
    assert chat(**wishes).think == think


CHOICE = {"type": "string", "enum": ["yes", "no"]}


@pytest.mark.parametrize(
    ("wishes", "form"),
    [
        ({"guided_json": SCHEMA}, SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, SCHEMA),
        ({"guided_choice": ["yes", "no", "yes"]}, CHOICE),
        ({"structured_outputs": {"json": SCHEMA}}, SCHEMA),
        ({"structured_outputs": {"choice": ["yes", "no"], "regex": None, "disable_fallback": False}}, CHOICE),
        ({"structured_outputs": {"json_object": True}}, "json"),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, SCHEMA),
    ],
)
def test_form_of_an_answer_becomes_format(wishes: dict[str, Any], form: Any) -> None:
    assert chat(**wishes).format == form
    assert line({"prompt": "x", **wishes}).format == form


def test_older_names_of_tools_are_tools() -> None:
    tools = [{"type": "function", "function": FUNCTION}]

    assert chat(functions=[FUNCTION]).tools == chat(functions=[FUNCTION], function_call="auto").tools == tools
    assert chat(functions=[FUNCTION], function_call="none").tools is None


def test_number_of_likeliest_tokens_may_be_the_wish_itself() -> None:
    assert chat(logprobs=3).logprobs == 3


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        ({"chat_template_kwargs": {"tone": "kind"}}, wording("body-chat-template-kwargs-tone")),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, wording("body-chat-template-kwargs-enable")),
        ({"chat_template_kwargs": "x"}, wording("body-chat-template-kwargs-must")),
        ({"structured_outputs": {"regex": "a+"}}, wording("body-structured-outputs-regex")),
        ({"structured_outputs": {"disable_any_whitespace": True}}, wording("body-structured-outputs-disable")),
        ({"structured_outputs": 5}, wording("body-structured-outputs-must-be")),
        ({"guided_json": {}}, wording("body-guided-json-must-be")),
        ({"guided_json": "no JSON"}, wording("body-guided-json-must-be")),
        ({"guided_choice": []}, wording("body-guided-choice-must-be")),
        ({"guided_json": SCHEMA, "response_format": {"type": "json_object"}}, wording("both-body-response-format-and")),
        ({"reasoning_effort": "none", "enable_thinking": True}, wording("body-enable-thinking-body-reasoning")),
        ({"reasoning_effort": "low", "think": "high"}, wording("body-reasoning-effort-body-think")),
        ({"reasoning": {"max_tokens": 5}}, wording("body-reasoning-max-tokens")),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, wording("body-thinking-budget-tokens")),
        ({"thinking": "on"}, wording("body-thinking-must-have")),
        ({"seed": 1, "random_seed": 2}, wording("body-seed-is-there-twice")),
        ({"extra_body": 5}, wording("body-extra-body-is-not")),
        ({"functions": [{}]}, "`tools[0].function` needs a `name`"),
        ({"functions": [FUNCTION], "function_call": {"name": "f"}}, wording("body-function-call-must-be")),
    ],
)
def test_what_has_no_exact_equivalent_is_refused_by_its_name(wishes: dict[str, Any], sentence: str) -> None:
    assert refusal(**wishes).startswith(sentence)


@pytest.mark.parametrize(
    ("wishes", "ignored", "dropped"),
    [
        ({"logit_bias": {"1": 5}}, "logit_bias", "body.logit_bias"),
        ({"response_format": {"type": "grammar"}}, "response_format", "body.response_format"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort", "body.reasoning_effort"),
        ({"chat_template_kwargs": {"tone": "kind"}}, "chat_template_kwargs", "body.chat_template_kwargs"),
        ({"chat_template_kwargs": {"tone": "kind"}}, "tone", "body.chat_template_kwargs.tone"),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs", "body.structured_outputs"),
        ({"new_parameter": 1}, "new_parameter", "body.new_parameter"),
    ],
)
def test_ignored_parameter_is_dropped_and_recorded(wishes: dict[str, Any], ignored: str, dropped: str) -> None:
    request = chat(ignored, **wishes)

    assert (request, request.dropped) == (chat(), (dropped,))


def test_parameter_that_can_be_honoured_is_honoured_although_it_is_ignored() -> None:
    tool = {"type": "function", "function": FUNCTION}

    assert chat("tool_choice", "temperature", tools=[tool], tool_choice="none", temperature=0).tools is None
    assert chat("temperature", temperature=0).options == {"temperature": 0}
    assert chat("temperature", temperature=0).dropped == ()
