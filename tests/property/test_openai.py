"""Lines of OpenAI's outputs hold all that ours do, and no line of its inputs raises anything but a sentence."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from obcd.core.answer.openai.openai_response import (
    STATUSES,
    custom_id_of,
    is_openai_line,
    openai_failure_line,
    openai_response_line,
    to_record,
)
from obcd.core.request.lines import parse_line
from obcd.core.request.openai.openai_request import CHAT, COMPLETIONS, EMBEDDINGS, LINE_KEYS
from obcd.core.request.openai.parts import NEUTRAL, PASSED_OVER, REASONS, SHARED
from obcd.core.request.records import JobSettings, Kind, Request, request_body, signature_of
from obcd.errors import LineError
from tests.openai_types import check_body
from tests.unit.core.answer.made import failure_of, response_of

JOB = JobSettings(model="llama3.2")

texts = st.text(max_size=20)
counts = st.integers(0, 10**9)
seconds = st.floats(0, 1e6)
numbers = st.floats(-100, 0)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
objects = st.dictionaries(texts, st.integers() | texts | st.lists(st.booleans(), max_size=2), max_size=3)
octets = st.lists(st.integers(0, 255), min_size=1, max_size=4)
likely = st.fixed_dictionaries({"token": texts, "logprob": numbers}, optional={"bytes": octets})
tokens = st.fixed_dictionaries(
    {"token": texts, "logprob": numbers},
    optional={"bytes": octets, "top_logprobs": st.lists(likely, min_size=1, max_size=3)},
)
stamps = st.integers(0, 4 * 10**9).map(lambda second: f"{2000 + second % 100:04}-01-02T03:04:{second % 60:02}.250Z")


def _calls(objects_of_arguments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{place}", "function": {"index": place, "name": "f", "arguments": arguments}}
        for place, arguments in enumerate(objects_of_arguments)
    ]


def answers(kind: Kind) -> st.SearchStrategy[dict[str, Any]]:
    """Return what of a record is one answer."""
    more: dict[str, Any] = {"thinking": texts}
    if kind is Kind.CHAT:
        more |= {
            "tool_calls": st.lists(objects, min_size=1, max_size=3).map(_calls),
            "logprobs": st.lists(tokens, max_size=3),
        }
    return st.fixed_dictionaries({"response": texts, "done_reason": st.sampled_from(("stop", "length"))}, optional=more)


def times() -> dict[str, Any]:
    return {"endpoint": texts, "attempts": st.integers(1, 9), "seconds": seconds, "finished_at": stamps}


@st.composite
def documents(draw: st.DrawFn, kind: Kind) -> dict[str, Any]:
    """Draw a line of our responses.jsonl, without its prompt."""
    heading = {"line": counts, "id": texts, "model": texts, "prompt_tokens": counts, "eval_tokens": counts, **times()}
    document: dict[str, Any] = draw(
        st.fixed_dictionaries(heading, optional={"extra": objects, "wait_seconds": seconds})
    )
    if kind is Kind.EMBED:
        vectors = st.lists(st.lists(numbers, min_size=1, max_size=3), min_size=1, max_size=3)
        return {**document, "embeddings": draw(vectors), "eval_tokens": 0}
    if draw(st.booleans()):
        return {**document, **draw(answers(kind))}
    shares = {**times(), "prompt_tokens": counts, "eval_tokens": counts, "seed": counts}
    several = draw(st.lists(st.tuples(answers(kind), st.fixed_dictionaries(shares)), min_size=2, max_size=3))
    first = {key: value for key, value in several[0][0].items() if key != "logprobs"}
    reasons = [answer["done_reason"] for answer, _ in several]
    first["done_reason"] = "length" if "length" in reasons else reasons[0]
    return {**document, **first, "responses": [answer | share for answer, share in several]}


@given(st.sampled_from(list(Kind)).flatmap(lambda kind: st.tuples(st.just(kind), documents(kind))))
def test_response_comes_back_from_openais_line_as_it_was(drawn: tuple[Kind, dict[str, Any]]) -> None:
    kind, document = drawn

    told = json.loads(json.dumps(openai_response_line(response_of(document), document, "20261122T180105-3f9a1c", kind)))

    assert is_openai_line(told)
    assert to_record(told) == document
    check_body(kind, told["response"]["body"])


@given(
    st.fixed_dictionaries(
        {
            "line": counts,
            "id": texts,
            "class": st.sampled_from([*STATUSES, "cancelled", "timeout", "cut_short", "unreachable"]),
            "message": texts,
            "attempts": st.integers(0, 9),
        },
        optional={"endpoint": texts, "responses": st.lists(answers(Kind.CHAT), min_size=1, max_size=2)},
    )
)
def test_failure_comes_back_from_openais_line_as_it_was(document: dict[str, Any]) -> None:
    told = json.loads(json.dumps(openai_failure_line(failure_of(document), document, "job1")))

    assert is_openai_line(told)
    assert to_record(told) == document
    assert (told["response"] is None) != (told["error"] is None)
    assert told["response"] is None or told["response"]["status_code"] >= 400


@given(st.fixed_dictionaries({"id": values, "custom_id": values, "response": values, "error": values}))
def test_damaged_line_of_an_output_is_read_without_an_error(document: dict[str, Any]) -> None:
    assert to_record(document)["id"] == document["custom_id"]


@given(values, counts)
def test_every_id_has_a_custom_id_that_is_a_string(value: Any, line: int) -> None:
    assert isinstance(custom_id_of(value, line), str)


parts = st.lists(st.dictionaries(st.sampled_from(("type", "text", "image_url", "refusal")), values), max_size=3)
messages = st.lists(
    st.dictionaries(
        st.sampled_from(("role", "content", "tool_calls", "tool_call_id", "name", "reasoning")),
        values | parts | st.sampled_from(("user", "assistant", "tool", "developer")),
    ),
    max_size=3,
)
bodies = st.dictionaries(
    st.sampled_from(sorted({*SHARED, *REASONS, *NEUTRAL, *PASSED_OVER, "tools", "response_format", "tool_choice"})),
    values | messages,
    max_size=4,
)


@given(
    st.fixed_dictionaries(
        {"custom_id": texts | values, "method": st.just("POST") | values, "body": bodies | values},
        optional={"url": st.sampled_from((CHAT, COMPLETIONS, EMBEDDINGS, "/v1/score", "/chat/completions")) | values},
    ),
    st.dictionaries(texts, scalars, max_size=2),
)
def test_any_line_becomes_a_request_or_a_sentence(document: dict[str, Any], more: dict[str, Any]) -> None:
    raw = json.dumps({**more, **document}).encode()

    try:
        request = parse_line(raw, 3)
    except LineError as error:
        sentence = str(error)
    else:
        sentence = ""
        _assert_is_asked(request, document, more)
    assert "\n" not in sentence


def _assert_is_asked(request: Request, document: dict[str, Any], more: dict[str, Any]) -> None:
    assert request.id == document["custom_id"]
    assert set(request.extra) == set(more) - LINE_KEYS
    json.dumps(request_body(request, JOB))
    signature_of(request, JOB)


@given(
    st.fixed_dictionaries(
        {"messages": st.just([{"role": "user", "content": "Hello"}])},
        optional={
            "model": st.sampled_from(("llama3.2", "qwen3:8b")),
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1),
            "seed": st.integers(0, 2**62),
            "stop": st.text(min_size=1, max_size=5) | st.lists(st.text(min_size=1, max_size=5), max_size=4),
            "max_completion_tokens": st.integers(1, 10**6),
            "n": st.integers(1, 9),
            "frequency_penalty": st.floats(-2, 2),
            "reasoning_effort": st.sampled_from(("none", "low", "medium", "high")),
            "user": texts,
        },
    )
)
def test_good_body_is_asked_as_ours_would_be(body: dict[str, Any]) -> None:
    raw = json.dumps({"custom_id": "r", "method": "POST", "url": CHAT, "body": body}).encode()
    names = {"max_completion_tokens": "num_predict"}
    options = {
        names.get(key, key): [value] if key == "stop" and isinstance(value, str) else value
        for key, value in body.items()
        if key in ("temperature", "top_p", "seed", "stop", "max_completion_tokens", "frequency_penalty")
    }
    ours: dict[str, Any] = {key: body[key] for key in ("messages", "model", "n") if key in body}
    ours |= {"id": "r", "options": options}
    if "reasoning_effort" in body:
        ours["think"] = False if body["reasoning_effort"] == "none" else body["reasoning_effort"]

    assert parse_line(raw, 1) == parse_line(json.dumps(ours).encode(), 1)
