"""One line of a prompt file: every shape that is taken, every refusal with its sentence."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar

import pytest

from obcd.core.request.json_objects import MAX_DEPTH
from obcd.core.request.lines import MAX_ID_LENGTH, check_format, check_options, check_think, parse_line
from obcd.core.request.records import Kind, Request
from obcd.core.request.rows import Reading
from obcd.errors import LineError
from tests.golden.wording import wording

#: Stands in every prompt here; no sentence may repeat it.
SECRET = "Jane Doe, MRN 123456"
#: What passes for a picture.
PIXEL = base64.b64encode(bytes(range(60))).decode()


def parse(document: object, line: int = 7) -> Request:
    return parse_line(json.dumps(document).encode(), line)


def refusal(raw: bytes | dict[str, Any] | list[Any]) -> str:
    """Return the sentence with which a line is refused."""
    encoded = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    with pytest.raises(LineError) as caught:
        parse_line(encoded, 1)
    return str(caught.value)


def user(content: object = "Hello", **more: object) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


class TestShapes:
    def test_seed_line_is_one_message_of_the_user(self) -> None:
        request = parse({"role": "user", "content": "Why is the sky blue?"})

        assert request == Request(
            line=7,
            id=7,
            prompt="Why is the sky blue?",
            messages=[{"role": "user", "content": "Why is the sky blue?"}],
        )

    def test_prompt_becomes_one_message_of_the_user(self) -> None:
        request = parse({"id": "a-1", "prompt": "Hello"})

        assert request.messages == [{"role": "user", "content": "Hello"}]
        assert (request.id, request.prompt) == ("a-1", "Hello")

    def test_messages_are_taken_as_they_are_and_the_last_of_the_user_is_the_prompt(self) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            user("One?"),
            {"role": "assistant", "content": "1"},
            user("Two?"),
            {"role": "assistant", "content": "It is"},
        ]

        request = parse({"messages": messages})

        assert request.messages == messages
        assert request.prompt == "Two?"

    def test_messages_without_a_user_have_the_last_content_as_prompt(self) -> None:
        request = parse({"messages": [{"role": "system", "content": "Say hello."}]})

        assert request.prompt == "Say hello."

    def test_every_wish_of_a_line_is_understood(self) -> None:
        schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
        tool = {"type": "function", "function": {"name": "look_up"}}

        request = parse(
            {
                "id": 3,
                "prompt": "Hello",
                "system": "",
                "model": "qwen2.5:7b",
                "options": {"temperature": 0, "stop": ["\n"], "use_mmap": True},
                "format": schema,
                "think": "low",
                "images": ["aGVsbG8="],
                "tools": [tool],
            }
        )

        assert (request.id, request.system, request.model, request.think) == (3, "", "qwen2.5:7b", "low")
        assert request.options == {"temperature": 0, "stop": ["\n"], "use_mmap": True}
        assert (request.format, request.tools) == (schema, [tool])
        assert request.messages == [{"role": "user", "content": "Hello", "images": ["aGVsbG8="]}]

    @pytest.mark.parametrize(
        "key", ["id", "messages", "system", "model", "options", "format", "think", "images", "tools", "n", "logprobs"]
    )
    def test_null_is_as_good_as_a_missing_key(self, key: str) -> None:
        assert parse({"prompt": "Hello", key: None}) == parse({"prompt": "Hello"})

    def test_null_images_beside_messages_are_as_good_as_none(self) -> None:
        assert parse({"messages": [user()], "images": None}) == parse({"messages": [user()]})

    def test_unknown_keys_are_echoed_and_never_obeyed(self) -> None:
        strangers = {"endpoint": "10.0.0.1:1", "url": "http://x/", "headers": {"a": "b"}, "output": "/etc/passwd"}

        for shape in ({"prompt": "Hello"}, user("Hello")):
            request = parse({**shape, **strangers, "stream": True})

            assert request.extra == {**strangers, "stream": True}
            assert request.messages == [{"role": "user", "content": "Hello"}]

    def test_seed_line_does_not_choose_a_model(self) -> None:
        request = parse({**user(), "model": "other"})

        assert request.model is None
        assert request.extra == {"model": "other"}

    def test_trailing_carriage_return_is_white_space(self) -> None:
        assert parse_line(b'{"prompt": "Hello"}\r', 1).prompt == "Hello"

    @pytest.mark.parametrize(
        "text",
        [
            "\x1b[31mred\x1b[0m",
            "two\nlines\r\n",
            "'; DROP TABLE jobs; --",
            "%s %d",
            "{} {0} ${x}",
            "\u2028\u0085",
            "\x00",
        ],
    )
    def test_prompt_passes_byte_true(self, text: str) -> None:
        assert parse({"prompt": text + "."}).prompt == text + "."

    def test_lone_surrogate_is_kept_as_it_was_written(self) -> None:
        assert parse_line(rb'{"prompt": "a\ud800b"}', 1).prompt == "a\ud800b"

    def test_assistant_message_with_tool_calls_needs_no_content(self) -> None:
        calls = [{"function": {"name": "look_up", "arguments": {}}}]

        request = parse({"messages": [user("Hi"), {"role": "assistant", "tool_calls": calls}, user("Go on")]})

        assert request.messages[1] == {"role": "assistant", "tool_calls": calls}

    def test_user_message_of_images_alone_needs_no_text(self) -> None:
        assert parse({"messages": [user("", images=["aGVsbG8="])]}).prompt == ""

    @pytest.mark.parametrize("value", ["text", 0, 1.5, True, ["a", 1], {"visit": 1}])
    def test_id_of_any_kind_is_echoed(self, value: object) -> None:
        assert parse({"id": value, "prompt": "Hello"}).id == value

    def test_brackets_inside_a_prompt_do_not_count_as_depth(self) -> None:
        assert parse({"prompt": "[" * 500 + "{" * 500}).prompt.startswith("[[")

    def test_deepest_nesting_that_is_allowed_is_taken(self) -> None:
        nested: Any = 1
        for _ in range(MAX_DEPTH - 1):
            nested = [nested]

        assert parse({"prompt": "Hello", "x": nested}).extra == {"x": nested}


#: {what: (raw line, sentence)}
NOT_AN_OBJECT = {
    "nothing": (b"", "not JSON: Expecting value at column 1"),
    "a torn line": (b'{"prompt": "Hel', "not JSON: Unterminated string starting at column 12"),
    "a control character": (b'{"prompt": "a\tb"}', "not JSON: Invalid control character at column 14"),
    "a comment before the object": (b'// mine\n{"prompt": "a"}', wording("not-json-a-comment-begins-at-1")),
    "a comment with #": (b'# mine {"prompt": "a"}', wording("not-json-a-comment-begins-at-1")),
    "a heading": (b"# Why is the sky blue?", "not JSON: Expecting value at column 1 (obcd prepare"),
    "two objects": (b'{"prompt": "a"} {"prompt": "b"}', "not JSON: a second value begins at column 17"),
    "lone CR between objects": (b'{"prompt": "a"}\r{"prompt": "b"}', "not JSON: a second value begins at column 17"),
    "Latin-1": (
        '{"prompt": "Zürich"}'.encode("latin-1"),
        "not UTF-8 at byte 14, and looks like Windows-1252 (Latin-1)",
    ),
    "UTF-16": ('{"prompt": "a"}'.encode("utf-16"), "not UTF-8 at byte 1: save the file as UTF-8"),
    "UTF-16 without its mark": ('{"p": 1}'.encode("utf-16-le"), "not JSON: Expecting property name"),
    "a PNG": (b"\x89PNG\r\x1a", "not UTF-8 at byte 1: save the file as UTF-8"),
    "NUL bytes": (b"\x00" * 20, "not JSON: Expecting value at column 1"),
    "a byte order mark": (b'\xef\xbb\xbf{"prompt": "a"}', "a byte order mark in the middle of the file: remove it"),
    "a string": (b'"Hello"', 'a string where an object is needed: {"prompt": "…"}'),
    "a number": (b"5", 'a number where an object is needed: {"prompt": "…"}'),
    "null": (b"null", 'null where an object is needed: {"prompt": "…"}'),
    "true": (b"true", 'true or false where an object is needed: {"prompt": "…"}'),
    "a list": (b"[" + b"{}," * 1000 + b"{}]", 'a list where an object is needed: {"prompt": "…"}'),
    "brackets without end": (b"[" * 100_000, "nested deeper than 100 levels"),
    "one level too many": (b'{"prompt": "a", "x": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 100 levels"),
    "5,000 digits": (b'{"prompt": "a", "x": ' + b"9" * 5000 + b"}", "a number in it has too many digits"),
    "1e999": (b'{"prompt": "a", "x": 1e999}', "a number in it is too large"),
    "-1e999": (b'{"prompt": "a", "x": -1e999}', "a number in it is too large"),
    "NaN": (b'{"prompt": "a", "x": NaN}', "NaN is not a JSON number"),
    "Infinity": (b'{"prompt": "a", "x": -Infinity}', "-Infinity is not a JSON number"),
    "id twice": (b'{"id": 1, "prompt": "a", "id": 2}', "the key `id` occurs twice in it"),
    "an inner key twice": (b'{"prompt": "a", "options": {"seed": 1, "seed": 2}}', "the key `seed` occurs twice in it"),
}


@pytest.mark.parametrize(("raw", "sentence"), NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
def test_what_is_no_strict_json_object_is_refused(raw: bytes, sentence: str) -> None:
    assert refusal(raw).startswith(sentence)


class TestLastAnswer:
    DROPS = Reading(drop_last_assistant=True)
    TURNS: ClassVar = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]

    def parsed(self, document: dict[str, Any]) -> Request:
        return parse_line(json.dumps(document).encode(), 1, self.DROPS)

    def test_r09_last_message_of_the_assistant_is_dropped_and_echoed(self) -> None:
        found = self.parsed({"messages": self.TURNS, "ward": "B2"})

        assert found.messages == self.TURNS[:3]
        assert (found.prompt, found.extra) == ("user", {"ward": "B2", "last_assistant": self.TURNS[3]})

    @pytest.mark.parametrize("document", [{"messages": TURNS[:3]}, {"prompt": "x"}, {"complete": "x"}, {"embed": "x"}])
    def test_anything_else_is_left_as_it_is(self, document: dict[str, Any]) -> None:
        assert self.parsed(document) == parse_line(json.dumps(document).encode(), 1)

    def test_conversation_of_nothing_else_is_refused(self) -> None:
        with pytest.raises(LineError, match=wording("assistants-message-is-the-only-one")):
            self.parsed({"messages": self.TURNS[1:2]})

    def test_r09_line_of_openai_drops_it_too(self) -> None:
        body = {"model": "m", "messages": self.TURNS}
        found = self.parsed({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})

        assert (len(found.messages), found.extra["last_assistant"]) == (3, self.TURNS[3])


class TestKinds:
    def test_text_to_embed_is_an_input_and_echoed(self) -> None:
        request = parse({"id": "a", "embed": "One text.", "dimensions": 8, "model": "bge-m3", "ward": 9})

        assert (request.kind, request.inputs, request.echo) == (Kind.EMBED, ("One text.",), "One text.")
        assert (request.id, request.dimensions, request.model, request.extra) == ("a", 8, "bge-m3", {"ward": 9})

    def test_texts_to_embed_are_echoed_as_a_list(self) -> None:
        assert parse({"embed": ["one", "two"]}).echo == ["one", "two"]

    def test_text_that_goes_on_keeps_its_end_and_its_rawness(self) -> None:
        request = parse({"complete": "def f(", "suffix": "return 1", "raw": True, "n": 2})

        assert (request.kind, request.prompt, request.suffix) == (Kind.COMPLETE, "def f(", "return 1")
        assert (request.raw, request.count) == (True, 2)

    def test_keys_of_other_kinds_are_echoed_beside_a_prompt(self) -> None:
        strangers = {"suffix": "a", "raw": 1, "dimensions": None, "complete": True}

        assert parse({"prompt": "Hello", **strangers}).extra == strangers

    @pytest.mark.parametrize(("wishes", "meant"), [({}, None), ({"n": None}, None), ({"n": 1}, 1), ({"n": 100}, 100)])
    def test_n_is_a_number_of_answers(self, wishes: dict[str, Any], meant: int | None) -> None:
        assert parse({"prompt": "Hello", **wishes}).count == meant

    @pytest.mark.parametrize(
        ("wishes", "meant"),
        [
            ({"logprobs": False}, None),
            ({"logprobs": None, "top_logprobs": None}, None),
            ({"logprobs": True}, 0),
            ({"logprobs": True, "top_logprobs": 20}, 20),
        ],
    )
    def test_logprobs_are_a_number_of_likeliest_tokens(self, wishes: dict[str, Any], meant: int | None) -> None:
        assert parse({"prompt": "Hello", **wishes}).logprobs == meant

    @pytest.mark.parametrize("image", [PIXEL, f"data:image/png;base64,{PIXEL}", f"{PIXEL[:40]}\r\n{PIXEL[40:]}\n"])
    def test_picture_is_sent_as_bare_base64(self, image: str) -> None:
        for request in (parse({"prompt": "a", "images": [image]}), parse({"messages": [user("a", images=[image])]})):
            assert request.messages[0]["images"] == [PIXEL]

    def test_picture_that_begins_as_every_jpeg_does_is_no_path(self) -> None:
        jpeg = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(60)).decode()

        assert jpeg.startswith("/9j/")
        assert parse({"prompt": "a", "images": [jpeg]}).messages[0]["images"] == [jpeg]

    def test_conversation_with_calls_and_their_results_is_taken_whole(self) -> None:
        call = {"function": {"name": "weather", "arguments": {"city": "Bonn"}}}
        messages = [
            user(),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "Rain.", "tool_name": "weather"},
        ]

        assert parse({"messages": messages}).messages == messages


#: {what: (document, sentence)}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to ask": ({"n": 1}, "no prompt in it: a line needs `prompt`, `messages`, or `role` and `content`"),
    "an empty object": ({}, "no prompt in it"),
    "an empty prompt": ({"prompt": ""}, "prompt is empty"),
    "a blank prompt": ({"prompt": " \n\t"}, "prompt is empty"),
    "a null prompt": ({"prompt": None}, "prompt must be a string, not null"),
    "a list as prompt": ({"prompt": [SECRET]}, "prompt must be a string, not a list"),
    "prompt and messages": ({"prompt": "a", "messages": [user()]}, "both `prompt` and `messages`: a line has one"),
    "empty messages": ({"messages": []}, "`messages` must be a list of at least one message"),
    "messages of a string": ({"messages": "a"}, "`messages` must be a list of at least one message"),
    "a message of a string": ({"messages": [SECRET]}, "`messages[0]` must be an object with `role` and"),
    "the second of two messages": ({"messages": [user(), 5]}, "`messages[1]` must be an object with `role` and"),
    "a message without role": ({"messages": [{"content": "a"}]}, "`messages[0].role` must be one of system"),
    "a role that is none": ({"role": "root", "content": "a"}, "`role` must be one of system, developer, user,"),
    "a role of a list": ({"role": [], "content": "a"}, "`role` must be one of"),
    "content without role": ({"content": "a"}, wording("no-prompt-in-it-but-content")),
    "role without content": ({"role": "user"}, "`content` is empty"),
    "blank content": (user("  "), "`content` is empty"),
    "a part without its text": (user([{"type": "text"}]), "`content[0].text` must be a string"),
    "null content of the user": (
        {"messages": [user(None)]},
        "`messages[0].content` must be a string or a list of parts",
    ),
    "a message's unknown key": (
        {"messages": [user(), user(wish=1)]},
        "`messages[1].wish` is not supported: Ollama has no such key: remove it",
    ),
    "a message's key with a space": (
        {"messages": [{" role": "user", "content": "a"}]},
        "`messages[0]. role` is not supported: it has a space in its name: write `role`",
    ),
    "an empty system message alone": (
        {"messages": [{"role": "system", "content": " "}]},
        "`messages` holds only an empty system message",
    ),
    "a system message twice": (
        {"system": "a", "messages": [{"role": "system", "content": "b"}, user()]},
        "both `system` and a message of the role system: a line has one of them",
    ),
    "an image by its path": (
        {"prompt": "a", "images": ["/home/jane/scan.png"]},
        "images must be base64 data: a path cannot be read from here",
    ),
    "one image as a string": ({"prompt": "a", "images": "aGVsbG8="}, "images must be a list of base64 strings"),
    "a message's image by its name": (user("a", images=["scan.png"]), "`images` must be base64 data"),
    "images beside messages": (
        {"messages": [user()], "images": ["aGVsbG8="]},
        "`images` belongs inside a message if a line has `messages`",
    ),
    "an empty model": ({"prompt": "a", "model": ""}, "`model` is empty"),
    "a number as model": ({"prompt": "a", "model": 3}, "`model` must be a string, not a number"),
    "a list as system": ({"prompt": "a", "system": []}, "`system` must be a string, not a list"),
    "an object as tools": ({"prompt": "a", "tools": {}}, "`tools` must be a list"),
    "an id without end": ({"prompt": "a", "id": "x" * MAX_ID_LENGTH}, "`id` is longer than 512 characters"),
    "OpenAI Batch": (
        {"custom_id": "a", "method": "POST", "url": "/v1", "body": {}},
        "`url` /v1 is not supported: only",
    ),
    "a format of a word": ({"prompt": "a", "format": "xml"}, '`format` must be "json" or a JSON schema (an object)'),
    "a format that is no schema": (
        {"prompt": "a", "format": {"type": "int"}},
        '`format` is not a JSON schema that can be held to: at type: "int" is not valid under any of the',
    ),
    "a format that takes too much": (
        {"prompt": "a", "format": {"pattern": "(a{999}){999}"}},
        "`format` is not a JSON schema that can be held to: at its top: '(a{999}){999}' is no pattern, or",
    ),
    "an empty schema": ({"prompt": "a", "format": {}}, '`format` must be "json" or a JSON schema (an object)'),
    "a thought without level": ({"prompt": "a", "think": "hard"}, "`think` must be true, false, or one of low, medium"),
    "a thought of a list": ({"prompt": "a", "think": []}, "`think` must be true, false, or one of low, medium"),
    "options of a list": ({"prompt": "a", "options": []}, "`options` must be an object, not a list"),
}


#: {what: (document, sentence)}: other kinds of requests than a plain prompt
REFUSED |= {
    "no text to embed": ({"embed": []}, "`embed` is a list of 0 texts: it may have 1 to 2048, split it"),
    "too many texts": ({"embed": ["a"] * 2049}, "`embed` is a list of 2049 texts: it may have 1 to 2048, split it"),
    "an empty text to embed": ({"embed": " "}, "`embed` is empty"),
    "a number to embed": ({"embed": [SECRET, 5]}, "`embed[1]` must be a string, not a number"),
    "null to embed": ({"embed": None}, "`embed` must be a string, not null"),
    "a prompt beside it": ({"embed": SECRET, "prompt": "a"}, "`prompt` has no effect beside `embed`: remove it"),
    "several vectors": ({"embed": SECRET, "n": 3}, "`n` has no effect beside `embed`"),
    "a system message": ({"embed": SECRET, "system": "a"}, "`system` has no effect beside `embed`"),
    "no dimensions": ({"embed": "a", "dimensions": 0}, "`dimensions` must be a whole number from 1 to 65536"),
    "half a dimension": ({"embed": "a", "dimensions": 1.5}, "`dimensions` must be a whole number from 1 to 65536"),
    "nothing to go on from": ({"complete": ""}, "`complete` is empty"),
    "an object to go on from": ({"complete": {}}, "`complete` must be a string, not an object"),
    "tools for a text": ({"complete": SECRET, "tools": []}, "`tools` has no effect beside `complete`"),
    "raw as a word": ({"complete": "a", "raw": "yes"}, "`raw` must be true or false, not a string"),
    "raw with a system": ({"complete": "a", "raw": True, "system": "b"}, "both `raw` and `system`: a raw prompt is"),
    "no answers": ({"prompt": "a", "n": 0}, "`n` must be a whole number from 1 to 100"),
    "too many answers": ({"prompt": "a", "n": 101}, "`n` must be a whole number from 1 to 100"),
    "n of true": ({"prompt": "a", "n": True}, "`n` must be a whole number from 1 to 100"),
    "logprobs as a number": ({"prompt": "a", "logprobs": 5}, "`logprobs` must be true or false, not a number"),
    "too many likeliest": (
        {"prompt": "a", "logprobs": True, "top_logprobs": 21},
        "`top_logprobs` must be a whole number from 0 to 20",
    ),
    "likeliest of nothing": ({"prompt": "a", "top_logprobs": 3}, "`top_logprobs` without `logprobs`: true"),
    "an image's address": (
        {"prompt": SECRET, "images": ["https://example.com/scan.png"]},
        "images must be base64 data: a path cannot be read from here, nor an address (`obcd prepare --images` packs",
    ),
    "an image in a folder": ({"prompt": SECRET, "images": ["scans/cat1"]}, "images must be base64 data: a path"),
    "an image on Windows": ({"prompt": SECRET, "images": ["C:\\scans\\cat"]}, "images must be base64 data: a path"),
    "bad base64": ({"prompt": SECRET, "images": [PIXEL[:-1]]}, "images has one that is not base64: encode the file's"),
    "base64 of URLs": ({"prompt": SECRET, "images": ["-_" * 40]}, "images has one that is not base64"),
    "base64 of other letters": ({"prompt": SECRET, "images": ["ä" * 2000]}, "images has one that is not base64"),
    "a data URL of text": ({"prompt": "a", "images": ["data:text/plain,hi"]}, "images has a data: URL that is not ba"),
    "a data URL of packed text": (
        {"prompt": "a", "images": ["data:text/plain;base64,aGk="]},
        "images has a data: URL that is not a picture",
    ),
    "a data URL of nothing": ({"prompt": "a", "images": ["data:image/png;base64,"]}, "images has an empty one"),
    "a tool of a word": ({"prompt": "a", "tools": ["weather"]}, '`tools[0]` must be {"type": "function", "function"'),
    "a tool without function": ({"prompt": "a", "tools": [{"name": "f"}]}, '`tools[0]` must be {"type": "function"'),
    "a tool of another type": (
        {"prompt": "a", "tools": [{"type": "search", "function": {"name": "f"}}]},
        '`tools[0]` must be {"type": "function"',
    ),
    "a tool that is strict by a word": (
        {"prompt": "a", "tools": [{"function": {"name": "f", "strict": "yes"}}]},
        "`tools[0].function.strict` must be true or false",
    ),
    "a strict tool that cannot be held to": (
        {"prompt": "a", "tools": [{"function": {"name": "f", "strict": True, "parameters": {"$ref": "a.json"}}}]},
        "`tools[0].function.parameters` is not a JSON schema that can be held to: at its top: `$ref` points to",
    ),
    "a tool without name": ({"prompt": "a", "tools": [{"function": {}}]}, "`tools[0].function` needs a `name`"),
    "a tool told by a list": (
        {"prompt": "a", "tools": [{"function": {"name": "f", "description": []}}]},
        "`tools[0].function.description` must be a string",
    ),
    "a tool with a list": (
        {"prompt": "a", "tools": [{"function": {"name": "f"}}, {"function": {"name": "g", "parameters": []}}]},
        "`tools[1].function.parameters` must be a JSON schema (an object)",
    ),
    "calls of a word": (
        {"messages": [user(), {"role": "assistant", "content": "", "tool_calls": "f"}]},
        "`messages[1].tool_calls` must be a list",
    ),
    "a call of nothing": (
        {"messages": [user(), {"role": "assistant", "content": "", "tool_calls": [{"arguments": {}}]}]},
        "`messages[1].tool_calls[0].name` must be a string",
    ),
    "a call with arguments that are no object": (
        {
            "messages": [
                user(),
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
            ]
        },
        "`messages[1].tool_calls[0].function.arguments` must be a JSON object, or a string that holds one",
    ),
}


@pytest.mark.parametrize(("document", "sentence"), REFUSED.values(), ids=REFUSED)
def test_line_is_refused_with_its_reason(document: dict[str, Any], sentence: str) -> None:
    found = refusal(document)

    assert found.startswith(sentence)
    assert SECRET not in found


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temprature": 0}, wording("options-temprature-is-not-an-option")),
        ({"a\x1b[31m" + "b" * 100: 0}, "`options.a\\x1b[31m" + "b" * 34 + wording("is-not-an-option-of-ollama")),
        ({"num_ctx": "4096"}, wording("options-num-ctx-must-be-a")),
        ({"num_ctx": True}, wording("options-num-ctx-must-be-a-2")),
        ({"num_predict": 1e12}, wording("options-num-predict-must-be-a")),
        ({"temperature": "hot"}, wording("options-temperature-must-be-a-number")),
        ({"temperature": False}, wording("options-temperature-must-be-a-number-2")),
        ({"temperature": 10**400}, wording("options-temperature-is-too-large")),
        ({"use_mmap": 1}, wording("options-use-mmap-must-be-true")),
        ({"stop": "\n"}, wording("options-stop-must-be-a-list")),
        ({"stop": [1]}, wording("options-stop-must-be-a-list-2")),
        ({"num_ctx": 0}, "`options.num_ctx` is 0, outside 16 to 16777216"),
        ({"num_predict": -1}, wording("options-num-predict-is-1-outside")),
        ({"num_predict": 10**12}, wording("options-num-predict-is-1000000000000-outside")),
        ({"seed": 10**40}, "`options.seed` is 100000000000000000000000000000, outside -9223372036854775808 to 922337"),
    ],
)
def test_option_is_refused_by_its_key(options: dict[str, Any], sentence: str) -> None:
    assert refusal({"prompt": SECRET, "options": options}).startswith(sentence)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_number_of_the_configuration_that_is_none_is_refused(number: float) -> None:
    with pytest.raises(LineError, match=wording("options-temperature-must-be-a-finite")):
        check_options({"temperature": number})


@pytest.mark.parametrize("model", ["m\x1b[2J", "m\n", "m\u202e", "\ud800", "m" * 201])
def test_model_that_could_not_be_shown_is_refused(model: str) -> None:
    sentence = "`model` is not a model's name: it must have at most 200 printable characters"

    assert refusal({"prompt": SECRET, "model": model}) == sentence


def test_options_of_every_type_are_taken() -> None:
    options = {
        "num_ctx": 16,
        "num_predict": 1,
        "seed": -1,
        "temperature": 0,
        "top_p": 0.9,
        "stop": [],
        "use_mmap": False,
    }

    assert check_options(options) == options


@pytest.mark.parametrize(
    ("value", "meant"), [(None, None), ("", ""), ("json", "json"), ({"type": "object"}, {"type": "object"})]
)
def test_format_is_json_a_schema_any_text_or_nothing(value: object, meant: object) -> None:
    assert check_format(value) == meant


@pytest.mark.parametrize("value", [None, True, False, "low", "medium", "high", "max"])
def test_think_is_a_flag_or_a_level(value: object) -> None:
    assert check_think(value) == value


@pytest.mark.parametrize("value", [{}, {"name": "string", "age": 0}, {"schema": {"city": "string"}}, {"title": "T"}])
def test_r12_format_that_holds_nothing_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(LineError):
        check_format(value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"prompt": "a", "meta": {"score": NaN}}', "`meta.score`"),
        ('{"prompt": "a", "rows": [1, {"x": [0, -Infinity]}]}', "`rows[1].x[1]`"),
        ('{"prompt": "a", "y": 1e999, "x": 1}', "`y`"),
    ],
)
def test_number_that_is_none_is_named_with_its_place(text: str, place: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(text.encode(), 1)

    assert place in str(caught.value)


def test_strict_schema_of_ten_levels_in_openais_envelope_is_taken() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(10):
        kids = {"type": "array", "items": {"anyOf": [schema, {"type": "null"}]}}
        schema = {"type": "object", "properties": {"kids": kids}, "required": ["kids"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "deep", "strict": True, "schema": schema}}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "response_format": wanted}
    line = {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions", "body": body}

    assert parse_line(json.dumps(line).encode(), 1).format == schema
