"""The lanes of files as people write them."""

from __future__ import annotations

import random

import pytest

from obcd.core.request.prefixes import prefix_finder
from obcd.core.request.prefixes.lane_choice import choose_lanes
from obcd.core.request.prefixes.prefix_finder import PrefixFinder
from obcd.core.request.records import Request
from tests.unit.core.request.prefixes.finding import found, groups, prompt, words

DOCUMENTS = [words(2000 + 30 * number) for number in range(10)]
QUESTIONS = [f"\n\nQuestion: {words(60)}" for _ in range(6)]
#: (document, question) in the order of a file
NATURAL = [(document, question) for document in range(10) for question in range(6)]
INTERLEAVED = [(document, question) for question in range(6) for document in range(10)]
SHUFFLED = random.Random(1).sample(NATURAL, len(NATURAL))
ORDERS = pytest.mark.parametrize("order", [NATURAL, INTERLEAVED, SHUFFLED], ids=["natural", "interleaved", "shuffled"])


def texts(order: list[tuple[int, int]], header: str = "") -> list[str]:
    return [header + DOCUMENTS[document] + QUESTIONS[question] for document, question in order]


def by_document(order: list[tuple[int, int]]) -> list[list[int]]:
    """Return the ordinals of each document's questions, in the order of their first ones."""
    firsts = dict.fromkeys(document for document, _ in order)
    return [[place for place, item in enumerate(order) if item[0] == document] for document in firsts]


@ORDERS
def test_questions_to_one_document_are_a_lane(order: list[tuple[int, int]]) -> None:
    lanes = found(map(prompt, texts(order)))

    assert lanes is not None
    assert groups(lanes) == by_document(order)
    for place, ordinals in enumerate(groups(lanes)):
        assert len(DOCUMENTS[order[ordinals[0]][0]]) - 512 < lanes.shared[place] < 2400


@ORDERS
@pytest.mark.parametrize("header", [40, 511, 512, 3000, 20_000])
def test_beginning_of_all_requests_makes_no_lane_and_hides_none(order: list[tuple[int, int]], header: int) -> None:
    lanes = found(map(prompt, texts(order, words(header))))

    assert lanes is not None
    assert groups(lanes) == by_document(order)
    assert max(lanes.shared) < 2400


def test_one_line_without_the_header_does_not_make_one_lane_of_the_others() -> None:
    lanes = found(map(prompt, [*texts(SHUFFLED, words(6000)), words(900)]))

    assert groups(lanes) == by_document(SHUFFLED)


def test_documents_are_known_again_after_a_line_without_the_header() -> None:
    first = texts(INTERLEAVED[:30], header := words(6000))

    lanes = found(map(prompt, [*first, words(900), *texts(INTERLEAVED[30:], header)]))

    assert [len(ordinals) for ordinals in groups(lanes)] == [6] * 10


def test_one_document_or_nothing_in_common_makes_no_lane() -> None:
    assert found(prompt(DOCUMENTS[0] + question) for question in QUESTIONS) is None
    assert found(map(prompt, DOCUMENTS)) is None
    assert found(prompt(text[:500]) for text in texts(NATURAL)) is None
    assert found([]) is None


def test_short_beginning_is_not_worth_a_lane() -> None:
    headers = [words(380) for _ in range(20)]

    assert found(prompt(header + words(900)) for header in headers for _ in range(5)) is None


def test_answers_of_one_line_are_a_lane() -> None:
    assert groups(found(map(prompt, DOCUMENTS), answers=3)) == [[3 * n, 3 * n + 1, 3 * n + 2] for n in range(10)]


def test_requests_of_two_models_share_no_lane() -> None:
    lanes = found(map(prompt, [text for text in texts(NATURAL) for _ in range(2)]), signatures=[0, 1] * 60)

    assert len(groups(lanes)) == 20
    assert all(len({ordinal % 2 for ordinal in ordinals}) == 1 for ordinals in groups(lanes))


def test_lane_is_divided_where_its_requests_have_two_context_lengths() -> None:
    finder = PrefixFinder()
    for ordinal, text in enumerate(texts(NATURAL)):
        finder.take(prompt(text), 0, ordinal)
    column = bytes(ordinal % 3 == 0 for ordinal in range(60))

    lanes = choose_lanes(finder.finish(), 60, column)

    assert groups(lanes)[:2] == [[0, 3], [1, 2, 4, 5]]
    assert len(groups(lanes)) == 20


def test_turns_of_a_conversation_follow_each_other_in_one_lane() -> None:
    turns = [words(900) for _ in range(8)]
    conversations = ["".join(turns[: number + 1]) for number in range(8)]

    assert groups(found(map(prompt, [*DOCUMENTS, *conversations]))) == [list(range(10, 18))]


def test_documents_below_two_long_headers_are_lanes_where_there_are_many_requests_of_each() -> None:
    headers = [words(4000), words(4000)]
    order = [(number % 2, number) for number in range(40) for _ in range(6)]
    documents = [words(3000) for _ in range(40)]

    lanes = found(prompt(headers[header] + documents[document] + words(50)) for header, document in order)

    assert groups(lanes) == [list(range(start, start + 6)) for start in range(0, 240, 6)]


def test_requests_that_are_not_looked_at_are_in_no_lane() -> None:
    finder = PrefixFinder()
    for place, text in enumerate(texts(NATURAL)):
        finder.take(prompt(text), 0, 5 * place + 2)

    lanes = choose_lanes(finder.finish(), 305)

    assert lanes is not None
    assert len(lanes.numbers) == 305
    assert groups(lanes)[0] == [2, 7, 12, 17, 22, 27]


def test_groups_are_found_where_no_text_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_finder, "KEPT_CHARACTERS", 1)

    assert groups(found(map(prompt, texts(INTERLEAVED)))) == by_document(INTERLEAVED)


def chat(*messages: tuple[str, str], **fields: object) -> Request:
    return Request(
        line=1,
        id=1,
        prompt=messages[-1][1],
        messages=[{"role": role, "content": content} for role, content in messages],
        **fields,  # type: ignore[arg-type]
    )


def test_own_system_messages_tools_and_pictures_are_what_requests_share() -> None:
    systems = [words(3000), words(3000), words(3000)]
    tools = [[{"function": {"name": "find", "description": words(2000)}}] for _ in range(2)]
    pictures = [words(5000), words(5000)]
    requests = [
        *(chat(("system", systems[number % 3]), ("user", words(700))) for number in range(12)),
        *(chat(("user", words(700)), system=systems[number % 3]) for number in range(12)),
        *(chat(("user", words(700)), tools=tools[number % 2]) for number in range(8)),
        *(
            Request(line=1, id=1, prompt="?", messages=[{"role": "user", "content": words(60), "images": [picture]}])
            for picture in pictures * 3
        ),
    ]

    lanes = groups(found(requests))

    assert sorted(map(len, lanes)) == [3, 3, 4, 4, 8, 8, 8]
    assert lanes[0] == [0, 3, 6, 9, 12, 15, 18, 21]
    assert lanes[-1] == [33, 35, 37]
