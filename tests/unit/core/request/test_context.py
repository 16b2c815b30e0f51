"""Which context a request needs by its text, and which lengths a job gets for all of them."""

from __future__ import annotations

from typing import Any

import pytest

from obcd.core.request.context import (
    DOUBT,
    IMAGE_TOKENS,
    LEAST,
    MESSAGE_TOKENS,
    REQUEST_TOKENS,
    SAMPLE,
    TOOLS_TOKENS,
    ContextPlan,
    Gauge,
    text_tokens,
)
from obcd.core.request.records import JobSettings, Request, Signature
from obcd.errors import TooLongError
from tests.golden.wording import wording

MOST = 32768
AROUND = REQUEST_TOKENS + MESSAGE_TOKENS


def settings(**changes: Any) -> JobSettings:
    values: dict[str, Any] = {"model": "m", "num_ctx": MOST, "num_ctx_max": MOST, "num_predict": 100, **changes}
    return JobSettings(**values)


def request(content: str, **changes: Any) -> Request:
    values = {"messages": [{"role": "user", "content": content}], **changes}
    return Request(line=1, id=1, prompt=content, **values)


def step(found: Request, size: int = 2**20, **changes: Any) -> int:
    """Return the length that a request needs; by its text, not by the bytes of its line."""
    return Gauge(settings(**changes)).step(found, size)


class TestEstimate:
    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("", 0),
            ("abc", 1),
            ("abcd", 2),
            ("a b c ", 2),
            ("1234567890", 10),
            ('{"a": 1}', 7),
            ("жук", 2),
            ("東京", 3),
            ("😀", 3),
            ("\ud83d", 2),  # half a pair, as JSON may hold it
        ],
    )
    def test_tokens_are_counted_by_the_kind_of_character(self, text: str, tokens: int) -> None:
        assert text_tokens(text) == tokens

    @pytest.mark.parametrize(
        "text", ["plain words and 12 numbers, ", "東京 and words ", "Größe ", "東京語", "жук", "😀", "0123456789"]
    )
    def test_long_text_is_estimated_by_a_sample_as_well_as_by_all_of_it(self, text: str) -> None:
        count = 40 * SAMPLE // len(text)

        assert text_tokens(text * count) == pytest.approx(count * text_tokens(text * 30) / 30, rel=0.03)

    def test_all_that_is_sent_counts(self) -> None:
        gauge = Gauge(settings(system="s" * 300))
        tools = [{"type": "function"}]

        plain = gauge.prompt_tokens(request("p" * 30))
        assert plain == REQUEST_TOKENS + (MESSAGE_TOKENS + 100) + (MESSAGE_TOKENS + 10)
        assert gauge.prompt_tokens(request("p" * 30, system="s" * 3)) == plain - 99
        assert gauge.prompt_tokens(request("p" * 30, system="")) == plain - 100
        assert gauge.prompt_tokens(request("p" * 30, tools=tools)) == plain + TOOLS_TOKENS + 14
        picture = [{"role": "user", "content": "p" * 30, "images": ["A" * 4000, "B"]}]
        assert gauge.prompt_tokens(request("p", messages=picture)) == plain + 2 * IMAGE_TOKENS
        called = [{"role": "assistant", "content": "p" * 30, "tool_calls": [{"a": 1}]}]
        assert gauge.prompt_tokens(request("p", messages=called)) > plain + 10

    def test_system_message_of_the_line_takes_the_place_of_the_jobs(self) -> None:
        own = [{"role": "system", "content": "s" * 3}, {"role": "user", "content": "p" * 3}]

        assert Gauge(settings(system="s" * 300)).prompt_tokens(request("p", messages=own)) == (
            REQUEST_TOKENS + 2 * (MESSAGE_TOKENS + 1)
        )


class TestStep:
    def test_length_is_the_least_power_of_two_that_holds_prompt_and_answer(self) -> None:
        free = 2 * LEAST - AROUND - 100

        assert step(request("")) == LEAST
        assert step(request("1" * (free - LEAST))) == LEAST
        assert step(request("1" * (free - LEAST + 1))) == 2 * LEAST
        assert step(request("1" * free)) == 2 * LEAST
        assert step(request("1" * (free + 1))) == 4 * LEAST

    def test_answer_counts_as_the_line_wishes_it(self) -> None:
        assert step(request("short", options={"num_predict": 5000})) == 8192
        assert step(request("short"), num_predict=5000) == 8192

    def test_no_length_is_above_the_longest(self) -> None:
        assert step(request("1" * 5000), num_ctx_max=5000) == 5000
        assert step(request("1"), num_ctx_max=1000) == 1000

    def test_line_that_names_its_own_context_is_not_planned(self) -> None:
        assert step(request("1" * 90_000, options={"num_ctx": 16})) == 0

    def test_short_line_needs_no_estimate(self) -> None:
        free = LEAST - AROUND - 100

        assert step(request("?" * 9000), size=free) == LEAST
        assert step(request("?" * 9000), size=free + 1) == 16384
        for wish in ({"options": {"num_predict": 9000}}, {"system": "1" * 9000}, {"tools": [{"a": "1" * 9000}]}):
            assert step(request("", **wish), size=1) == 16384

    def test_what_is_too_long_by_far_is_refused_with_its_tokens(self) -> None:
        most = 4096
        free = DOUBT * most - AROUND

        assert step(request("1" * free), num_ctx_max=most) == most
        with pytest.raises(TooLongError) as caught:
            step(request("1" * (free + 1)), num_ctx_max=most)
        assert str(caught.value) == (wording("too-long-its-prompt-has-about"))


class TestPlan:
    @pytest.mark.parametrize(
        ("counts", "lengths", "outliers"),
        [
            ({2048: 1}, (2048, 4096), 0),
            ({2048: 99, 16384: 1}, (2048, 16384), 1),
            ({2048: 98, 16384: 2}, (16384, 32768), 0),
            ({2048: 9912, 4096: 12, 16384: 76}, (2048, 16384), 88),
            ({2048: 9000, 4096: 912, 8192: 12, 16384: 76}, (4096, 16384), 88),
            ({2048: 1, 32768: 1}, (2048, 32768), 1),
            ({32768: 5}, (32768, 32768), 0),
            ({16384: 5}, (16384, 32768), 0),
            ({2048: 200, 32768: 2}, (2048, 32768), 2),
        ],
    )
    def test_all_but_the_longest_percent_share_a_context(
        self, counts: dict[int, int], lengths: tuple[int, int], outliers: int
    ) -> None:
        plan = ContextPlan.of(counts, MOST)

        assert plan is not None
        assert (plan.num_ctx, plan.larger) == lengths
        assert (plan.requests, plan.outliers) == (sum(counts.values()) - outliers, outliers)
        for needed in counts:
            assert plan.length(needed) >= needed

    def test_nothing_to_plan_is_no_plan(self) -> None:
        assert ContextPlan.of({}, MOST) is None

    def test_larger_one_belongs_to_the_same_model_and_options(self) -> None:
        plan = ContextPlan(num_ctx=2048, larger=8192, requests=1, outliers=0)
        signatures = [
            Signature("a", (("num_ctx", 2048),)),
            Signature("b", (("num_ctx", 2048), ("num_gpu", 1))),
            Signature("b", (("num_ctx", 8192), ("num_gpu", 1))),
            Signature("a", (("num_ctx", 8192),)),
            Signature("c", (("num_ctx", 2048),)),
            Signature("d", (("num_ctx", 512),)),
        ]

        assert plan.larger_numbers(signatures) == {0: 3, 1: 2}

    def test_plan_without_a_larger_one_has_none(self) -> None:
        plan = ContextPlan(num_ctx=2048, larger=2048, requests=1, outliers=0)

        assert plan.larger_numbers([Signature("a", (("num_ctx", 2048),))]) == {}

    def test_plan_is_told_in_one_line(self) -> None:
        assert ContextPlan(num_ctx=4096, larger=16384, requests=9912, outliers=88).describe() == (
            "num_ctx 4096 for 9912 requests, 16384 for 88"
        )
        assert ContextPlan(num_ctx=4096, larger=8192, requests=1, outliers=0).describe() == "num_ctx 4096 for 1 request"
