from __future__ import annotations

import json

from obcd.results.printing import json_line, text_block
from obcd.results.reading.answers import Answer
from tests.golden.wording import wording


def answer(record: dict[str, object], line: int | None = 7) -> Answer:
    return Answer(place="notes/responses.jsonl line 7", file="notes/responses.jsonl", line=line, record=record)


def test_block_is_the_seeds() -> None:
    rule = "########################################"

    assert text_block(answer({"prompt": "What?\nReally?", "response": "Yes.\n"})) == (
        f"{rule}\n# File: notes/responses.jsonl line 7\n{rule}\nPrompt:\nWhat?\nReally?\n\nResponse:\nYes.\n\n\n"
    )


def test_missing_keys_are_said() -> None:
    block = text_block(answer({}))

    assert wording("prompt-no-prompt-found-response-no") in block


def test_what_is_no_text_is_printed_as_json() -> None:
    assert 'Response:\n{"größe": [1, null]}\n' in text_block(answer({"response": {"größe": [1, None]}}))


def test_json_line_always_has_the_five_keys_and_is_ascii() -> None:
    line = json_line(answer({"response": "ä\u2028\n"}, line=None))

    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "file": "notes/responses.jsonl",
        "line": None,
        "id": None,
        "prompt": None,
        "response": "ä\u2028\n",
    }


def test_json_line_keeps_the_other_keys_of_the_record() -> None:
    document = json.loads(json_line(answer({"id": [1], "line": 9, "response": "", "seconds": 1.25, "extra": {"w": 1}})))

    assert document["id"] == [1]
    assert document["line"] == 7  # the answer's, which is a number in any case
    assert (document["seconds"], document["extra"]) == (1.25, {"w": 1})


def test_several_answers_to_a_prompt_are_numbered() -> None:
    block = text_block(answer({"prompt": "A joke?", "response": "a", "responses": [{"response": t} for t in "abc"]}))

    assert block.endswith("Prompt:\nA joke?\n\nResponse 1:\na\n\nResponse 2:\nb\n\nResponse 3:\nc\n\n")
    assert text_block(answer({"response": "One.", "responses": 5})).endswith("Response:\nOne.\n\n")


def test_calls_of_tools_are_shown_as_data_a_line_each() -> None:
    calls = [{"function": {"name": "weather", "arguments": {"city": city}}} for city in ("Köln", "Bonn")]
    told = (
        "Tool calls:\n"
        '{"function": {"name": "weather", "arguments": {"city": "Köln"}}}\n'
        '{"function": {"name": "weather", "arguments": {"city": "Bonn"}}}\n\n'
    )

    assert text_block(answer({"prompt": "Rain?", "response": "", "tool_calls": calls})).endswith(f"Rain?\n\n{told}")
    assert text_block(answer({"response": "I look.", "tool_calls": calls})).endswith(f"Response:\nI look.\n\n{told}")
    assert text_block(answer({"response": "", "tool_calls": []})).endswith("Response:\n\n\n")


def test_calls_of_tools_among_several_answers_have_their_number() -> None:
    several = [{"response": "a"}, {"response": "", "tool_calls": [{"function": {"name": "f"}}]}]

    block = text_block(answer({"response": "a", "responses": several}))

    assert block.endswith('Response 1:\na\n\nTool calls 2:\n{"function": {"name": "f"}}\n\n')


def test_vectors_are_told_by_their_number_and_length() -> None:
    block = text_block(answer({"prompt": ["a", "b"], "embeddings": [[0.1, 0.2, 0.3]] * 2}))

    assert block.endswith('Prompt:\n["a", "b"]\n\nResponse:\n2 vectors of 3 numbers\n\n')
