from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.rows import Reading
from obcd.core.request.templates import fields_of, fill, parse_template
from obcd.errors import LineError
from tests.golden.wording import wording


def test_template_takes_texts_as_they_are_and_all_else_as_json() -> None:
    row = {"note": "BP {150}\n", "labs": {"k": [1, "é"]}, "age": 7, "none": [None]}

    assert fill("{{{note}}} {labs} {age} {none} {age}", row) == '{BP {150}\n} {"k": [1, "é"]} 7 [null] 7'
    assert [field.text for field in fields_of("{{x}} {b c} {a} {b c}")] == ["b c", "a"]


@pytest.mark.parametrize("name", ["note.__class__", "note[0]", "note!r", "0", "note:>9999999999"])
def test_template_reaches_into_no_value(name: str) -> None:
    with pytest.raises(LineError, match=wording("it-has-no-field")):
        fill(f"{{{name}}}", {"note": "x"})
    assert fill(f"{{{name}}}", {name: "y"}) == "y"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("Summarise", wording("it-names-no-field-so-that")),
        ("{{note}}", wording("it-names-no-field")),
        ("", wording("it-names-no-field")),
        ("{note", wording("a-stands-alone-in-it-at-2")),
        ("{note} }", wording("a-stands-alone-in-it-at-3")),
        ("a {} {note}", wording("the-braces-at-character-3-hold")),
        ("{ note }", wording("the-braces-at-character-1-hold")),
        ("{a\nb}", wording("the-braces-at-character-1-hold-2")),
    ],
)
def test_template_that_is_none_is_refused(template: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"it names|single|braces") as error:
        parse_template(template)
    assert sentence in str(error.value)


READING = Reading("Summarise: {note}", "mrn")


def request_of(row: Any, reading: Reading = READING) -> Any:
    return parse_line(json.dumps(row).encode(), 5, reading)


def test_row_is_data_whatever_its_keys_and_echoed_but_for_its_id() -> None:
    request = request_of({"mrn": "7", "note": "ok", "model": "evil", "options": {"num_ctx": 1}, "id": 3})

    assert (request.id, request.prompt, request.model, request.options) == ("7", "Summarise: ok", None, {})
    assert request.messages == [{"role": "user", "content": "Summarise: ok"}]
    assert request.extra == {"note": "ok", "model": "evil", "options": {"num_ctx": 1}, "id": 3}


@pytest.mark.parametrize("row", [{}, {"mrn": None}, {"mrn": ""}, {"mrn": " "}])
def test_row_without_an_id_is_called_by_its_number(row: dict[str, Any]) -> None:
    assert request_of({"note": "ok", **row}).id == 5


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"mrn": 1}, wording("it-has-no-field-note-which")),
        ({"custom_id": "a", "body": {}}, wording("it-has-no-field-note")),
        ({"note": ""}, wording("its-field-note-is-empty-which")),
        ({"note": " \t"}, "its field `note` is empty"),
        ({"note": None}, "its field `note` is empty"),
        ({"note": "x", "mrn": "9" * 600}, wording("mrn-is-longer-than-512-characters")),
        ([1], wording("a-list-where-an-object-is")),
    ],
)
def test_row_that_cannot_be_asked_says_why(row: Any, sentence: str) -> None:
    with pytest.raises(LineError) as error:
        request_of(row)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("template", "row", "prompt"),
    [
        ("{instruction}\n{input?}", {"instruction": "Do", "input": "", "output": "x"}, "Do\n"),  # R40
        ("{instruction}\n{input?}", {"instruction": "Do", "output": "x"}, "Do\n"),
        ("{instruction}\n{input?}", {"instruction": "Do", "input": None}, "Do\n"),
        ("{instruction}\n{input?}", {"instruction": "Do", "input": "it"}, "Do\nit"),
        ("Tell me a {style?} joke", {}, "Tell me a  joke"),
        ("{answers.text[0]}", {"answers": {"text": ["a", "b"]}}, "a"),  # R42
        ("{answers.text[-1]}", {"answers": {"text": ["a", "b"]}}, "b"),
        ("{a.b}", {"a": {"b": {"c": [1]}}}, '{"c": [1]}'),
        ("{a[0][1].b}", {"a": [[0, {"b": True}]]}, "true"),
        ("{a.b c.d}", {"a": {"b c": {"d": 7}}}, "7"),
        ("{answers.text[0]}", {"answers.text[0]": "exact", "answers": {"text": ["a"]}}, "exact"),
        ("{a.b}", {"a.b": "column", "a": {"b": "inner"}}, "column"),
        ("{a.b.c[0]}", {"a": {"b.c": ["x"]}}, "x"),
        ("{a.b[9]?}{x}", {"a": {"b": []}, "x": "y"}, "y"),
        ("{a.b?}{x}", {"a": None, "x": "y"}, "y"),
        ("{Really?}", {"Really?": "yes"}, "yes"),
        ("{Really?}", {"Really?": "yes", "Really": "no"}, "yes"),
    ],
)
def test_r40_r42_field_may_be_absent_or_within_others(template: str, row: dict[str, Any], prompt: str) -> None:
    assert parse_template(template)
    assert request_of(row, Reading(template)).prompt == prompt


@pytest.mark.parametrize(
    ("template", "row"),
    [
        ("{a.b}", {"a": "text"}),
        ("{a.b}", {"a": {"c": 1}}),
        ("{a[0]}", {"a": "text"}),
        ("{a[0]}", {"a": {"0": 1}}),
        ("{a[1]}", {"a": [1]}),
        ("{a[-2]}", {"a": [1]}),
        ("{a..b}", {"a": {"": {"b": 1}}}),
        ("{a.__class__}", {"a": {}}),
        ("x {Really?}", {"Really?": ""}),
        ("{a?}{b?}", {"a": " ", "b": None}),
    ],
)
def test_field_that_is_not_there_fails_its_row(template: str, row: dict[str, Any]) -> None:
    with pytest.raises(LineError, match=r"no field|is empty|are empty"):
        request_of(row, Reading(template))


def test_missing_field_names_the_key_that_is_almost_it() -> None:
    with pytest.raises(LineError) as error:
        request_of({"mrn": 1, " Note": "secret"})
    assert str(error.value) == wording("it-has-no-field-note-it-has")


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ('Give {"a": 1} for {x}', wording("the-braces-at-character-6-hold-json")),
        ("Give {'a': 1} for {x}", wording("the-braces-at-character-6-hold-json")),
        ('{x}: {"name", "age"}', wording("the-braces-at-character-6-hold-json")),
        ('Give {"a": {"b": 1}} for {x}', "a brace is written {{"),
        ("Give {\n  a: 1\n} for {x}", "a brace is written {{"),
        ("Give {} for {x}", "a brace is written {{"),
    ],
)
def test_r41_braces_of_json_are_refused_with_the_hint_how_a_brace_is_written(template: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="brace") as error:
        parse_template(template)
    assert sentence in str(error.value)
    assert parse_template('Give {{"a": 1}} for {x}')
