from __future__ import annotations

import pytest

from obcd.errors import ExitCode, InputError
from obcd.results.score import Score, score
from tests.golden.wording import wording

KEY = {"1": {"mrn": "482913", "age": 54}, "2": {"mrn": "730158", "age": 67}}


def test_records_like_the_key_have_every_field_right() -> None:
    records = {1: {"mrn": "482913", "age": 54}, 2: {"mrn": "730158", "age": 67}}

    assert score(records, KEY) == Score(matched=4, total=4)


def test_each_wrong_field_is_counted() -> None:
    records = {1: {"mrn": "482913", "age": 45}, 2: {"mrn": "111111", "age": 76}}

    assert score(records, KEY) == Score(matched=1, total=4)


def test_all_fields_of_a_missing_line_count_as_wrong() -> None:
    assert score({2: {"mrn": "730158", "age": 67}}, KEY) == Score(matched=2, total=4)


@pytest.mark.parametrize("record", [None, "482913", 54, [], ["mrn"], {}])
def test_record_without_the_fields_is_wrong(record: object) -> None:
    assert score({1: record}, {"1": {"mrn": "482913", "age": 54}}) == Score(matched=0, total=2)


@pytest.mark.parametrize(
    ("found", "wanted", "is_right"),
    [
        (54, 54, True),
        (54.0, 54, True),
        ("54", 54, False),
        (True, 1, False),
        (0, False, False),
        (True, True, True),
        (None, None, True),
        ("Mira solberg", "Mira Solberg", False),
        ("Mira Solberg ", "Mira Solberg", False),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ([True], [1], False),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
    ],
)
def test_values_are_compared_as_json(found: object, wanted: object, is_right: bool) -> None:
    assert score({1: {"x": found}}, {"1": {"x": wanted}}).matched == is_right


def test_absent_field_is_not_a_null() -> None:
    assert score({1: {}}, {"1": {"mrn": None}}).matched == 0


def test_other_lines_and_further_fields_do_not_count() -> None:
    records = {1: {"mrn": "482913", "age": 54, "ward": 3}, 2: {"mrn": "730158", "age": 67}, 7: {"mrn": "000000"}}

    assert score(records, KEY) == score({line: records[line] for line in (1, 2)}, KEY)


def test_lines_of_the_key_may_have_different_fields() -> None:
    result = score({1: {"a": 1}, 2: {"b": 1}}, {"1": {"a": 1}, "2": {"b": 2}})

    assert result == Score(matched=1, total=2)


def test_empty_key_scores_nothing_of_nothing() -> None:
    assert score({1: {"mrn": "482913"}}, {}) == Score(matched=0, total=0)


@pytest.mark.parametrize("name", ["", "0", "-1", "01", "+1", " 1", "1\n", "1.0", "one", "²", "१"])
def test_line_that_is_no_number_counted_from_1_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match=wording("the-key-names-line")) as caught:
        score({}, {name: {"mrn": "482913"}})

    assert caught.value.exit_code is ExitCode.INPUT
