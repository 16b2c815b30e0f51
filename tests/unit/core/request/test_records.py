"""From a request and its job's settings to what is sent, and to what a server must have loaded for it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.records import (
    RELOADING_OPTIONS,
    JobSettings,
    Request,
    Signature,
    answers_of,
    canonical_model,
    chat_body,
    nth_request,
    num_predict_of,
    preload_body,
    request_body,
    reseeded,
    signature_of,
    whole_option,
)

JOB = JobSettings(model="llama3.2", system="Be brief.", options={"temperature": 0.0}, num_ctx=4096, num_predict=99)


def request(**document: Any) -> Request:
    return parse_line(json.dumps({"prompt": "Hello", **document}).encode(), 1)


def test_another_attempt_has_a_seed_that_no_answer_of_the_line_has() -> None:
    job = JobSettings(model="m", options={"seed": 7}, n=3)
    request = parse_line(b'{"prompt": "x"}', 1)
    firsts = [nth_request(request, job, answer) for answer in range(3)]

    seeds = [reseeded(first, job, attempt).options["seed"] for attempt in (1, 2, 3) for first in firsts]

    assert seeds[:3] == [7, 8, 9]
    assert len(set(seeds)) == 9
    assert reseeded(request, JobSettings(model="m"), 3) == request  # Ollama draws one


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

    chat_body(line, JOB)["messages"].append({})

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
    ignoring = replace(JOB, ignore=["logit_bias"])
    assert JobSettings.from_json(json.loads(json.dumps(ignoring.to_json()))) == ignoring
    assert Signature.from_json(written[1]) == signature


def test_keys_of_newer_versions_are_passed_over() -> None:
    assert JobSettings.from_json({**JOB.to_json(), "colour": "blue"}) == JOB


EMBED = parse_line(b'{"id": "a", "embed": ["one", "two"], "dimensions": 8, "options": {"num_batch": 64}}', 1)


def test_body_of_an_embed_holds_its_texts_and_nothing_of_answers() -> None:
    assert request_body(EMBED, JOB) == {
        "model": "llama3.2",
        "input": ["one", "two"],
        "truncate": False,
        "dimensions": 8,
        "options": {"num_ctx": 4096, "temperature": 0.0, "num_batch": 64},
    }


def test_body_of_a_completion_holds_the_prompt_and_the_jobs_system_message() -> None:
    line = parse_line(b'{"complete": "def f(", "suffix": "return 1", "logprobs": true, "top_logprobs": 2}', 1)

    assert request_body(line, JOB) == {
        "model": "llama3.2",
        "prompt": "def f(",
        "system": "Be brief.",
        "suffix": "return 1",
        "stream": False,
        "truncate": False,
        "shift": False,
        "logprobs": True,
        "top_logprobs": 2,
        "options": {"num_ctx": 4096, "num_predict": 99, "temperature": 0.0},
    }


def test_raw_completion_is_sent_without_the_jobs_system_message() -> None:
    body = request_body(parse_line(b'{"complete": "a", "raw": true}', 1), JOB)

    assert body["raw"] is True
    assert "system" not in body


def test_chat_asks_for_probabilities_only_where_the_line_does() -> None:
    assert "logprobs" not in request_body(request(), JOB)
    plain = request_body(request(logprobs=True), JOB)

    assert plain["logprobs"] is True
    assert "top_logprobs" not in plain


def test_embed_of_a_model_is_another_signature_than_a_chat_with_it_and_is_loaded_by_its_own_call() -> None:
    embedding, talking = (signature_of(parse_line(line, 1), JOB) for line in (b'{"embed": "a"}', b'{"prompt": "a"}'))

    assert embedding != talking
    assert preload_body(embedding) == {
        "model": "llama3.2:latest",
        "input": [],
        "truncate": False,
        "options": {"num_ctx": 4096},
    }
    written = json.loads(json.dumps(embedding.with_num_ctx(512).to_json()))
    assert Signature.from_json(written) == Signature("llama3.2:latest", (("num_ctx", 512),), embeds=True)


class TestSeveralAnswers:
    def test_line_says_how_many_else_the_job_and_texts_have_one_vector(self) -> None:
        five = JobSettings(model="a", n=5)

        assert [answers_of(line, five) for line in (request(n=2), request(n=1), request(), EMBED)] == [2, 1, 5, 1]
        assert answers_of(request(), JOB) == 1

    @pytest.mark.parametrize(
        ("line", "job", "first"),
        [({"seed": 7}, {"seed": 3}, 7), ({}, {"seed": 3}, 3), ({"seed": 2**63 - 2}, {}, 2**63 - 2)],
    )
    def test_seeds_count_up_from_the_one_that_is_given(
        self, line: dict[str, Any], job: dict[str, Any], first: int
    ) -> None:
        settings = JobSettings(model="a", options=job)

        found = [nth_request(request(options=line, n=2), settings, answer).options["seed"] for answer in (0, 1)]

        assert found == [first, first + 1]

    @pytest.mark.parametrize("options", [{}, {"seed": -1}])
    def test_seeds_come_from_the_id_where_none_is_given(self, options: dict[str, Any]) -> None:
        def seeds(name: str) -> list[int]:
            line = request(options=options, id=name, n=3)
            return [whole_option(nth_request(line, JOB, answer).options, "seed", -1) for answer in range(3)]

        first = seeds("a")[0]
        assert seeds("a") == [first, first + 1, first + 2]
        assert 0 <= first < 2**31
        assert seeds("a") != seeds("b")

    def test_nothing_but_the_seed_differs(self) -> None:
        line = request(n=2, system="x", options={"top_k": 5})

        body = chat_body(nth_request(line, JOB, 1), JOB)

        del body["options"]["seed"]
        assert body == chat_body(line, JOB)
        assert signature_of(nth_request(line, JOB, 1), JOB) == signature_of(line, JOB)


def test_line_that_names_a_model_by_its_alias_is_asked_of_the_other_one() -> None:
    settings = replace(JOB, aliases={"gpt-4o-mini": "qwen3"})

    for named, asked in (("gpt-4o-mini", "qwen3"), ("llama3.2", "llama3.2"), (None, "llama3.2")):
        for kind in ({"prompt": "x"}, {"complete": "x"}, {"embed": "x"}):
            line = parse_line(json.dumps({**kind, "model": named}).encode(), 1)
            assert request_body(line, settings)["model"] == asked
            assert signature_of(line, settings).model == canonical_model(asked)


@pytest.mark.parametrize("of_line", [{}, {"num_predict": 3}, {"num_ctx": 512}])
@pytest.mark.parametrize("of_job", [{}, {"num_predict": 5}])
def test_tokens_of_an_answer_are_limited_to_what_is_sent(of_line: dict[str, int], of_job: dict[str, int]) -> None:
    asked, job = request(options=of_line), replace(JOB, options=of_job)

    assert num_predict_of(asked, job) == chat_body(asked, job)["options"]["num_predict"]
