"""Lines of OpenAI Batch: what becomes of each parameter, and a sentence for each that is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.openai.custom_ids import CustomIds
from obcd.core.request.openai.openai_request import CHAT, COMPLETIONS, EMBEDDINGS, endpoint_of, is_asked
from obcd.core.request.records import JobSettings, Kind, Request, request_body
from obcd.errors import LineError
from tests.golden.wording import wording

JOB = JobSettings(model="llama3.2")
HELLO = [{"role": "user", "content": "Hello"}]
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Riga"}'}}


def line(body: Any, url: str = CHAT, **changes: Any) -> Request:
    document = {"custom_id": "r-1", "method": "POST", "url": url, "body": body, **changes}
    return parse_line(json.dumps({key: value for key, value in document.items() if value is not ...}).encode(), 7)


def chat(**wishes: Any) -> Request:
    return line({"model": "m", "messages": HELLO, **wishes})


def refusal(body: Any, url: str = CHAT, **changes: Any) -> str:
    with pytest.raises(LineError) as caught:
        line(body, url, **changes)
    return str(caught.value)


class TestChat:
    def test_example_of_the_guide_is_taken(self) -> None:
        request = chat(max_completion_tokens=100)

        assert (request.id, request.line, request.kind, request.model) == ("r-1", 7, Kind.CHAT, "m")
        assert request.messages == HELLO
        assert request_body(request, JOB)["options"]["num_predict"] == 100

    @pytest.mark.parametrize(
        ("parameter", "value", "option", "expected"),
        [
            ("temperature", 0, "temperature", 0),
            ("top_p", 0.5, "top_p", 0.5),
            ("presence_penalty", -1, "presence_penalty", -1),
            ("frequency_penalty", 1.5, "frequency_penalty", 1.5),
            ("seed", 42, "seed", 42),
            ("stop", "END", "stop", ["END"]),
            ("stop", ["a", "b"], "stop", ["a", "b"]),
            ("max_tokens", 5, "num_predict", 5),
            ("max_completion_tokens", 6, "num_predict", 6),
            ("top_k", 3, "top_k", 3),
            ("min_p", 0.1, "min_p", 0.1),
            ("repetition_penalty", 1.1, "repeat_penalty", 1.1),
        ],
    )
    def test_parameter_becomes_an_option_of_ollama(
        self, parameter: str, value: Any, option: str, expected: Any
    ) -> None:
        assert chat(**{parameter: value}).options == {option: expected}

    @pytest.mark.parametrize(
        ("effort", "think"),
        [("none", False), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "max"), (None, None)],
    )
    def test_effort_becomes_think(self, effort: str | None, think: object) -> None:
        assert chat(reasoning_effort=effort).think == think

    @pytest.mark.parametrize(
        ("wanted", "sent"),
        [
            ({"type": "text"}, ""),
            (None, None),
            ({"type": "json_object"}, "json"),
            (
                {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}},
                {"type": "object"},
            ),
            ({"type": "json_schema", "name": "n", "schema": {"type": "object"}}, {"type": "object"}),
            ({"type": "json_schema", "json_schema": {"type": "object"}}, {"type": "object"}),
        ],
    )
    def test_response_format_becomes_format(self, wanted: dict[str, Any] | None, sent: object) -> None:
        assert chat(response_format=wanted).format == sent

    def test_tools_are_sent_unless_none_may_be_called(self) -> None:
        assert chat(tools=[TOOL], tool_choice="auto").tools == [TOOL]
        assert chat(tools=[TOOL]).tools == [TOOL]
        assert chat(tools=[TOOL], tool_choice="none").tools is None
        assert chat(tools=[]).tools is None
        strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}
        assert chat(tools=[strict]).tools == [strict]

    def test_several_answers_and_probabilities(self) -> None:
        request = chat(n=3, logprobs=True, top_logprobs=2)

        assert (request.count, request.logprobs) == (3, 2)
        assert (chat(n=None).count, chat(logprobs=False).logprobs, chat(logprobs=True).logprobs) == (None, None, 0)

    def test_what_changes_no_answer_is_passed_over(self) -> None:
        labels = {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "flex", "prompt_cache_key": "k"}
        neutral = {
            "stream": False,
            "modalities": ["text"],
            "parallel_tool_calls": True,
            "logit_bias": {},
            "audio": None,
        }

        assert chat(**labels, **neutral) == chat()

    def test_parts_of_a_message_are_joined_and_pictures_put_beside_them(self) -> None:
        picture = "R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
        parts = [
            {"type": "text", "text": "What is"},
            {"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{picture}", "detail": "auto"}},
            {"type": "text", "text": "this?"},
        ]

        request = line({"messages": [{"role": "user", "content": parts}]})

        assert request.messages == [{"role": "user", "content": "What is\nthis?", "images": [picture]}]
        assert request.prompt == "What is\nthis?"

    def test_conversation_with_a_call_becomes_ollamas(self) -> None:
        messages = [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": "The weather?"},
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL], "reasoning": "Hm."},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain."}]},
        ]

        request = line({"messages": messages})

        assert request.messages == [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "The weather?"},
            {
                "role": "assistant",
                "content": "",
                "thinking": "Hm.",
                "tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Riga"}}}],
            },
            {"role": "tool", "content": "Rain.", "tool_call_id": "call_1", "tool_name": "weather"},
        ]

    def test_model_may_be_the_profiles(self) -> None:
        assert line({"messages": HELLO}).model is None

    def test_other_keys_of_the_line_are_echoed(self) -> None:
        assert line({"messages": HELLO}, patient=7).extra == {"patient": 7}

    def test_azures_older_url_has_no_version(self) -> None:
        assert line({"messages": HELLO}, "/chat/completions").kind is Kind.CHAT


class TestTexts:
    def test_completion_goes_to_the_model_without_its_template(self) -> None:
        request = line({"prompt": ["Once"], "max_tokens": 4, "logprobs": 0, "echo": False, "best_of": 1}, COMPLETIONS)

        assert (request.kind, request.prompt, request.raw, request.logprobs) == (Kind.COMPLETE, "Once", True, 0)
        assert request.options == {"num_predict": 4}

    def test_gap_is_filled_by_the_template_which_alone_knows_how(self) -> None:
        request = line({"prompt": "def f(", "suffix": "return x"}, COMPLETIONS)

        assert (request.raw, request.suffix) == (False, "return x")

    @pytest.mark.parametrize("given", ["one", ["one", "two"]])
    def test_texts_are_embedded(self, given: Any) -> None:
        request = line({"input": given, "dimensions": 8, "encoding_format": "float"}, EMBEDDINGS)

        assert (request.kind, request.dimensions) == (Kind.EMBED, 8)
        assert request.inputs == (("one",) if given == "one" else ("one", "two"))


def message(**changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hello", **changes}]}


def call(**changes: Any) -> dict[str, Any]:
    return {"messages": [*HELLO, {"role": "assistant", "tool_calls": [{**CALL, **changes}]}]}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("stream", True, wording("a-batch-is-never-streamed-take")),
        ("stream_options", {"include_usage": True}, wording("a-batch-is-never-streamed-take")),
        ("stream", 0, wording("a-batch-is-never-streamed-take")),
        ("audio", {"voice": "alloy"}, wording("ollama-speaks-no-audio-take-it")),
        ("modalities", ["text", "audio"], wording("ollama-writes-text-alone-take-it")),
        ("moderation", {"model": "m"}, wording("nothing-is-moderated-here-take-it")),
        ("logit_bias", {"1": 5}, wording("ollama-has-no-bias-for-tokens")),
        ("verbosity", "low", wording("ollama-does-not-know-it-say")),
        ("web_search_options", {}, wording("nothing-is-searched-here-take-it")),
        ("options", {"num_ctx": 4096}, wording("that-is-ollama-s-openai-s")),
        ("num_ctx", 4096, wording("set-it-in-the-profile-or")),
        ("keep_alive", "5m", wording("how-long-a-model-stays-loaded")),
        ("guided_regex", "a+", wording("ollama-holds-an-answer-to-a")),
        ("guided_grammar", "root ::= x", wording("ollama-holds-an-answer-to-a")),
        ("structural_tag", {"type": "x"}, wording("no-parameter-of-this-endpoint-that")),
        ("use_beam_search", True, wording("ollama-has-no-beam-search")),
        ("ignore_eos", True, wording("ollama-stops-where-the-model-ends")),
        ("min_tokens", 5, wording("ollama-has-no-least-length")),
        ("min_tokens", False, wording("ollama-has-no-least-length")),
        ("skip_special_tokens", False, wording("no-parameter-of-this-endpoint-that")),
        ("length_penalty", 1.5, wording("no-parameter-of-this-endpoint-that")),
        ("safe_prompt", True, wording("nothing-is-added-to-a-prompt")),
        (" messages", HELLO, wording("it-has-a-space-in-its", "messages")),
        ("max_output_tokens", 5, wording("that-is-of-v1-responses-write")),
        ("input", "x", wording("that-is-of-v1-responses-and")),
        ("prompt", "x", wording("that-is-of-v1-completions-write")),
        ("speed\n", 1, wording("no-parameter-of-this-endpoint-that")),
    ],
)
def test_parameter_that_cannot_be_honoured_is_refused_by_its_name(key: str, value: Any, sentence: str) -> None:
    name = key.replace("\n", "\\n")

    assert refusal({"messages": HELLO, key: value}) == wording("body-is-not-taken", name, sentence)


@pytest.mark.parametrize(
    ("url", "body", "sentence"),
    [
        (COMPLETIONS, {"prompt": "x", "echo": True}, wording("body-echo-is-not-taken-the")),
        (COMPLETIONS, {"prompt": "x", "best_of": 2}, wording("body-best-of-is-not-taken")),
        (COMPLETIONS, {"prompt": "x", "messages": []}, wording("body-messages-is-not-taken-that")),
        (COMPLETIONS, {"prompt": [1, 2]}, wording("body-prompt-must-be-one-text")),
        (COMPLETIONS, {"prompt": ["a", "b"]}, wording("body-prompt-must-be-one-text")),
        (COMPLETIONS, {}, wording("body-prompt-must-be-one-text-2")),
        (COMPLETIONS, {"prompt": " "}, wording("body-prompt-is-empty")),
        (COMPLETIONS, {"prompt": "x", "logprobs": 21}, wording("body-logprobs-must-be-from-0")),
        (COMPLETIONS, {"prompt": "x", "logprobs": True}, wording("body-logprobs-must-be-a-whole")),
        (EMBEDDINGS, {"input": [1, 2]}, wording("body-input-must-be-a-text")),
        (EMBEDDINGS, {"input": ["x", ""]}, wording("body-input-has-an-empty-text")),
        (EMBEDDINGS, {"input": []}, wording("body-input-must-be-a-text-2")),
        (EMBEDDINGS, {"input": "x", "encoding_format": "base64"}, wording("body-encoding-format-is-not-taken")),
        (EMBEDDINGS, {"input": "x", "dimensions": 0}, wording("dimensions-must-be-a-whole-number")),
        (CHAT, {}, wording("body-messages-must-be-a-list")),
        (CHAT, message(role="narrator"), wording("body-messages-0-needs-a-role")),
        (CHAT, message(role=["user"]), wording("body-messages-0-needs-a-role-2")),
        (
            CHAT,
            {"messages": [{**HELLO[0], "name": "Ann"}, {**HELLO[0], "name": "Bob"}]},
            wording("body-messages-name-several-speakers"),
        ),
        (CHAT, message(wish=1), wording("body-messages-0-wish-is-not")),
        (CHAT, message(content=None), wording("body-messages-0-content-must-be")),
        (CHAT, message(content=[]), wording("body-messages-0-content-is-empty")),
        (CHAT, message(content={"text": "x"}), wording("body-messages-0-content-must-be")),
        (CHAT, message(text="x"), wording("both-body-messages-0-content-and")),
        (CHAT, message(content=[{"type": "text", "text": 1}]), wording("body-messages-0-content-0-text")),
        (CHAT, message(content=[{"type": "input_audio"}]), wording("body-messages-0-content-0-is")),
        (CHAT, message(content=[{"text": "x", "url": "y"}]), wording("body-messages-0-content-0-is-2")),
        (CHAT, message(content=[5]), wording("body-messages-0-content-0-is-2")),
        (
            CHAT,
            message(content=[{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]),
            wording("body-messages-0-content-0-image"),
        ),
        (CHAT, message(content=[{"type": "image_url", "image_url": {}}]), wording("body-messages-0-content-0-image-2")),
        (
            CHAT,
            message(role="assistant", function_call={"arguments": "{}"}),
            wording("body-messages-0-function-call-is"),
        ),
        (CHAT, message(role="assistant", audio={"id": "a"}), wording("body-messages-0-audio-is-not")),
        (CHAT, message(role="assistant", refusal="No."), wording("body-messages-0-refusal-is-not")),
        (CHAT, message(role="assistant", tool_calls="f"), wording("body-messages-0-tool-calls-must")),
        (CHAT, message(role="assistant", tool_calls=[1]), wording("body-messages-0-tool-calls-0")),
        (CHAT, call(id=7), wording("body-messages-1-tool-calls-0")),
        (CHAT, call(function={"name": "f", "arguments": 5}), wording("body-messages-1-tool-calls-0-2")),
        (CHAT, call(function={"name": "f", "arguments": "[1]"}), wording("body-messages-1-tool-calls-0-2")),
        (CHAT, message(role="tool", tool_call_id=5), wording("body-messages-0-tool-call-id")),
        (CHAT, message(role="tool"), wording("body-messages-0-tool-call-id-2")),
        (CHAT, message(role="tool", tool_call_id="x"), wording("body-messages-0-tool-call-id-2")),
        (CHAT, {"messages": HELLO, "tool_choice": "required"}, wording("body-tool-choice-must-be-auto")),
        (CHAT, {"messages": HELLO, "tool_choice": {"type": "function"}}, wording("body-tool-choice-must-be-auto-2")),
        (CHAT, {"messages": HELLO, "tools": [TOOL], "parallel_tool_calls": False}, wording("body-parallel-tool-calls")),
        (CHAT, {"messages": HELLO, "tools": {}}, wording("body-tools-must-be-a-list")),
        (CHAT, {"messages": HELLO, "tools": [{"type": "custom"}]}, wording("body-tools-0-must-be-type")),
        (
            CHAT,
            {
                "messages": HELLO,
                "tools": [{**TOOL, "function": {"name": "f", "strict": True, "parameters": {"type": "dict"}}}],
            },
            wording("tools-0-function-parameters-is-not"),
        ),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "grammar"}},
            wording("body-response-format-must-have-a"),
        ),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_schema"}},
            wording("body-response-format-json-schema-schema"),
        ),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}},
            wording("format-is-not-a-json-schema"),
        ),
        (CHAT, {"messages": HELLO, "reasoning_effort": "minimal"}, wording("body-reasoning-effort-must-be-one")),
        (CHAT, {"messages": HELLO, "temperature": "hot"}, wording("body-temperature-must-be-a-number")),
        (CHAT, {"messages": HELLO, "seed": 1.5}, wording("body-seed-must-be-a-whole")),
        (CHAT, {"messages": HELLO, "stop": [1]}, wording("body-stop-must-be-a-string")),
        (CHAT, {"messages": HELLO, "max_tokens": 0}, wording("body-max-tokens-must-be-from")),
        (
            CHAT,
            {"messages": HELLO, "max_tokens": 1, "max_completion_tokens": 2},
            wording("body-max-tokens-and-body-max"),
        ),
        *(
            (
                CHAT,
                {
                    "messages": [
                        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": text}}]}
                    ]
                },
                wording("body-messages-0-tool-calls-0-2") + why,
            )
            for text, why in (
                ('{"a": ' + "[" * 500 + "]" * 500 + "}", wording("its-json-is-nested-more-than")),
                ('{"a": 1e400}', wording("its-json-holds-nan-infinity-or")),
            )
        ),
        (CHAT, {"messages": HELLO, "n": 0}, wording("n-must-be-a-whole-number")),
        (CHAT, {"messages": HELLO, "n": "2"}, wording("body-n-must-be-a-whole")),
        (CHAT, {"messages": HELLO, "top_logprobs": 2}, wording("top-logprobs-without-logprobs-true")),
        (CHAT, [], wording("body-must-be-an-object-what")),
        ("/v1/responses", {"input": "x"}, wording("url-v1-responses-is-not-taken")),
        ("/v1/score", {}, wording("url-v1-score-is-not-taken")),
        ("/v1/rerank", {}, wording("url-v1-rerank-is-not-taken")),
        ("/v2/rerank", {}, wording("url-v2-rerank-is-not-taken")),
        ("/v1/moderations", {}, wording("url-v1-moderations-is-not-taken")),
        ("/v1/images/generations", {}, wording("url-v1-images-generations-is-not")),
        ("/v1/images/edits", {}, wording("url-v1-images-edits-is-not")),
        ("/v1/videos", {}, wording("url-v1-videos-is-not-taken")),
        ("/v1/messages", {}, wording("url-v1-messages-is-not-taken")),
        ("/api/chat", {}, wording("url-api-chat-is-not-taken")),
        ("https://api.openai.com/v1/chat/completions", {}, wording("url-must-be-a-path-such")),
    ],
)
def test_body_that_cannot_be_asked_is_refused(url: str, body: Any, sentence: str) -> None:
    assert refusal(body, url).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"custom_id": 7}, wording("custom-id-must-be-a-string")),
        ({"custom_id": ""}, wording("custom-id-must-be-a-string")),
        ({"custom_id": "x" * 600}, wording("custom-id-is-longer-than-400")),
        ({"method": "GET"}, wording("method-must-be-post")),
        ({"url": 5}, wording("url-must-be-one-of-v1")),
        ({"body": {"model": "m"}, "url": ...}, wording("url-must-be-one-of-v1")),
        ({"method": ..., " method": "POST"}, wording("the-key-has-a-space", " method", "method")),
        ({"prompt": "x"}, wording("prompt-stands-beside-the-body-it")),
    ],
)
def test_line_around_the_body_is_checked(changes: dict[str, Any], sentence: str) -> None:
    assert refusal(changes.pop("body", {"messages": HELLO}), **changes).startswith(sentence)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"recordId": "a", "modelInput": {}}, wording("a-line-of-amazon-bedrock-recordid")),
        ({"request": {"contents": []}}, wording("a-line-of-google-s-gemini")),
        ({"requests": []}, wording("all-requests-in-one-object-as")),
        ({"custom_id": "a", "response": {}}, wording("a-line-of-a-batch-s")),
        ({"custom_id": "a"}, wording("a-custom-id-but-no-body")),
    ],
)
def test_line_of_another_service_is_told_from_a_mistake(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(json.dumps(document).encode(), 1)

    assert str(caught.value).startswith(sentence)
    assert '{"custom_id": …, "method": "POST"' in str(caught.value) or {"requests", "response"} & document.keys()


def test_keys_of_a_row_that_only_look_alike_make_no_batch_line() -> None:
    row = {"prompt": "Hello", "custom_id": "a", "url": "https://example.org/a"}

    assert not is_asked(row)
    assert parse_line(json.dumps(row).encode(), 1).extra == {"custom_id": "a", "url": "https://example.org/a"}


def test_endpoint_is_told_as_far_as_a_line_says_it() -> None:
    assert endpoint_of({"prompt": "x"}) == ""
    assert endpoint_of({"custom_id": "a", "body": {}, "url": "/embeddings"}) == EMBEDDINGS
    assert endpoint_of({"custom_id": "a", "body": {}}) == CHAT
    assert endpoint_of({"custom_id": "a", "body": {}, "url": "\n"}) == CHAT


def test_id_that_comes_again_is_refused_as_long_as_ids_are_remembered() -> None:
    ids = CustomIds(most=2)
    ids.take("a")

    with pytest.raises(LineError) as caught:
        ids.take("a")
    ids.take("b")
    ids.take("a")  # no more are looked at

    assert str(caught.value).startswith(wording("its-custom-id-stood-in-an"))
