"""The tree against brute force, and its cost in characters that are looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obcd.core.request.prefixes import prefix_finder
from obcd.core.request.prefixes.prefix_finder import FIRST, MOST_CHARACTERS, STEP, PrefixFinder, PrefixTree
from tests.unit.core.request.prefixes.finding import prompt, words

#: Texts are made of few parts, so that they share beginnings of many lengths.
PARTS = [words(STEP) for _ in range(3)]
texts = st.lists(
    st.tuples(st.lists(st.sampled_from(range(3)), max_size=9), st.integers(0, 700)), min_size=2, max_size=14
)


def tree_of(contents: list[str]) -> PrefixTree:
    finder = PrefixFinder()
    for ordinal, text in enumerate(contents):
        finder.take(prompt(text), 0, ordinal)
    return finder.finish()


def common_length(contents: list[str]) -> int:
    shortest = min(map(len, contents))
    return next((place for place in range(shortest) if len({text[place] for text in contents}) > 1), shortest)


def way(tree: PrefixTree, ordinal: int) -> list[int]:
    """Return the nodes of a request, from the lowest to the root."""
    nodes = [tree.places[ordinal]]
    while tree.parents[nodes[-1]] != nodes[-1]:
        nodes.append(tree.parents[nodes[-1]])
    return nodes


@given(texts)
@settings(max_examples=60, deadline=None)
def test_two_requests_meet_as_far_down_as_they_are_equal(drawn: list[tuple[list[int], int]]) -> None:
    contents = [
        "".join(PARTS[part] for part in parts) + f"{place:03d}" * tail for place, (parts, tail) in enumerate(drawn)
    ]

    tree = tree_of(contents)

    common = common_length(contents)
    least = common // FIRST * FIRST + FIRST
    assert {way(tree, ordinal)[-1] for ordinal in range(len(contents))} == {way(tree, 0)[-1]}
    assert tree.sizes[way(tree, 0)[-1]] == common
    for one in range(len(contents)):
        for other in range(one):
            shared = common_length([contents[one], contents[other]]) // STEP * STEP
            meeting = next(node for node in way(tree, one) if node in way(tree, other))
            # what all requests shared at first is a multiple of FIRST
            allowed = (shared, shared // FIRST * FIRST) if shared >= least else (common,)
            assert tree.sizes[meeting] in allowed


def test_sizes_are_bytes() -> None:
    greek = "αβγδ" * 300

    tree = tree_of([words(900), greek + "one", greek + "two"])

    assert tree.sizes[tree.places[1]] == 2 * 1152


class Watched(str):
    """A text that counts the characters that are taken from it."""

    __slots__ = ()
    taken = 0
    pieces = 0

    def __getitem__(self, key: object) -> str:
        piece = Watched(super().__getitem__(key))  # type: ignore[index]
        Watched.taken += len(piece)
        Watched.pieces += 1
        return piece


def headers(count: int) -> Iterator[str]:
    header = words(8000)
    for _ in range(count):
        yield header + words(600)


def nested(count: int, *, is_growing: bool) -> Iterator[str]:
    """Yield texts each of which begins as the whole one before it, or ends before it."""
    whole = words(256 * count)
    for number in range(count):
        length = 256 * (number + 1 if is_growing else count - number)
        yield whole[:length] + words(700)


def prefixes_of_each_other(count: int) -> Iterator[str]:
    whole = words(200 * count)
    yield words(1000)
    for number in range(count):
        yield whole[: 200 * (number + 1)]


def thirds(count: int) -> Iterator[str]:
    """Yield pairs of a long text and a short one, which forces nodes to be divided again and again."""
    whole = words(100_000)
    for number in range(count):
        yield whole[: 600 + 97 * number] + words(300)
        yield whole + str(number)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize(
    "contents",
    [
        pytest.param(lambda: headers(300), id="one header"),
        pytest.param(lambda: nested(200, is_growing=True), id="nested, growing"),
        pytest.param(lambda: nested(200, is_growing=False), id="nested, shrinking"),
        pytest.param(lambda: prefixes_of_each_other(400), id="prefixes of each other"),
        pytest.param(lambda: thirds(60), id="divided"),
        pytest.param(lambda: (words(900) for _ in range(300)), id="nothing shared"),
    ],
)
def test_cost_is_linear_in_the_length_of_the_texts(
    contents: object, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [Watched(text) for text in contents()]  # type: ignore[operator]
    if not is_kept:
        monkeypatch.setattr(prefix_finder, "KEPT_CHARACTERS", 1)
    Watched.taken = Watched.pieces = 0

    tree_of(made)  # type: ignore[arg-type]

    assert Watched.taken <= 6 * sum(map(len, made))
    assert Watched.pieces <= 160 * len(made)
    assert Watched.pieces <= 60 * len(made) + sum(map(len, made)) / STEP


def test_one_long_header_costs_one_piece_a_line() -> None:
    made = [Watched(text) for text in headers(300)]
    tree_of(made[:10])  # type: ignore[arg-type]
    Watched.taken = Watched.pieces = 0

    tree_of(made)  # type: ignore[arg-type]

    assert Watched.pieces <= 1.2 * len(made)
    assert Watched.taken <= 600 * len(made) + 20 * len(made[0])


def test_only_the_first_characters_of_a_giant_prompt_count() -> None:
    giant = Watched(words(2**16) * 256)
    Watched.taken = 0

    tree_of([Watched(giant + "a"), Watched(giant + "b"), words(600), Watched(giant + "c")])

    assert Watched.taken < 20 * MOST_CHARACTERS


def test_tables_forget_what_is_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_finder, "ENTRIES", 50)
    monkeypatch.setattr(prefix_finder, "KEPT_CHARACTERS", 5000)
    document = words(1000)
    finder, ordinal = PrefixFinder(), 0

    for text in (document + "a", *(words(600) for _ in range(30)), document + "b"):
        finder.take(prompt(text), 0, ordinal)
        ordinal += 1
    is_found = finder._places[0] != finder._places[1]
    for text in (words(700), *(words(600) for _ in range(2000))):
        finder.take(prompt(text), 0, ordinal)
        ordinal += 1

    assert is_found
    assert len(finder._new) + len(finder._old) < 200
    assert sum(map(len, (*finder._texts.values(), *finder._old_texts.values()))) < 15_000
