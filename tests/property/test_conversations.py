"""Lines in the forms of other services and of data sets, made of their own keys at random: bounded, valid, the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from obcd.core.request.lines import id_of_failed, parse_line
from obcd.core.request.openai.parts import NEUTRAL
from obcd.core.request.records import JobSettings, Kind, request_body
from obcd.core.request.rows import Reading
from obcd.core.tables.converting import read_ours
from obcd.errors import LineError

ROLES = ("user", "human", "assistant", "gpt", "system", "developer", "tool", "function", "function_call", "observation")
WORDS = (
    *ROLES,
    "",
    "x",
    "text",
    "image_url",
    "tool_use",
    "tool_result",
    "none",
    "auto",
    "POST",
    "/v1/embeddings",
    "[",
    "{}",
)
KEYS = (
    *("role", "from", "content", "value", "text", "type", "name", "weight", "tool_calls", "function_call", "refusal"),
    *("tool_name", "tool_call_id", "thinking", "reasoning", "images", "id", "function", "arguments", "input", "source"),
    *(
        "model",
        "system",
        "tools",
        "tool_choice",
        "functions",
        "options",
        "format",
        "think",
        "n",
        "logprobs",
        "extra_body",
    ),
    *(
        "chat_template_kwargs",
        "structured_outputs",
        "guided_json",
        "guided_choice",
        "response_format",
        "schema",
        "json",
    ),
    *("url", "method", " method", "custom_id", "prompt", "turns", "conversations", *NEUTRAL),
)
SENT = frozenset(("role", "content", "images", "thinking", "tool_calls", "tool_name", "tool_call_id"))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from((*WORDS, None, True, False, 0, 1, -1, 1.5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=6,
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": VALUES}),
    st.fixed_dictionaries({"from": st.sampled_from(ROLES), "value": st.sampled_from(WORDS)}),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4),
    st.builds(
        lambda more: {"role": "user", "content": "Hi", **more},
        st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=1),
    ),
)
CONVERSATIONS = st.lists(MESSAGES, min_size=1, max_size=4)
MORE = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
LINES = st.one_of(
    st.builds(lambda talk, more: {"custom_id": "a", "body": {**more, "messages": talk}}, CONVERSATIONS, MORE),
    st.builds(lambda talk, more: {"custom_id": "a", "params": {**more, "messages": talk}}, CONVERSATIONS, MORE),
    st.builds(
        lambda key, talk, more: {**more, key: talk},
        st.sampled_from(("messages", "conversations", "turns", "prompt")), CONVERSATIONS, MORE,
    ),
    MORE,
)  # fmt: skip


@given(document=LINES, ignored=st.frozensets(st.sampled_from(KEYS), max_size=3))
def test_line_is_refused_in_a_short_sentence_or_sent_in_ollamas_form(
    document: dict[str, Any], ignored: frozenset[str]
) -> None:
    raw, reading = json.dumps(document).encode(), Reading(ignore=ignored)
    id_of_failed(raw, 1, reading, asks_openai=False)
    request, sentence = None, ""
    try:
        request = parse_line(raw, 1, reading)
    except LineError as error:
        sentence = str(error)
    assert len(sentence) < 400
    if request is None:
        return

    body = json.loads(json.dumps(request_body(request, JobSettings(model="m", system="S"))))

    if request.kind is Kind.CHAT:
        for message in body["messages"]:
            assert message.keys() <= SENT
            assert message["role"] in ("system", "user", "assistant", "tool")
            assert isinstance(message.get("content", ""), str)
        again = parse_line(json.dumps({"messages": request.messages}).encode(), 1)
        assert again.messages == request.messages


@given(document=LINES)
def test_line_of_obcd_that_is_made_of_another_requests_the_same(document: dict[str, Any]) -> None:
    raw = json.dumps(document).encode()
    try:
        ours = read_ours(raw, 1)
    except LineError:
        return

    before, after = parse_line(raw, 1), parse_line(json.dumps(ours).encode(), 1)

    job = JobSettings(model="m", system="S")
    assert request_body(after, job) == request_body(before, job)
    assert after.id == before.id
