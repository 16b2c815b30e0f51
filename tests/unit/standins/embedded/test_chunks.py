"""What llama.cpp is asked, and what its chunks come to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.standins.embedded.chunks import ChunkReader, llama_request
from obcd.standins.wire.engine import EngineError, LoadSignature, Work


def work(**fields: Any) -> Work:
    defaults: dict[str, Any] = {"signature": LoadSignature("m:latest", 1000), "options": {}, "messages": []}
    return Work(**{**defaults, **fields})


def asked(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(llama_request(work(**fields))[0])
    return body


def test_ollamas_defaults_and_names_are_translated() -> None:
    body = asked(options={"num_predict": 50, "seed": -1, "num_ctx": 1000, "top_k": 5})

    assert (body["n_predict"], body["top_k"], body["temperature"], body["repeat_penalty"]) == (50, 5, 0.8, 1.0)
    assert "seed" not in body
    assert "num_ctx" not in body
    assert asked()["n_predict"] == 10_000


def test_format_becomes_a_response_format() -> None:
    assert asked(format="json")["response_format"] == {"type": "json_object"}
    assert asked(format={"type": "object"})["response_format"]["json_schema"] == {"schema": {"type": "object"}}
    assert "response_format" not in asked()


def test_raw_prompt_goes_to_completions() -> None:
    body, is_raw = llama_request(work(raw_prompt="once"))

    assert is_raw
    assert json.loads(body)["prompt"] == "once"


def test_messages_become_openais() -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    messages = [{"role": "User", "content": "see", "images": ["AAAA"]}, {"role": "assistant", "tool_calls": [call]}]

    first, second = asked(messages=messages)["messages"]

    assert first["role"] == "user"
    assert [part["type"] for part in first["content"]] == ["text", "image_url"]
    assert second["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}


def test_chunks_become_an_outcome() -> None:
    reader = ChunkReader()
    chunks = [
        {"choices": [{"finish_reason": None, "delta": {"role": "assistant", "content": None}}]},
        {"choices": [{"finish_reason": None, "delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"finish_reason": None, "delta": {"content": "Hel"}}]},
        {"choices": [{"finish_reason": None, "delta": {"content": "lo"}}]},
        {"choices": [{"finish_reason": "length", "delta": {}}]},
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2},
         "timings": {"prompt_ms": 80.0, "predicted_ms": 20.0}},
    ]  # fmt: skip

    pieces = [reader.read(json.dumps(chunk).encode()) for chunk in chunks]
    outcome = reader.outcome()

    assert pieces == [None, ("", "hm"), ("Hel", ""), ("lo", ""), None, None]
    assert (outcome.text, outcome.thinking, outcome.done_reason) == ("Hello", "hm", "length")
    assert (outcome.prompt_tokens, outcome.eval_tokens) == (9, 2)
    assert (outcome.prompt_seconds, outcome.eval_seconds) == (0.08, 0.02)


def test_tool_calls_come_in_parts_and_end_as_stop() -> None:
    reader = ChunkReader()
    for part in ({"id": "c1", "function": {"name": "add", "arguments": '{"a"'}}, {"function": {"arguments": ": 1}"}}):
        reader.read(json.dumps({"choices": [{"delta": {"tool_calls": [{"index": 0, **part}]}}]}).encode())
    reader.read(b'{"choices":[{"finish_reason":"tool_calls","delta":{}}]}')

    outcome = reader.outcome()

    assert outcome.done_reason == "stop"
    assert outcome.tool_calls == ({"id": "c1", "function": {"index": 0, "name": "add", "arguments": {"a": 1}}},)


def test_refusal_keeps_its_json_and_its_status() -> None:
    reader = ChunkReader()
    reader.read(b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}')

    with pytest.raises(EngineError) as caught:
        reader.outcome()

    assert caught.value.status == 400
    assert json.loads(caught.value.text)["error"]["type"] == "exceed_context_size_error"


def test_answer_that_was_broken_off_has_no_reason() -> None:
    reader = ChunkReader()
    reader.read(b'{"choices":[{"finish_reason":null,"delta":{"content":"Hal"}}]}')

    assert reader.outcome().done_reason is None


def chunk_of(text: str, finish: str | None = None) -> bytes:
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]}).encode()


def test_model_that_repeats_itself_is_stopped_after_thirty_equal_pieces() -> None:
    reader = ChunkReader()
    counts = 0
    while not reader.is_stuck:
        reader.read(chunk_of(" ha" if counts % 2 else "ha\n"))
        counts += 1

    assert counts == 32  # the first one is no repeat
    assert reader.outcome().done_reason is None


def test_pieces_without_text_are_no_repeats() -> None:
    reader = ChunkReader()
    for _ in range(100):
        reader.read(chunk_of(""))
    reader.read(chunk_of("", "stop"))

    assert reader.outcome().done_reason == "stop"
