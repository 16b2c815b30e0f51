"""From a request and its job's settings to what is sent, and to what a server must have loaded for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.lines import parse_line
from obcd.core.records import (
    RELOADING_OPTIONS,
    JobSettings,
    Request,
    Signature,
    canonical_model,
    chat_body,
    preload_body,
    signature_of,
)

JOB = JobSettings(model="llama3.2", system="Be brief.", options={"temperature": 0.0}, num_ctx=4096, num_predict=99)


def request(**document: Any) -> Request:
    return parse_line(json.dumps({"prompt": "Hello", **document}).encode(), 1)


def test_body_holds_the_jobs_wishes_and_never_leaves_out_the_limits() -> None:
    assert chat_body(request(), JOB) == {
        "model": "llama3.2",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "stream": False,
        "truncate": False,
        "shift": False,
        "options": {"num_ctx": 4096, "num_predict": 99, "temperature": 0.0},
    }


def test_wishes_of_the_line_win_over_those_of_the_job() -> None:
    job = JobSettings(model="a", system="x", options={"seed": 1, "top_k": 5}, format="json", think=True)

    body = chat_body(
        request(model="B", system="y", options={"seed": 2, "num_ctx": 512}, format={"type": "object"}, think=False), job
    )

    assert (body["model"], body["messages"][0]["content"]) == ("B", "y")
    assert body["options"] == {"seed": 2, "top_k": 5, "num_ctx": 512, "num_predict": 2048}
    assert (body["format"], body["think"]) == ({"type": "object"}, False)


def test_empty_system_of_a_line_means_none() -> None:
    assert chat_body(request(system=""), JOB)["messages"] == [{"role": "user", "content": "Hello"}]


def test_system_message_of_a_line_takes_the_place_of_the_jobs() -> None:
    messages = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "Hello"}]
    line = parse_line(json.dumps({"messages": messages}).encode(), 1)

    assert chat_body(line, JOB)["messages"] == messages


def test_nothing_of_a_lines_other_keys_is_sent() -> None:
    body = chat_body(request(endpoint="10.0.0.1", stream=True, keep_alive=0, url="http://x/"), JOB)

    assert body == chat_body(request(), JOB)


def test_body_is_not_the_requests_own_list() -> None:
    line = request()

    chat_body(line, JOB)["messages"].append("x")

    assert len(line.messages) == 1


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("Llama3.2", "llama3.2:latest"),
        ("qwen2.5:7B", "qwen2.5:7b"),
        ("hf.co/Some/Model", "hf.co/some/model:latest"),
        ("host:5000/some/model", "host:5000/some/model:latest"),
        ("host:5000/some/model:q4", "host:5000/some/model:q4"),
    ],
)
def test_model_names_are_compared_as_ollama_does(name: str, canonical: str) -> None:
    assert canonical_model(name) == canonical


def test_signature_holds_the_model_and_what_makes_it_load_anew_and_nothing_else() -> None:
    line = request(options={"num_gpu": 1, "seed": 3, "use_mmap": True, "num_predict": 5})

    assert signature_of(line, JOB) == Signature(
        "llama3.2:latest", (("num_ctx", 4096), ("num_gpu", 1), ("use_mmap", True))
    )


@pytest.mark.parametrize("option", RELOADING_OPTIONS)
def test_every_reloading_option_makes_another_signature(option: str) -> None:
    value: Any = True if option == "use_mmap" else 64

    assert signature_of(request(options={option: value}), JOB) != signature_of(request(), JOB)


def test_signature_does_not_depend_on_how_the_model_is_spelled() -> None:
    assert signature_of(request(model="LLAMA3.2:latest"), JOB) == signature_of(request(), JOB)


def test_preload_asks_for_what_the_requests_carry() -> None:
    line = request(options={"num_batch": 256})

    preload, body = preload_body(signature_of(line, JOB)), chat_body(line, JOB)

    assert preload["messages"] == []
    assert preload["options"] == {"num_ctx": 4096, "num_batch": 256}
    assert all(preload[key] == body[key] for key in ("stream", "truncate", "shift"))
    assert preload["model"] == canonical_model(body["model"])


def test_settings_and_signature_survive_their_way_over_the_disk() -> None:
    signature = signature_of(request(), JOB)

    written = json.loads(json.dumps([JOB.to_json(), signature.to_json()]))

    assert JobSettings.from_json(written[0]) == JOB
    assert Signature.from_json(written[1]) == signature


def test_keys_of_newer_versions_are_passed_over() -> None:
    assert JobSettings.from_json({**JOB.to_json(), "colour": "blue"}) == JOB
