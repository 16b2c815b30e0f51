from __future__ import annotations

import pytest

from obcd.core.markup import MAX_TEXT, Markup, escape, join, tag


def test_text_is_escaped_and_markup_is_not() -> None:
    made = tag("td", {"class": 'a"b', "hidden": True, "id": None}, "a<b", tag("b", {}, "c & d"), ["e", None, ">"])

    assert made == '<td class="a&quot;b" hidden>a&lt;b<b>c &amp; d</b>e&gt;</td>'
    assert isinstance(made, Markup)


def test_text_that_looks_like_markup_of_ours_is_text() -> None:
    assert tag("p", {}, str(tag("b", {}, "x")) + "") == "<p>&lt;b&gt;x&lt;/b&gt;</p>"


def test_value_that_was_kept_is_escaped_too() -> None:
    for _ in range(2):
        assert tag("a", {"href": "'><script>"}, "x") == '<a href="&#x27;&gt;&lt;script&gt;">x</a>'


@pytest.mark.parametrize(("text", "escaped"), [
    ("\x1b[2J", "\\x1b[2J"), ("\u202egpj", "\\u202egpj"), ("\ud800", "\\ud800"), ("12\u202f345", "12\u202f345"),
    ("é", "é"), ("a\nb", "a\\nb"),
])  # fmt: skip
def test_controls_become_escapes(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_long_text_is_cut() -> None:
    assert len(escape("x" * 10_000)) == MAX_TEXT
    assert escape("x" * 10_000).endswith("…")


@pytest.mark.parametrize("name", ["script src=x", "", "a>", "1a", 'x" y'])
def test_name_that_is_none_of_html_is_a_bug(name: str) -> None:
    with pytest.raises(ValueError, match="not a name of HTML"):
        tag(name)
    with pytest.raises(ValueError, match="not a name of HTML"):
        tag("a", {name: "x"})


def test_void_elements_have_no_end() -> None:
    assert join([tag("meta", {"charset": "utf-8"}), tag("br")]) == '<meta charset="utf-8"><br>'
