"""Requests as Ollama reads them, and its words for what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from obcd.standins.wire.engine import EngineError
from obcd.standins.wire.request_values import (
    canonical_name,
    check_format,
    check_options,
    exceed_context_text,
    has_two_sources,
    parse_body,
    parse_chat,
    parse_duration,
    parse_generate,
    parse_keep_alive,
    parse_think,
    signature_of,
)
from tests.golden.wording import wording


def refusal(call: Any, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(EngineError) as caught:
        call(*arguments)
    return caught.value.status, caught.value.text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", wording("missing-request-body")),
        (b'{"model":', "unexpected EOF"),
        (b'{"model": "llama', "unexpected EOF"),
        (b"hello", wording("invalid-character-h-looking-for-beginning")),
        (b"{1: 2}", wording("invalid-character-1-looking-for-beginning")),
        (b"{} x", wording("invalid-character-x-after-top-level")),
        (b"[]", wording("json-cannot-unmarshal-array-into-go")),
    ],
)
def test_body_that_is_no_object_is_refused_in_gos_words(body: bytes, text: str) -> None:
    assert refusal(parse_body, body) == (400, text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_ctx": "4096"}, wording("option-num-ctx-must-be-of-2")),
        ({"num_ctx": True}, wording("option-num-ctx-must-be-of-2")),
        ({"temperature": "hot"}, wording("option-temperature-must-be-of-type")),
        ({"use_mmap": 1}, wording("option-use-mmap-must-be-of")),
        ({"stop": "end"}, wording("option-stop-must-be-of-type")),
        ({"stop": [1]}, wording("option-stop-must-be-of-an")),
    ],
)
def test_option_of_a_wrong_type_is_a_500(options: dict[str, Any], text: str) -> None:
    assert refusal(check_options, options) == (500, text)


def test_unknown_options_are_ignored_and_floats_for_integers_are_cut() -> None:
    assert check_options({"num_ctx": 8.9, "speed": "fast", "seed": None}) == {"num_ctx": 8}


@pytest.mark.parametrize("value", ["xml", ["json"], 5])
def test_format_that_is_neither_json_nor_a_schema_is_a_500(value: Any) -> None:
    status, text = refusal(check_format, value)

    assert status == 500
    assert text.startswith("invalid format: ")
    assert text.endswith(wording("expected-json-or-a-valid-json"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("300ms", 0.3), ("-1m", -60), ("0", 0), ("1.5h", 5400)]
)
def test_go_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "words"),
    [("300", wording("time-missing-unit-in-duration-300")), ("-1", wording("time-missing-unit-in-duration-1")),
     ("soon", 'time: invalid duration "soon"'), ("", 'time: invalid duration ""')],
)  # fmt: skip
def test_other_durations_are_refused(text: str, words: str) -> None:
    assert refusal(parse_duration, text) == (400, words)


def test_keep_alive_is_seconds_and_negative_is_for_ever() -> None:
    assert parse_keep_alive(None) is None
    assert parse_keep_alive(30) == 30
    assert parse_keep_alive(-1) == math.inf
    assert parse_keep_alive("-1m") == math.inf
    assert refusal(parse_keep_alive, True)[0] == 400


def test_think_takes_levels_and_refuses_the_rest() -> None:
    assert parse_think("high") == "high"
    assert parse_think(False) is False
    assert refusal(parse_think, "hard")[1].startswith(wording("invalid-think-value-hard"))


def test_fields_of_a_wrong_type_are_refused() -> None:
    assert "ChatRequest.messages" in refusal(parse_chat, {"messages": "hi"})[1]
    assert "ChatRequest.messages.content" in refusal(parse_chat, {"messages": [{"role": "user", "content": 5}]})[1]
    assert wording("chatrequest-stream-of-type-bool") in refusal(parse_chat, {"stream": "yes"})[1]
    assert wording("number-into-go-struct-field-chatrequest") in refusal(parse_chat, {"model": 1})[1]


def test_generate_turns_its_prompt_into_messages_and_keeps_a_raw_one() -> None:
    rendered = parse_generate({"prompt": "hi", "system": "be brief"})
    raw = parse_generate({"prompt": "hi", "raw": True})

    assert [message["role"] for message in rendered.messages] == ["system", "user"]
    assert (rendered.raw_prompt, raw.raw_prompt) == (None, "hi")
    assert parse_generate({"prompt": ""}).messages == []
    assert refusal(parse_generate, {"prompt": "x", "raw": True, "system": "y"})[0] == 400


def test_names_are_compared_without_case_and_with_their_tag() -> None:
    assert canonical_name("LLama3.2") == "llama3.2:latest"
    assert canonical_name("hf.co/Some/Model:Q4") == "hf.co/some/model:q4"
    assert canonical_name("localhost:5000/a") == "localhost:5000/a:latest"


def test_signature_holds_what_makes_ollama_reload() -> None:
    same = signature_of("m", {"temperature": 1.0, "seed": 5}, True, 4096, 8192)

    assert same == signature_of("m", {}, True, 4096, 8192)
    assert same != signature_of("m", {}, False, 4096, 8192)
    assert same != signature_of("m", {"num_batch": 64}, True, 4096, 8192)
    assert signature_of("m", {"num_ctx": 99999}, True, 4096, 8192).num_ctx == 8192
    assert signature_of("m", {"num_ctx": 0}, True, 4096, 8192).num_ctx == 4


def test_overflow_text_is_json_inside_a_string() -> None:
    error = json.loads(exceed_context_text(5000, 4096))["error"]

    assert error["message"] == (wording("request-5000-tokens-exceeds-the-available"))
    assert (error["n_prompt_tokens"], error["n_ctx"], error["type"]) == (5000, 4096, "exceed_context_size_error")


@pytest.mark.parametrize(
    ("name", "has_two"),
    [("a", False), ("a:local", False), ("a:cloud", False), ("a:8b-cloud", False), ("a:local:cloud", True),
     ("a:8b-cloud:local", True), ("local:8b", False)],
)  # fmt: skip
def test_name_with_two_sources_is_seen(name: str, has_two: bool) -> None:
    assert has_two_sources(name) is has_two


def test_picture_that_is_no_base64_is_refused_at_its_first_wrong_byte() -> None:
    for image, at in (("#", 0), ("AA#A", 2), ("AAAAA", 4)):
        status, text = refusal(parse_chat, {"messages": [{"role": "user", "content": "", "images": [image]}]})
        assert (status, text) == (400, f"illegal base64 data at input byte {at}")
