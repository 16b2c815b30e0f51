"""Chat and batch files as people bring them, from the dropped file to the published folder (field cases R43-R48)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.core.request.keys.ignored_keys import describe_ignored
from obcd.core.request.lines import parse_line
from obcd.core.request.records import Kind, Request, RequestBody, request_body
from obcd.results.verify import Verdict, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader, read_request_line
from tests.golden.wording import wording
from tests.unit.spool.spools import SETTINGS, accept_bytes, answer, finish, lines_of, record

IGNORING = replace(SETTINGS, ignore=["tool_choice"])


def accept_lines(layout: Layout, *documents: dict[str, Any], settings: Any = SETTINGS) -> JobHeader:
    return accept_bytes(layout, b"".join(json.dumps(each).encode() + b"\n" for each in documents), settings=settings)


def sent(layout: Layout, header: JobHeader, ordinal: int = 0) -> tuple[Request, RequestBody]:
    """Return a request of a job as its worker reads it, and the body that Ollama gets."""
    place, raw = read_request_line(layout.jobs / header.id, ordinal)
    request = parse_line(raw, place.line, header.settings.reading)
    return request, request_body(request, header.settings)


def published(layout: Layout, header: JobHeader) -> tuple[list[dict[str, Any]], Path]:
    """Answer the job, and return its responses and its folder, which is complete."""
    assert header.bad_lines == 0
    folder = finish(layout, header)
    assert verify("job", folder).verdict is Verdict.COMPLETE
    return lines_of(folder / "responses.jsonl"), folder


def test_r43_developer_with_text_parts_and_weights_is_answered(layout: Layout) -> None:
    document = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief"}]},
            {"role": "user", "content": "Hi", "weight": 0},
        ]
    }
    header = accept_lines(layout, document, document)

    assert sent(layout, header)[1]["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Hi"},
    ]
    assert describe_ignored(header.unobeyed) == [wording("messages-weight-line-1-is-not-sent")]
    responses, folder = published(layout, header)
    assert [line["prompt"] for line in responses] == ["Hi", "Hi"]
    assert json.loads((folder / "manifest.json").read_bytes())["input"]["unobeyed"] == {"messages[].weight": 1}


@pytest.mark.parametrize("is_openai", [False, True])
def test_r44_null_content_beside_a_call_and_its_result_by_name_are_answered(layout: Layout, is_openai: bool) -> None:
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "name": "f", "content": "1"},
    ]
    document = {"custom_id": "a", "body": {"messages": messages}} if is_openai else {"messages": messages}
    header = accept_lines(layout, document)

    assert sent(layout, header)[1]["messages"] == [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "tool_name": "f", "content": "1"},
    ]
    assert len(published(layout, header)[0]) == 1


def test_r45_conversation_of_sharegpt_is_answered(layout: Layout) -> None:
    header = accept_lines(layout, {"conversations": [{"from": "human", "value": "Hi"}], "source": "web"})

    assert sent(layout, header)[1]["messages"] == [{"role": "user", "content": "Hi"}]
    (line,) = published(layout, header)[0]
    assert (line["prompt"], line["extra"]) == ("Hi", {"source": "web"})


def test_r46_line_of_together_with_an_input_is_an_embedding_in_openais_form(layout: Layout) -> None:
    header = accept_lines(layout, {"custom_id": "e1", "body": {"model": "m", "input": "text"}})
    request, body = sent(layout, header)
    assert (request.kind, body["input"], body["model"]) == (Kind.EMBED, ["text"], "m")
    assert header.asks == "/v1/embeddings"

    record(layout, header.id, [answer(0, embeddings=[[0.5, 1.0]], eval_tokens=0)])
    (line,) = published(layout, header)[0]

    assert (line["custom_id"], line["error"]) == ("e1", None)
    assert line["response"]["body"]["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}]


def test_r47_switch_of_vllm_makes_the_model_think(layout: Layout) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "chat_template_kwargs": {"enable_thinking": True},
        "ignore_eos": False,
    }
    header = accept_lines(layout, {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})

    assert sent(layout, header)[1]["think"] is True
    assert published(layout, header)[0][0]["custom_id"] == "a"


def test_r48_ignored_choice_of_tools_is_answered_and_reported_once(layout: Layout) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    documents = [
        {"custom_id": name, "body": {"messages": [{"role": "user", "content": "Hi"}], "tools": [tool],
                                     "tool_choice": "required"}}
        for name in ("a", "b")
    ]  # fmt: skip
    header = accept_lines(layout, *documents, settings=IGNORING)

    assert "tool_choice" not in sent(layout, header)[1]
    assert sent(layout, header)[1]["tools"] == [tool]
    assert describe_ignored(header.unobeyed) == [wording("body-tool-choice-line-1-is-not-sent")]
    assert [line["custom_id"] for line in published(layout, header)[0]] == ["a", "b"]


def test_r48_choice_that_no_profile_ignores_fails_by_its_name(layout: Layout) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "tool_choice": "required"}

    assert accept_lines(layout, {"custom_id": "a", "body": body}).bad_lines == 1
