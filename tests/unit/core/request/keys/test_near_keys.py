from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.keys.near_keys import find_near, suggest_template
from obcd.core.request.lines import parse_line
from obcd.core.request.templates import parse_template
from obcd.core.tables.csv_cells import check_columns
from obcd.errors import FormError, LineError
from tests.golden.wording import wording


def why(document: dict[str, Any]) -> str:
    with pytest.raises(LineError) as error:
        parse_line(json.dumps(document).encode(), 1)
    return str(error.value)


@pytest.mark.parametrize("key", ["Prompt", "PROMPT", "pormpt", "promt", "prompts", "promp", "prompt:", "\ufeffprompt"])
def test_key_that_is_almost_prompt_is_named(key: str) -> None:
    shown = key.encode("unicode_escape").decode()
    assert why({"id": 1, "text": "x", key: "secret"}) == wording("no-prompt-in-it-but-near", shown)


def test_white_space_around_a_key_is_named() -> None:
    assert why({" prompt ": "secret"}) == wording("no-prompt-in-it-but-spaces")


def test_key_that_is_almost_messages_is_named_where_it_holds_a_list() -> None:
    assert wording("but-mesages-write-messages") in why({"mesages": [{"role": "user", "content": "x"}]})
    assert "{completed}" in why({"completed": "yes"})
    assert "{message}" in why({"message": "WINNER!! claim your prize", "label": "spam"})


@pytest.mark.parametrize(
    ("document", "template"),
    [
        ({"question": "q", "answer": "a"}, "{question}"),
        (
            {"id": "5", "title": "t", "context": "c", "question": "q", "answers": {"text": ["a"]}},
            r"{context}\n{question}",
        ),
        ({"instruction": "i", "input": "", "output": "o"}, r"{instruction}\n{input?}"),
        ({"text": "t", "label": 1}, "{text}"),
        ({"label": "x", "sentence1": "s", "sentence2": "s"}, "{sentence1}"),
        ({"user_prompt": "p", "model_answer": "a"}, "{user_prompt}"),
        ({"id": "a", "answer": "b"}, "{id}"),
        ({"{x}": "a", 'b"': "c"}, "{note}"),
        ({"Question": "q"}, "{Question}"),
    ],
)
def test_line_of_a_public_data_set_hears_of_a_template(document: dict[str, Any], template: str) -> None:
    said = why(document)

    assert f'template = "{template}"' in said
    assert all(f"`{key}`" in said for key in document if key.isalnum())
    assert parse_template(template.replace(r"\n", "\n"))


def test_sentence_names_few_keys_and_none_that_could_write_on_a_terminal() -> None:
    said = why({f"key{number}\x1b" + "x" * 100: "secret" for number in range(50)})

    assert "…" in said
    assert "\x1b" not in said
    assert len(said) < 800


def test_other_words_are_no_slips_of_the_pen() -> None:
    for key in ("content", "context", "text", "title", "question", "completion", "proof"):
        assert find_near("prompt", [key]) == find_near("messages", [key]) == ""
    assert find_near("messages", ["passages"]) == ""
    assert find_near("complete", ["Complete", "completed"]) == "Complete"
    assert suggest_template([]) == 'template = "{note}"'


def test_table_without_a_prompt_names_its_columns_and_the_near_one() -> None:
    with pytest.raises(FormError) as error:
        check_columns(["id", " prompt ", "ward"])
    assert wording("rename-the-one-with-the-prompts-near") in str(error.value)
    assert wording("its-columns-are-id-prompt-ward") in str(error.value)


@pytest.mark.parametrize(
    "header", [["Why is the sky blue?"], ["a1", "Why is the sky blue?"], ["#exported", "by Ann"], ["My Survey"]]
)
def test_table_whose_first_line_is_perhaps_no_header_hears_of_one(header: list[str]) -> None:
    with pytest.raises(FormError) as error:
        check_columns(header)
    assert str(error.value).endswith(wording("if-that-line-is-a-title"))
    assert "{note}" not in str(error.value)
