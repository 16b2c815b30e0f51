"""All kinds of requests through a coordinator: several models in one file, several answers a prompt, kills."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from obcd.core.endpoint.concurrency import FIRST
from tests.golden.wording import wording
from tests.support import Cluster, Published, Simulated, all_gone, family, prompt_key, run_obcd, wait_until

pytestmark = pytest.mark.integration


MODELS = "llama3.2,qwen3,nomic-embed-text"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
LINES: list[dict[str, Any]] = [
    {"id": "plain", "prompt": "Why?"},
    {"id": "thought", "prompt": "Why not?", "model": "qwen3"},
    {"id": "vectors", "embed": ["one", "two"], "model": "nomic-embed-text"},
    {"id": "five", "prompt": "Tell a joke.", "n": 5, "options": {"seed": 40}},
    {"id": "call", "prompt": "Weather?", "tools": [TOOL]},
    {"id": "sure", "prompt": "Sure?", "logprobs": True, "top_logprobs": 2},
    {"id": "rest", "complete": "Once upon"},
    {"id": "talk", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                                {"role": "user", "content": "c"}]},
    {"id": "long", "embed": "long " * 9000, "model": "nomic-embed-text"},
    {"id": "path", "prompt": "What is it?", "images": ["scans/cat.png"]},
    {"id": "picture", "prompt": "What is it?", "images": ["iVBORw0KGgo" + "A" * 80 + "="]},
    {"id": "gap", "complete": "def f(", "suffix": "return 1"},
    {"id": "no vectors", "embed": "one"},
]  # fmt: skip


def drop_of(documents: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def has_account(server: Simulated, at_least: int) -> bool:
    return len(server.account()) >= at_least


def assert_verified(environment: dict[str, str], done: Published) -> None:
    verified = run_obcd(environment, "verify", str(done.folder))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_one_file_asks_all_kinds_of_several_models(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.01, "--load-seconds", 0.0, "--models", MODELS)
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 4}))
    coordinator.drop(drop_of(LINES))

    done = coordinator.published()

    done.assert_complete(len(LINES))
    found = {item["id"]: item for item in done.responses}
    assert found["thought"]["thinking"]
    assert [len(vector) for vector in found["vectors"]["embeddings"]] == [64, 64]
    assert found["vectors"]["prompt"] == ["one", "two"]
    five = found["five"]["responses"]
    assert [answer["seed"] for answer in five] == [40, 41, 42, 43, 44]
    assert len({answer["response"] for answer in five}) == 5
    assert found["five"]["response"] == five[0]["response"]
    assert found["call"]["tool_calls"][0]["function"]["name"] == "weather"
    assert len(found["sure"]["logprobs"][0]["top_logprobs"]) == 2
    assert found["rest"]["response"]
    assert found["talk"]["prompt"] == "c"
    assert [(item["id"], item["class"], item["attempts"]) for item in done.errors] == [
        ("long", "too_long", 1), ("path", "bad_line", 0),
        ("picture", "unsupported", 0), ("gap", "unsupported", 0), ("no vectors", "unsupported", 0),
    ]  # fmt: skip
    assert not {prompt_key("What is it?"), prompt_key("def f(")} & set(server.asked())
    assert done.manifest["counts"]["requests"] == len(LINES)
    assert set(done.manifest["digests"]) == {"llama3.2:latest", "qwen3:latest", "nomic-embed-text:latest"}
    assert_verified(cluster.environment, done)
    written = run_obcd(cluster.environment, "vectors", str(done.folder), "-o", str(tmp_path / "v.jsonl"))
    assert written.returncode == 3
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_bytes().splitlines()]
    assert [(row["id"], row["index"], row["text"]) for row in rows] == [("vectors", 0, "one"), ("vectors", 1, "two")]
    path = tmp_path / "texts.jsonl"
    merged = run_obcd(
        cluster.environment, "merge", str(done.folder), "-o", str(path), "--text", "--with", "id,index,seed,tool_calls"
    )
    assert merged.returncode == 3
    told = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(row["index"], row["seed"]) for row in told if row["id"] == "five"] == list(enumerate(range(40, 45)))
    assert [row["response"] for row in told if row["id"] == "five"] == [answer["response"] for answer in five]
    (call,) = (row for row in told if row["id"] == "call")
    assert call["tool_calls"] == found["call"]["tool_calls"]


def test_kills_neither_lose_nor_double_an_answer_or_a_vector(cluster: Cluster) -> None:
    # given lines of many answers, and many texts to embed
    server = cluster.simulate("--parallel", 4, "--seconds", 0.1, "--load-seconds", 0.0, "--models", MODELS)
    lines: list[dict[str, Any]] = [{"prompt": f"joke {number}", "n": 10} for number in range(4)]
    lines += [{"embed": f"text {number}", "model": "nomic-embed-text"} for number in range(20)]
    config = cluster.configure({server.names[0]: 4})
    coordinator = cluster.coordinate(config)
    coordinator.drop(drop_of(lines))

    # when the coordinator is killed over and over
    kills = 3
    for number in range(kills):
        wait_until(partial(has_account, server, 12 * (number + 1)))
        children = family(coordinator.pid)
        coordinator.kill()
        wait_until(partial(all_gone, children), what="no process outlives a killed coordinator")
        coordinator = cluster.coordinate(config)

    # then
    done = coordinator.published()
    done.assert_complete(len(lines))
    assert done.errors == []
    for item in done.responses[:4]:
        seeds = [answer["seed"] for answer in item["responses"]]
        assert seeds == list(range(seeds[0], seeds[0] + 10))
        assert len({answer["response"] for answer in item["responses"]}) == 10
    assert all(len(item["embeddings"]) == 1 for item in done.responses[4:])
    asked = server.asked()
    assert set(asked) == {prompt_key(item.get("prompt") or item["embed"]) for item in lines}
    assert sum(asked.values()) - 60 <= 8 * kills  # in flight in four slots, and as many answers not on disk yet
    assert_verified(cluster.environment, done)


def test_one_answer_of_several_that_fails_keeps_the_others(cluster: Cluster) -> None:
    # given a prompt that is refused for good the first two times that it is asked
    server = cluster.simulate("--parallel", 1, "--seconds", 0.01)
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 1}, requests={"n": 4}))
    coordinator.drop(["[[simulate:status=400*2]] Tell a joke.", "Another one."])

    done = coordinator.published()

    (error,) = done.errors
    assert (error["line"], error["class"]) == (1, "bad_request")
    assert error["message"].startswith(wording("2-of-4-answers-failed-the"))
    assert len(error["responses"]) == 2
    assert [len(item["responses"]) for item in done.responses] == [4]
    assert done.manifest["settings"]["n"] == 4
    assert done.manifest["counts"]["requests"] == 2
    assert_verified(cluster.environment, done)


def test_embedding_model_that_answers_one_by_one_is_not_flooded(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 8, "--seconds", 0.01, "--load-seconds", 0.0, "--models", MODELS)
    config = cluster.configure(server.names, model="nomic-embed-text")
    config.write_text(config.read_text("utf-8").replace("slots = 2", 'slots = "auto"'), "utf-8")
    coordinator = cluster.coordinate(config)
    coordinator.drop(drop_of([{"embed": f"text {number}"} for number in range(200)]))

    coordinator.published().assert_complete(200)

    account = requests.get(f"http://{server.names[0]}/simulated/requests", timeout=10).json()
    assert account["max_in_flight"] == 1
    assert account["max_waiting"] <= FIRST
