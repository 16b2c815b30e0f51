from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.request.lines import parse_line
from obcd.core.request.rows import Reading, fields_of, fill, parse_template
from obcd.errors import LineError
from tests.golden.wording import wording


def test_template_takes_texts_as_they_are_and_all_else_as_json() -> None:
    row = {"note": "BP {150}\n", "labs": {"k": [1, "é"]}, "age": 7, "none": [None]}

    assert fill("{{{note}}} {labs} {age} {none} {age}", row) == '{BP {150}\n} {"k": [1, "é"]} 7 [null] 7'
    assert fields_of("{{x}} {b c} {a} {b c}") == ("b c", "a")


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
