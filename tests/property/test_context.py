"""Contexts by estimate: no text has more tokens than bytes, and every request fits into what its job gives it."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from obcd.core.request.context import OUTLIERS, ContextPlan, Gauge, text_tokens
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, whole_option
from obcd.errors import TooLongError

texts = st.text(max_size=40) | st.builds(str.__mul__, st.text(min_size=1, max_size=5), st.integers(1, 20_000))
lines = st.fixed_dictionaries(
    {"prompt": texts.filter(str.strip)},
    optional={
        "system": texts,
        "options": st.fixed_dictionaries({"num_predict": st.integers(1, 60_000)}),
        "images": st.just(["aGVsbG8="]),
    },
)


@given(texts)
def test_text_has_no_more_tokens_than_bytes_and_at_least_a_third(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))

    assert size / 3 <= text_tokens(text) <= size


@given(st.lists(lines, max_size=30), st.sampled_from([1000, 2048, 16384, 20_000, 131_072]), st.booleans())
def test_every_request_fits_by_the_estimate_and_few_are_left_to_a_larger_context(
    documents: list[dict[str, object]], most: int, escaped: bool
) -> None:
    gauge = Gauge(JobSettings(model="m", system="Be brief.", num_ctx=most, num_ctx_max=most, num_predict=300))
    needs: list[tuple[int, int]] = []
    for document in documents:
        raw = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
        request = parse_line(json.dumps(document).encode(), 1)
        try:
            step = gauge.step(request, len(raw))
        except TooLongError:
            assert gauge.prompt_tokens(request) > most
            continue
        tokens = gauge.prompt_tokens(request) + whole_option(request.options, "num_predict", 300)
        assert step >= tokens or step == most
        needs.append((step, tokens))

    plan = ContextPlan.of(Counter(step for step, _ in needs), most)

    if plan is None:
        assert needs == []
        return
    assert plan.requests + plan.outliers == len(needs)
    assert plan.outliers <= -(-len(needs) // OUTLIERS)
    assert sum(plan.length(step) == plan.num_ctx for step, _ in needs) in (plan.requests, len(needs))
    for step, tokens in needs:
        assert most >= plan.length(step) >= min(tokens, most)
