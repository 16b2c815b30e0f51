"""OpenAI's lines of an output, beyond what the round trips of tests/property/test_openai.py show."""

from __future__ import annotations

from typing import Any

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.openai.openai_response import (
    STATUSES,
    WITHOUT_REPLY,
    custom_id_of,
    openai_failure_line,
    openai_response_line,
)
from obcd.core.request.records import Kind
from obcd.ollama.failures import EMBED_RULES, RULES
from tests.unit.core.answer.made import failure_of, response_of

ANSWER: dict[str, Any] = {
    "id": "r-1",
    "line": 7,
    "prompt": "Why?",
    "response": "So.",
    "model": "m",
    "done_reason": "stop",
    "attempts": 2,
    "endpoint": "gpu0",
    "prompt_tokens": 3,
    "eval_tokens": 4,
    "finished_at": "2026-11-22T18:01:05.250Z",
}
CALL = {"function": {"name": "weather", "arguments": {"city": "Riga"}}}


def choice(**changes: Any) -> dict[str, Any]:
    document = {**ANSWER, **changes}
    told: dict[str, Any] = openai_response_line(response_of(document), document, "job1", Kind.CHAT)
    found: dict[str, Any] = told["response"]["body"]["choices"][0]
    return found


def test_line_is_the_one_that_the_guide_shows() -> None:
    assert openai_response_line(response_of(ANSWER), ANSWER, "job1", Kind.CHAT) == {
        "id": "batch_req_job1_7",
        "custom_id": "r-1",
        "response": {
            "status_code": 200,
            "request_id": "req_job1_7_2",
            "body": {
                "id": "chatcmpl-job1-7",
                "object": "chat.completion",
                "created": 1795370465,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "So.", "refusal": None},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
                "obcd": {"attempts": 2, "endpoint": "gpu0", "finished_at": "2026-11-22T18:01:05.250Z"},
            },
        },
        "error": None,
    }


def test_calls_of_tools_have_ids_and_arguments_as_a_string() -> None:
    found = choice(response="", tool_calls=[CALL, {"id": "call_x", **CALL}])

    assert found["message"]["content"] is None
    assert found["message"]["tool_calls"] == [
        {"id": number, "type": "function", "function": {"name": "weather", "arguments": '{"city": "Riga"}'}}
        for number in ("call_7_0_0", "call_x")
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "stop"),
        ({"done_reason": "length"}, "length"),
        ({"tool_calls": [CALL]}, "tool_calls"),
        ({"tool_calls": [CALL], "done_reason": "length"}, "length"),
        ({"tool_calls": []}, "stop"),
        ({"tool_calls": ["damaged", {"function": {}}]}, "stop"),
    ],
)
def test_reason_for_the_end_is_one_that_openai_knows(changes: dict[str, Any], reason: str) -> None:
    assert choice(**changes)["finish_reason"] == reason


def test_probabilities_that_cannot_be_read_are_left_out() -> None:
    assert choice(logprobs=[{"token": "a", "logprob": "high"}])["logprobs"] is None
    assert choice(logprobs=[{"token": "a", "logprob": -(10**400)}])["logprobs"] is None
    beyond = [{"token": "a", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": 10**400}]}]
    assert choice(logprobs=beyond)["logprobs"]["content"][0]["top_logprobs"] == []


def test_every_failure_that_a_reply_meant_has_a_status_of_a_reply() -> None:
    judged = {rule.kind for rule in (*RULES, *EMBED_RULES)}

    assert judged - STATUSES.keys() == set()
    assert all(status >= 400 for status in STATUSES.values())


def test_every_kind_of_fault_stands_for_a_reply_or_for_none() -> None:
    assert sorted((*STATUSES, *WITHOUT_REPLY)) == sorted(FaultKind)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("too_long", 400, "too_long"),
        ("model_missing", 404, "model_missing"),
        ("busy", 503, "busy"),
        ("crashed", 500, "crashed"),
        ("timeout", None, "request_timeout"),
        ("cancelled", None, "batch_cancelled"),
        ("unreachable", None, "unreachable"),
    ],
)
def test_failure_has_a_reply_or_an_error_never_both(kind: str, status: int | None, code: str) -> None:
    failed = {"id": "r-1", "line": 7, "class": kind, "message": "Why not.", "attempts": 4, "endpoint": "gpu0"}

    told: dict[str, Any] = openai_failure_line(failure_of(failed), failed, "job1")

    error = told["error"] if status is None else told["response"]["body"]["error"]
    assert (told["response"] or {}).get("status_code") == status
    assert (error["code"], error["message"]) == (code, "Why not.")
    assert error["obcd"] == {"attempts": 4, "endpoint": "gpu0"}
    assert status is None or told["error"] is None


@pytest.mark.parametrize(
    ("value", "custom_id"), [("a", "a"), ("", ""), (7, "line-7"), (8, "8"), (True, "true"), ([4], "[4]")]
)
def test_custom_id_of_a_line_without_one_is_made(value: Any, custom_id: str) -> None:
    assert custom_id_of(value, 7) == custom_id
