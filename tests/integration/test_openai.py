"""Files of OpenAI Batch through the real coordinator: the official client's types read every line that comes out."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tests.golden.wording import wording
from tests.support import Cluster, Published, run_obcd

pytestmark = pytest.mark.integration

#: {object of a body: the type that the official client has for it}
TYPES = {"chat.completion": "chat.ChatCompletion", "text_completion": "Completion", "list": "CreateEmbeddingResponse"}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def line(custom_id: str, body: Any, url: str = "/v1/chat/completions", **more: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body, **more})


def chat(custom_id: str, content: Any, **wishes: Any) -> str:
    return line(custom_id, {"model": "llama3.2", "messages": [{"role": "user", "content": content}], **wishes})


ASKED = [
    chat("plain", "Why is the sky blue?", max_completion_tokens=100, temperature=0, user="u-1", metadata={"a": "b"}),
    chat("object", "A patient, please.", response_format={"type": "json_object"}),
    chat(
        "schema", "A patient.", response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    ),
    chat("tool", "The weather in Riga?", tools=[TOOL], tool_choice="auto"),
    chat("no-tool", "The weather in Riga?", tools=[TOOL], tool_choice="none"),
    chat("three", "A number?", n=3, seed=5, temperature=1),
    chat("likely", "A number?", logprobs=True, top_logprobs=2, stop="\n\n\n", max_tokens=5),
    chat("parts", [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}]),
    line(
        "talk",
        {
            "model": "llama3.2",
            "messages": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": "The weather in Riga?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Riga"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
            ],
        },
    ),
    line("text", {"model": "llama3.2", "prompt": "Once upon", "max_tokens": 4, "logprobs": 2}, "/v1/completions"),
    line("vectors", {"model": "nomic-embed-text", "input": ["one", "two"]}, "/v1/embeddings"),
    line("vector", {"model": "nomic-embed-text", "input": "one", "encoding_format": "float"}, "/v1/embeddings"),
]
FAILING = [
    chat("gone", "Hello", logit_bias={"50256": -100}),
    "{no JSON",
    chat("plain", "The same id again."),
    line("absent", {"model": "absent", "messages": [{"role": "user", "content": "Hello"}]}),
    chat("crash", "[[simulate:status=500]] Hello"),
    chat("cut", "[[simulate:length]] Hello", response_format={"type": "json_object"}),
]


def official(name: str) -> Any:
    """Return a type of the official client, which takes a second to import."""
    module, _, own = f"openai.types.{name}".rpartition(".")
    return getattr(importlib.import_module(module), own)


def parse(line: dict[str, Any]) -> Any:
    """Read a line as a client of OpenAI's does: the body by the type that its `object` names, strictly."""
    assert line.keys() == {"id", "custom_id", "response", "error"}
    assert line["response"].keys() == {"status_code", "request_id", "body"}
    body = line["response"]["body"]
    return official(TYPES[body["object"]]).model_validate(body, strict=True)


@pytest.fixture
def published(cluster: Cluster) -> Published:
    server = cluster.simulate("--models", "llama3.2,nomic-embed-text", "--seconds", 0.01)
    config = cluster.configure(server.names, requests={"attempts": 1, "repairs": 0})
    coordinator = cluster.coordinate(
        config,
        tweaks={
            "obcd.core.scheduling.missing_models:MODEL_WAIT_SECONDS": 0.5,
            "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.3,
        },
    )
    coordinator.drop("".join(item + "\n" for item in [*ASKED, *FAILING]).encode(), "batch.jsonl")
    return coordinator.published("batch")


def test_official_types_read_every_line_of_a_batch(
    published: Published, environment: dict[str, str], tmp_path: Path
) -> None:
    told = {item["custom_id"]: parse(item) for item in published.responses}

    # every answer is of its endpoint's type, under the caller's own id
    assert list(told) == [json.loads(item)["custom_id"] for item in ASKED]
    assert {item["response"]["status_code"] for item in published.responses} == {200}
    plain = told["plain"]
    assert isinstance(plain, official("chat.ChatCompletion"))
    assert plain.choices[0].message.role == "assistant"
    assert plain.choices[0].message.content
    assert plain.choices[0].finish_reason == "stop"
    assert plain.usage is not None
    assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens > 0
    json.loads(told["object"].choices[0].message.content)
    assert isinstance(json.loads(told["schema"].choices[0].message.content)["age"], int)
    call = told["tool"].choices[0].message.tool_calls[0]
    assert told["tool"].choices[0].finish_reason == "tool_calls"
    assert (call.type, call.function.name) == ("function", "weather")
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    assert told["no-tool"].choices[0].message.tool_calls is None
    assert [choice.index for choice in told["three"].choices] == [0, 1, 2]
    assert len({choice.message.content for choice in told["three"].choices}) == 3
    likely = told["likely"].choices[0]
    assert likely.finish_reason == "length"
    assert all(len(token.top_logprobs) == 2 for token in likely.logprobs.content)
    assert isinstance(told["text"], official("Completion"))
    columns = told["text"].choices[0].logprobs
    assert columns is not None
    assert len(columns.tokens or ()) == len(columns.text_offset or ()) > 0
    assert isinstance(told["vectors"], official("CreateEmbeddingResponse"))
    assert [item.index for item in told["vectors"].data] == [0, 1]
    assert told["vectors"].data[0].embedding == told["vector"].data[0].embedding

    # what failed says why, in a reply where there would have been one
    errors = {item["custom_id"]: item for item in published.errors}
    assert list(errors) == ["gone", "line-14", "plain", "absent", "crash", "cut"]
    assert not any(item["response"] and item["error"] for item in errors.values())
    statuses = {name: item["response"] and item["response"]["status_code"] for name, item in errors.items()}
    assert statuses == {"gone": 400, "line-14": 400, "plain": 400, "absent": 404, "crash": 500, "cut": None}
    assert errors["gone"]["response"]["body"]["error"]["message"].startswith(wording("body-logit-bias-is-not-taken"))
    assert errors["cut"]["error"]["code"] == "cut_short"
    assert (published.folder / "retry.jsonl").read_text("utf-8") == "".join(item + "\n" for item in FAILING)

    # the batch object
    batch = official("Batch").model_validate(published.manifest["batch"], strict=True)
    assert (batch.object, batch.endpoint, batch.status) == ("batch", "/v1/chat/completions", "completed")
    counts = batch.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (18, 12, 6)
    assert batch.usage is not None
    rest = errors["cut"]["error"]["obcd"]  # a failure that was computed is paid for too
    usages = [item.usage for item in told.values()]
    assert batch.usage.input_tokens == sum(usage.prompt_tokens for usage in usages) + rest["prompt_tokens"]
    assert batch.usage.output_tokens == rest["eval_tokens"] + sum(
        getattr(usage, "completion_tokens", 0) for usage in usages
    )
    assert batch.completed_at is not None
    assert batch.created_at <= (batch.in_progress_at or 0) <= batch.completed_at
    named = [batch.input_file_id, batch.output_file_id, batch.error_file_id]
    assert [name and (published.folder / name).is_file() for name in named] == [True, True, True]

    # our own commands read the folder too
    verified = run_obcd(environment, "verify", published.folder)
    assert verified.returncode == 0, verified.stdout
    assert "6 failed: complete" in verified.stdout
    printed = run_obcd(environment, "print", published.folder, "--json")
    shown = {item["id"]: item for item in map(json.loads, printed.stdout.splitlines())}
    assert shown["plain"]["prompt"] == "Why is the sky blue?"
    assert shown["plain"]["response"] == plain.choices[0].message.content
    assert shown["vectors"]["prompt"] == ["one", "two"]
    merged = run_obcd(environment, "merge", "--input-dir", published.folder, "--output-file", tmp_path / "all.jsonl")
    assert merged.returncode == 3
    embedded = run_obcd(environment, "vectors", published.folder, "-o", tmp_path / "vectors.jsonl")
    assert embedded.returncode == 3, embedded.stderr
    rows = [json.loads(item) for item in (tmp_path / "vectors.jsonl").read_text("utf-8").splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == [("vectors", "one"), ("vectors", "two"), ("vector", "one")]
    values = [json.loads(item) for item in (tmp_path / "all.jsonl").read_text("utf-8").splitlines()]
    assert json.loads(told["schema"].choices[0].message.content) in values


def test_what_failed_is_asked_again_from_retry_jsonl(cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.01)
    config = cluster.configure(server.names, requests={"attempts": 1})
    coordinator = cluster.coordinate(config)
    coordinator.drop((chat("once", "[[simulate:status=500*1]] Hello") + "\n").encode(), "batch.jsonl")
    first = coordinator.published("batch")

    coordinator.drop((first.folder / "retry.jsonl").read_bytes(), "again.jsonl")

    again = coordinator.published("again")
    assert [item["custom_id"] for item in first.errors] == [item["custom_id"] for item in again.responses] == ["once"]
    assert official("Batch").model_validate(again.manifest["batch"], strict=True).error_file_id is None


def test_body_that_the_official_client_would_send_is_taken_as_it_is() -> None:
    """Guards the examples above: they are bodies of the endpoint, not of our own making."""
    for item in ASKED[:9]:
        body = json.loads(item)["body"]
        assert (
            TypeAdapter(official("chat.completion_create_params.CompletionCreateParamsNonStreaming")).validate_python(
                body
            )["model"]
            == body["model"]
        )
