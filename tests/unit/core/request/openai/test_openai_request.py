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
        ("stream", True, "a batch is never streamed: take it out"),
        ("stream_options", {"include_usage": True}, "a batch is never streamed: take it out"),
        ("stream", 0, "a batch is never streamed: take it out"),
        ("audio", {"voice": "alloy"}, "Ollama speaks no audio: take it out"),
        ("modalities", ["text", "audio"], 'Ollama writes text alone: take it out, or write ["text"]'),
        ("moderation", {"model": "m"}, "nothing is moderated here: take it out"),
        ("parallel_tool_calls", False, "Ollama cannot be held to one call at a time: take it out"),
        ("logit_bias", {"1": 5}, "Ollama has no bias for tokens: take it out"),
        (
            "verbosity",
            "low",
            "Ollama does not know it: say in the prompt how long the answer should be",
        ),
        ("web_search_options", {}, "nothing is searched here: take it out"),
        ("functions", [{}], "write `tools` instead"),
        ("function_call", "auto", "write `tool_choice` instead"),
        (
            "options",
            {"num_ctx": 4096},
            "that is Ollama's: OpenAI's parameters stand in the body itself, and `num_ctx` in the profile",
        ),
        ("num_ctx", 4096, "set it in the profile, or in [requests] of the configuration"),
        ("keep_alive", "5m", "how long a model stays loaded is not a line's to say: take it out"),
        (
            "chat_template_kwargs",
            {"enable_thinking": False},
            'the template cannot be told: write `reasoning_effort`: "none" for no thinking',
        ),
        ("guided_json", {}, "write `response_format` with a json_schema instead"),
        ("structured_outputs", {}, "write `response_format` with a json_schema instead"),
        ("max_output_tokens", 5, "that is of /v1/responses: write `max_completion_tokens`"),
        ("input", "x", "that is of /v1/responses and /v1/embeddings: write `messages`, or another `url`"),
        ("prompt", "x", "that is of /v1/completions: write `messages`, or another `url`"),
        ("speed\n", 1, "no parameter of this endpoint that could be honoured here: take it out"),
    ],
)
def test_parameter_that_cannot_be_honoured_is_refused_by_its_name(key: str, value: Any, sentence: str) -> None:
    name = key.replace("\n", "\\n")

    assert refusal({"messages": HELLO, key: value}) == f"`body.{name}` is not taken: {sentence}"


@pytest.mark.parametrize(
    ("url", "body", "sentence"),
    [
        (
            COMPLETIONS,
            {"prompt": "x", "echo": True},
            "`body.echo` is not taken: the prompt is not repeated in the answer",
        ),
        (COMPLETIONS, {"prompt": "x", "best_of": 2}, "`body.best_of` is not taken: answers are not ranked: write `n`"),
        (COMPLETIONS, {"prompt": "x", "messages": []}, "`body.messages` is not taken: that is of /v1/chat/completions"),
        (COMPLETIONS, {"prompt": [1, 2]}, "`body.prompt` must be one text: neither tokens nor several"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, "`body.prompt` must be one text: neither tokens nor several"),
        (COMPLETIONS, {}, "`body.prompt` must be one text"),
        (COMPLETIONS, {"prompt": " "}, "`body.prompt` is empty"),
        (COMPLETIONS, {"prompt": "x", "logprobs": 21}, "`body.logprobs` must be from 0 to 20"),
        (COMPLETIONS, {"prompt": "x", "logprobs": True}, "`body.logprobs` must be a whole number"),
        (EMBEDDINGS, {"input": [1, 2]}, "`body.input` must be a text or a list of texts: tokens cannot be said"),
        (EMBEDDINGS, {"input": ["x", ""]}, "`body.input` has an empty text in it"),
        (EMBEDDINGS, {"input": []}, "`body.input` must be a text or a list of texts"),
        (
            EMBEDDINGS,
            {"input": "x", "encoding_format": "base64"},
            '`body.encoding_format` is not taken: vectors are written as numbers: take it out, or write "float"',
        ),
        (EMBEDDINGS, {"input": "x", "dimensions": 0}, "`dimensions` must be a whole number from 1 to"),
        (CHAT, {}, "`body.messages` must be a list of at least one message"),
        (CHAT, message(role="function"), "`body.messages[0]` needs a `role`, one of system, developer, user,"),
        (CHAT, message(role=["user"]), "`body.messages[0]` needs a `role`, one of"),
        (CHAT, message(name="Ann"), "`body.messages[0].name` is not taken: Ollama knows no names of speakers"),
        (CHAT, message(wish=1), "`body.messages[0].wish` is not taken: it cannot be said to Ollama: take it out"),
        (CHAT, message(content=None), "`body.messages[0].content` must be a string or a list of parts"),
        (CHAT, message(content=[]), "`body.messages[0].content` must be a string or a list of parts"),
        (CHAT, message(content=[{"type": "text", "text": 1}]), "`body.messages[0].content[0].text` must be a string"),
        (
            CHAT,
            message(content=[{"type": "input_audio"}]),
            '`body.messages[0].content[0]` is a part "input_audio", which cannot be said to Ollama: text and image_url',
        ),
        (CHAT, message(content=["x"]), "`body.messages[0].content[0]` is a part without a type"),
        (
            CHAT,
            message(content=[{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]),
            "`body.messages[0].content[0].image_url` is no data: URL: nothing is fetched from elsewhere, write data:",
        ),
        (
            CHAT,
            message(content=[{"type": "image_url", "image_url": {}}]),
            "`body.messages[0].content[0].image_url.url` must be a string",
        ),
        (CHAT, message(role="assistant", function_call={}), "`body.messages[0].function_call` is not taken: write"),
        (CHAT, message(role="assistant", audio={"id": "a"}), "`body.messages[0].audio` is not taken: Ollama hears no"),
        (CHAT, message(role="assistant", refusal="No."), "`body.messages[0].refusal` is not taken: write it as the"),
        (CHAT, message(role="assistant", tool_calls={}), "`body.messages[0].tool_calls` must be a list"),
        (CHAT, message(role="assistant", tool_calls=[1]), '`body.messages[0].tool_calls[0]` must be {"id": …, "type"'),
        (CHAT, call(id=None), "`body.messages[1].tool_calls[0].id` must be a string"),
        (
            CHAT,
            call(function={"name": "f", "arguments": {}}),
            "`body.messages[1].tool_calls[0].function.arguments` must be a string that holds a JSON object",
        ),
        (
            CHAT,
            call(function={"name": "f", "arguments": "[1]"}),
            "`body.messages[1].tool_calls[0].function.arguments` must be a string that holds a JSON object",
        ),
        (CHAT, message(role="tool"), "`body.messages[0].tool_call_id` must be a string"),
        (
            CHAT,
            message(role="tool", tool_call_id="x"),
            "`body.messages[0].tool_call_id` is that of no call in the messages before it",
        ),
        (CHAT, {"messages": HELLO, "tool_choice": "required"}, '`body.tool_choice` must be "auto" or "none": Ollama'),
        (CHAT, {"messages": HELLO, "tool_choice": {"type": "function"}}, '`body.tool_choice` must be "auto" or "none"'),
        (CHAT, {"messages": HELLO, "tools": {}}, "`body.tools` must be a list"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "custom"}]}, '`body.tools[0]` must be {"type": "function"'),
        (
            CHAT,
            {
                "messages": HELLO,
                "tools": [{**TOOL, "function": {"name": "f", "strict": True, "parameters": {"type": "dict"}}}],
            },
            '`tools[0].function.parameters` is not a JSON schema that can be held to: at type: "dict" is not valid',
        ),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "grammar"}},
            "`body.response_format` must have a `type`",
        ),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_schema"}},
            "`body.response_format.json_schema.schema` must be a JSON schema (an object)",
        ),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}},
            "`format` is not a JSON schema that can be held to: at type: 5 is not valid under any of the schemas",
        ),
        (
            CHAT,
            {"messages": HELLO, "reasoning_effort": "minimal"},
            "`body.reasoning_effort` must be one of none, low, medium, high, max: Ollama has no other levels",
        ),
        (CHAT, {"messages": HELLO, "temperature": "hot"}, "`body.temperature` must be a number"),
        (CHAT, {"messages": HELLO, "seed": 1.5}, "`body.seed` must be a whole number"),
        (CHAT, {"messages": HELLO, "stop": [1]}, "`body.stop` must be a string or a list of strings"),
        (CHAT, {"messages": HELLO, "max_tokens": 0}, "`body.max_tokens` must be from 1 to"),
        (
            CHAT,
            {"messages": HELLO, "max_tokens": 1, "max_completion_tokens": 2},
            "`body.max_tokens` and `body.max_completion_tokens` differ: a line has one of them",
        ),
        *(
            (
                CHAT,
                {
                    "messages": [
                        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": text}}]}
                    ]
                },
                "`body.messages[0].tool_calls[0].function.arguments` must be a string that holds a JSON object: " + why,
            )
            for text, why in (
                ('{"a": ' + "[" * 500 + "]" * 500 + "}", "its JSON is nested more than"),
                ('{"a": 1e400}', "its JSON holds NaN, Infinity or a number out of range"),
            )
        ),
        (CHAT, {"messages": HELLO, "n": 0}, "`n` must be a whole number from 1 to 100"),
        (CHAT, {"messages": HELLO, "n": "2"}, "`body.n` must be a whole number"),
        (CHAT, {"messages": HELLO, "top_logprobs": 2}, "`top_logprobs` without `logprobs`: true"),
        (CHAT, [], "`body` must be an object: what the endpoint takes, with `model` in it"),
        ("/v1/responses", {"input": "x"}, "`url` /v1/responses is not taken: write the line for /v1/chat/completions"),
        ("/v1/score", {}, "`url` /v1/score is not taken: Ollama does not score texts (vLLM does)"),
        ("/v1/rerank", {}, "`url` /v1/rerank is not taken: Ollama does not rank texts (vLLM does)"),
        ("/v2/rerank", {}, "`url` /v2/rerank is not taken: Ollama does not rank texts (vLLM does)"),
        ("/v1/moderations", {}, "`url` /v1/moderations is not taken: nothing is moderated here"),
        ("/v1/images/generations", {}, "`url` /v1/images/generations is not taken: Ollama draws no pictures"),
        ("/v1/images/edits", {}, "`url` /v1/images/edits is not taken: Ollama draws no pictures"),
        ("/v1/videos", {}, "`url` /v1/videos is not taken: Ollama makes no videos"),
        ("/v1/messages", {}, "`url` /v1/messages is not taken: that is Anthropic's"),
        ("/api/chat", {}, "`url` /api/chat is not taken: only /v1/chat/completions, /v1/completions, /v1/embeddings"),
        ("https://api.openai.com/v1/chat/completions", {}, "`url` must be a path such as /v1/chat/completions, not an"),
    ],
)
def test_body_that_cannot_be_asked_is_refused(url: str, body: Any, sentence: str) -> None:
    assert refusal(body, url).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"custom_id": 7}, "`custom_id` must be a string, by which you find the answer"),
        ({"custom_id": ""}, "`custom_id` must be a string, by which you find the answer"),
        ({"custom_id": "x" * 600}, "`custom_id` is longer than 400 characters"),
        ({"method": "GET"}, '`method` must be "POST"'),
        ({"method": ...}, '`method` must be "POST"'),
        ({"url": ...}, "`url` must be one of /v1/chat/completions, /v1/completions, /v1/embeddings"),
        ({"prompt": "x"}, "`prompt` stands beside the `body`: it belongs into it, or nowhere"),
    ],
)
def test_line_around_the_body_is_checked(changes: dict[str, Any], sentence: str) -> None:
    assert refusal({"messages": HELLO}, **changes) == sentence


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"custom_id": "a", "params": {}}, "a line of Anthropic's Message Batches (custom_id, params) is not taken: "),
        ({"recordId": "a", "modelInput": {}}, "a line of Amazon Bedrock (recordId, modelInput) is not taken: its "),
        (
            {"request": {"contents": []}},
            "a line of Google's Gemini (request, with contents in it) is not taken: it has",
        ),
        ({"requests": []}, "all requests in one object, as Anthropic's API takes them: write each as a line of OpenAI"),
        ({"custom_id": "a", "response": {}}, "a line of a batch's output, not of its input: drop the file that was"),
        ({"custom_id": "a"}, "a custom_id, but no `body`: write a line of OpenAI Batch"),
    ],
)
def test_line_of_another_service_is_told_from_a_mistake(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(json.dumps(document).encode(), 1)

    assert str(caught.value).startswith(sentence)
    assert '{"custom_id": …, "method": "POST"' in str(caught.value) or "output" in sentence


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

    assert str(caught.value).startswith("its `custom_id` stood in an earlier line: give each line its own")
