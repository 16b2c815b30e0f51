from __future__ import annotations

import io
import json
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import InputError, UsageError
from obcd.prompts.prepare import Prepared, Wrapping, write_prompts
from obcd.prompts.texts import RESERVED_KEYS, Prompt
from obcd.text_files import LeftOut
from tests.golden.wording import wording


def write(items: list[Prompt | LeftOut], **wrapping: Any) -> tuple[list[dict[str, Any]], list[LeftOut], Prepared]:
    stream = io.BytesIO()
    told: list[LeftOut] = []
    done = write_prompts(items, Wrapping(**wrapping), stream, told.append)
    return [json.loads(line) for line in stream.getvalue().decode("ascii").splitlines()], told, done


def test_line_is_one_of_ours() -> None:
    lines, told, done = write([Prompt("a.txt", "Grüße\u2028", "a.txt"), Prompt(2, "x", "line 2", {"ward": "3b"})])

    assert lines == [{"id": "a.txt", "prompt": "Grüße\u2028"}, {"id": 2, "prompt": "x", "ward": "3b"}]
    assert (told, done) == ([], Prepared(prompts=2, left_out=0, long_lines=0))


def test_template_and_system_wrap_every_text_and_interpret_nothing_else() -> None:
    lines, _, _ = write(
        [Prompt(1, "{text} %s {0}", "line 1")], template="Sum {{up}}: {text} / {text}", system="Be short."
    )

    assert lines == [{"id": 1, "system": "Be short.", "prompt": "Sum {up}: {text} %s {0} / {text} %s {0}"}]


def test_template_takes_other_fields_by_name_and_leaves_out_what_has_none() -> None:
    template = "Aged {age}: {text}"

    lines, told, _ = write(
        [Prompt(1, "a", "row 1", fields={"age": "54"}), Prompt(2, "b", "row 2", fields={"age": " "})], template=template
    )

    assert [line["prompt"] for line in lines] == ["Aged 54: a"]
    assert told == [LeftOut("row 2", wording("its-field-age-is-empty-which"))]


@pytest.mark.parametrize(
    "wrapping",
    [{"template": "no place"}, {"template": "{text}\udcff"}, {"system": "\udcff"}, {"template": '{"a": {text}}'}],
)
def test_wrapping_that_cannot_be_meant_is_a_usage_error(wrapping: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Wrapping(**wrapping)


def test_what_the_coordinator_would_refuse_is_told_now() -> None:
    _, told, done = write([Prompt("x" * 600, "x", "visits.csv row 1"), Prompt(2, "x", "visits.csv row 2")])

    assert told == [LeftOut("visits.csv row 1", wording("id-is-longer-than-512-characters"))]
    assert done == Prepared(prompts=1, left_out=1, long_lines=0)


def test_line_above_the_default_limit_is_written_and_counted() -> None:
    assert write([Prompt(1, "x" * LINE_BYTES, "a")])[2] == Prepared(prompts=1, left_out=0, long_lines=1)


@pytest.mark.parametrize("items", [[], [LeftOut("a.txt", wording("it-is-empty"))]])
def test_no_prompt_at_all_is_an_input_error(items: list[Prompt | LeftOut]) -> None:
    with pytest.raises(InputError, match=wording("no-prompt-to-write")):
        write(items)


@pytest.mark.parametrize("key", ["model", "options", "prompt", "messages", "images", "system", "format", "id", "embed"])
def test_keys_with_a_meaning_are_reserved(key: str) -> None:
    assert key in RESERVED_KEYS


def test_kept_keys_are_echoed_and_not_obeyed() -> None:
    lines, _, _ = write([Prompt(1, "x", "row 1", {"_model": "theirs"})])

    request = parse_line(json.dumps(lines[0]).encode(), 1)

    assert (request.model, request.extra) == (None, {"_model": "theirs"})
