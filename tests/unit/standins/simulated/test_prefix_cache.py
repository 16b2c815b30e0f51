"""The prefix cache: the order of requests decides what is evaluated, by the rules of v0.24 and v0.33 (contract 9.1)."""

from __future__ import annotations

from itertools import product, takewhile
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obcd.standins.simulated.prefix_cache import PrefixCache, SlotHold, shared_length

DOCUMENTS = [f"{number:04} " + f"document {number} " * 130 for number in range(10)]
QUESTIONS = [f"question {number} " * 3 for number in range(6)]
IN_ORDER = list(product(range(10), range(6)))
ACROSS = [(document, question) for question in range(6) for document in range(10)]


def tokens_of(text: str) -> int:
    return (len(text) + 3) // 4


def take(cache: PrefixCache, prompt: str) -> SlotHold:
    return cache.take(prompt, tokens_of(prompt))


def answer(cache: PrefixCache, prompt: str) -> int:
    """Answer one prompt alone; return how many of its tokens came from the cache."""
    hold = take(cache, prompt)
    hold.keep_answer("the answer", 3)
    hold.release()
    return hold.cached_tokens


def full_evaluations(cache: PrefixCache, order: list[tuple[int, int]], in_flight: int) -> int:
    """Return how many prompts were evaluated in full, with so many in flight, each as long as the others."""
    full = 0
    holds: list[SlotHold] = []
    for document, question in order:
        if len(holds) == in_flight:
            done = holds.pop(0)
            done.keep_prompt()
            done.release()
        holds.append(take(cache, DOCUMENTS[document] + QUESTIONS[question]))
        full += holds[-1].cached_tokens < 100
    return full


def cache_of(kind: str) -> PrefixCache:
    return PrefixCache(4, 50_000 if kind == "memory" else 0)


@pytest.mark.parametrize(
    ("order", "in_flight", "slots", "memory"),
    [
        (IN_ORDER, 1, 10, 10),  # one after another: each document once
        (IN_ORDER, 4, 40, 40),  # as people write it: four of six questions are in flight with one like them
        (ACROSS, 4, 60, 10),  # one question of every document: only the host's memory still knows them
    ],
)
def test_order_decides_as_on_real_servers(
    order: list[tuple[int, int]], in_flight: int, slots: int, memory: int
) -> None:
    assert full_evaluations(cache_of("slots"), order, in_flight) == slots
    assert full_evaluations(cache_of("memory"), order, in_flight) == memory


def test_shuffled_order_is_between_them_in_the_slots_and_near_the_best_in_the_memory() -> None:
    order = sorted(IN_ORDER, key=lambda pair: crc32(str(pair).encode()))

    assert 40 < full_evaluations(cache_of("slots"), order, 4) < 60
    assert 10 <= full_evaluations(cache_of("memory"), order, 4) < 30


@pytest.mark.parametrize("kind", ["slots", "memory"])
def test_lanes_evaluate_each_document_once(kind: str) -> None:
    lanes = [(first + lane, question) for first in (0, 4) for question in range(6) for lane in range(4)]

    assert full_evaluations(cache_of(kind), lanes, 4) == 8


@pytest.mark.parametrize("kind", ["slots", "memory"])
def test_same_prompt_again_evaluates_its_last_token(kind: str) -> None:
    cache, prompt = cache_of(kind), DOCUMENTS[0]

    assert answer(cache, prompt) == 0
    assert answer(cache, prompt) == tokens_of(prompt) - 1


@pytest.mark.parametrize("kind", ["slots", "memory"])
def test_answer_is_remembered_behind_its_prompt(kind: str) -> None:
    cache, prompt = cache_of(kind), DOCUMENTS[0]
    answer(cache, prompt)

    assert answer(cache, prompt + "the answer" + "x" * 400) == pytest.approx(tokens_of(prompt + "the answer"), abs=2)


def test_slots_overwrite_the_first_free_one_and_memory_the_oldest() -> None:
    first = {}
    for kind in ("slots", "memory"):
        cache = cache_of(kind)
        answer(cache, "a" * 400)
        answer(cache, "b" * 400)
        first[kind] = answer(cache, "a" * 400)

    assert first == {"slots": 0, "memory": 99}


def test_prompt_that_shares_a_little_does_not_evict_a_slot() -> None:
    cache = cache_of("memory")
    answer(cache, "a" * 40 + "b" * 360)

    assert answer(cache, "a" * 40 + "c" * 400) == 0  # less than a tenth is alike: another slot
    assert answer(cache, "a" * 40 + "b" * 360) == 99


def test_slot_that_would_lose_most_of_its_prompt_is_saved_first() -> None:
    cache, long = PrefixCache(1, memory_tokens=1000), "a" * 100 + "b" * 900
    answer(cache, long)

    assert answer(cache, "a" * 100 + "c" * 300) == 25
    assert answer(cache, long) == 249


def test_idle_slot_lends_its_prompt_while_it_is_busy_with_another_question() -> None:
    cache, document = PrefixCache(2, memory_tokens=1000), "d" * 400
    answer(cache, document + "one")
    other = take(cache, "e" * 400)  # when it starts, the idle slot is copied to the memory
    second = take(cache, document + "two")
    other.release()

    assert (second.cached_tokens, take(cache, document + "six").cached_tokens) == (100, 100)


def test_cancelled_request_leaves_only_what_was_evaluated() -> None:
    cache = PrefixCache(1)
    answer(cache, "a" * 400)
    take(cache, "a" * 200 + "b" * 200).release()

    assert answer(cache, "a" * 200 + "b" * 200) == 50


def test_memory_of_the_host_is_bounded_and_forgets_the_oldest() -> None:
    cache = PrefixCache(1, memory_tokens=1000)
    prompts = [f"{number:03}" * 400 for number in range(20)]  # 300 tokens each
    for prompt in prompts:
        answer(cache, prompt)
        assert sum(saved.tokens for saved in cache._saved) == cache._saved_tokens <= 1000

    assert answer(cache, prompts[0]) == 0
    assert answer(cache, prompts[-2]) == 299


@given(st.text("ab", max_size=300), st.text("ab", max_size=300), st.text("ab", max_size=300))
def test_shared_length_is_that_of_the_common_prefix(start: str, one: str, other: str) -> None:
    left, right = start * 3 + one, start * 3 + other

    pairs = zip(left, right, strict=False)
    assert shared_length(left, right) == sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
