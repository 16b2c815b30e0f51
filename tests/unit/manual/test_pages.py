from __future__ import annotations

import pytest

from obcd.manual import pages
from obcd.manual.pages import first_sentence, page_names, read_page


def test_pages_are_listed_in_the_order_of_reading() -> None:
    names = page_names()

    known = [name for name in pages.READING_ORDER if name in names]
    assert names[: len(known)] == known
    assert {"commands", "configuration"} <= set(names)


def test_every_page_begins_with_a_sentence() -> None:
    assert [name for name in page_names() if not first_sentence(read_page(name)).endswith((".", ":"))] == []


def test_installation_without_a_manual_has_no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(name: str) -> None:
        raise FileNotFoundError(name)

    monkeypatch.setattr(pages, "shared", lacks)

    assert page_names() == []


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("# A\n\nOne `b.c`, e.g. two. Three.", "One b.c, e.g. two."),
        ("# A\n\n```\ncode\n```\n\nOne\ngoes on 0.5 s. `x` is", "One goes on 0.5 s."),
        ("# A\n\nOne", "One"),
        ("# A\n", ""),
    ],
)
def test_first_sentence_ends_where_the_next_begins(page: str, sentence: str) -> None:
    assert first_sentence(page) == sentence
