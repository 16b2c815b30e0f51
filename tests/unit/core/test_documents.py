"""Frozen dataclasses as objects of a JSON file: what is written, what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from obcd.core.documents import LEFT_OUT_IF_NONE, UNWRITTEN, Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Document):
    name: str
    number: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Document):
    words: tuple[str, ...] = ()
    inner: tuple[Inner, ...] = ()
    seconds: float | None = None
    at: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    pids: Mapping[str, int | None] = field(default_factory=dict)
    anything: Mapping[str, object] | None = None
    is_ok: bool = True
    secret: int = field(default=1, metadata=UNWRITTEN)


def test_keys_have_the_order_of_the_fields_and_none_is_written_but_where_it_is_left_out() -> None:
    written = Outer(inner=(Inner(name="a"),), words=("b",), secret=2).to_json()

    assert list(written) == ["words", "inner", "seconds", "pids", "anything", "is_ok"]
    assert (written["inner"], written["seconds"]) == ([{"name": "a", "number": 7}], None)
    assert Outer(at="now").to_json()["at"] == "now"


def test_reader_passes_over_what_it_does_not_know_and_takes_defaults_for_what_is_not_there() -> None:
    assert Inner.from_json({"name": "a", "colour": "red"}) == Inner(name="a")
    assert Outer.from_json({"secret": 9}) == Outer()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "Inner: no object"),
        (None, "Inner: no object"),
        ({"number": 1}, "Inner: no name"),
        ({"name": None}, "no str: None"),
        ({"name": "a", "number": True}, "no int: True"),
        ({"name": "a", "number": 1.0}, "no int: 1.0"),
    ],
)
def test_object_that_lacks_something_or_has_another_type_is_refused(document: object, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        Inner.from_json(document)


@pytest.mark.parametrize(
    "document",
    [
        {"words": "abc"},
        {"words": [1]},
        {"inner": [{}]},
        {"inner": {}},
        {"seconds": "1"},
        {"seconds": True},
        {"seconds": float("nan")},
        {"at": 1},
        {"pids": []},
        {"pids": {"a": "1"}},
        {"anything": 1},
        {"is_ok": "yes"},
        {"is_ok": 1},
    ],
)
def test_value_of_another_type_is_refused_at_any_depth(document: object) -> None:
    with pytest.raises(ValueError, match=r"no |Inner"):
        Outer.from_json(document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns(Document):
    numbers: tuple[int, ...] = ()
    seconds: tuple[float | None, ...] = ()
    words: tuple[str, ...] = ()


def test_lists_of_plain_values_are_read_as_they_are() -> None:
    document = {"numbers": [1, 2], "seconds": [1.5, None, 2], "words": ["a"]}

    found = Columns.from_json(document)

    assert found == Columns(numbers=(1, 2), seconds=(1.5, None, 2.0), words=("a",))
    assert [type(value) for value in found.seconds] == [float, type(None), float]
    assert Columns.from_json({"seconds": [1.5e308, 1.5e308]}).seconds == (1.5e308, 1.5e308)


@pytest.mark.parametrize(
    "document",
    [
        {"numbers": [1, True]},
        {"numbers": [1, 1.0]},
        {"numbers": [None]},
        {"seconds": [1.0, float("nan")]},
        {"seconds": [float("inf"), None]},
        {"seconds": [float("inf"), float("-inf")]},
        {"seconds": [1.0, False]},
        {"seconds": [10**400, 1.0]},
        {"words": ["a", 1]},
    ],
)
def test_one_other_value_in_a_list_refuses_it(document: object) -> None:
    with pytest.raises(ValueError, match="no "):
        Columns.from_json(document)
