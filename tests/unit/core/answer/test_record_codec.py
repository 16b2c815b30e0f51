"""Results on disk: read as they were written, whoever wrote them, or refused with one error."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from obcd.core.answer import record_codec
from obcd.core.answer.counts import Counts
from obcd.core.answer.outcomes import NOT_PARSED, Cost, Failure, KeptAnswer, ModelAnswer, Response, Result
from obcd.core.answer.record_codec import (
    decode,
    decode_answer,
    decode_counts,
    encode,
    encode_answer,
    failure_line,
    ordinal_of,
    response_line,
    to_ascii,
)
from obcd.errors import RecordError

COST = Cost(1.25, 0.5, 0.25, 1.0, 0.125, prompt_tokens=3, eval_tokens=7)
PLAIN = ModelAnswer(text="So \ud800.", model="m", done_reason="stop", cost=COST, finished=100.25)
FULL = PLAIN._replace(
    thinking="Hm.",
    tool_calls=[{"function": {"name": "f"}}],
    logprobs=[{"token": "So"}],
    parsed=None,
    is_mended=True,
    repairs=2,
)
READ_FROM_CACHE = PLAIN._replace(cost=COST._replace(cached_tokens=2))
VECTORS = ModelAnswer(embeddings=[[0.5, -1.0]], model="m", cost=COST, finished=100.25)


def response(answer: ModelAnswer, **more: Any) -> Response:
    return Response(ordinal=12, line=14, attempts=2, endpoint="gpu0", answer=answer, **more)


FAILED = Failure(ordinal=3, line=4, kind="timeout", message="no answer", attempts=4, endpoint="gpu0")
KEPT = KeptAnswer(text="no", cost=COST, tool_calls=[1], thinking="Hm.", repairs=2)
RESULTS = [
    response(PLAIN),
    response(FULL, is_cached=True, seed=7, is_hedged=True, weights=("m:latest", "a80c4f17acd5")),
    response(FULL._replace(thought_aloud=True)),
    response(FULL._replace(raw="So: null")),
    response(PLAIN._replace(text=" \n")),
    response(PLAIN._replace(text="<think>Hm.</think>")),
    response(VECTORS),
    response(READ_FROM_CACHE),
    response(PLAIN._replace(cost=COST._replace(cached_tokens=0))),
    FAILED,
    Failure(ordinal=0, line=1, kind="bad_line", message="no"),
]


@pytest.mark.parametrize("result", RESULTS)
def test_record_is_read_as_it_was_written_and_begins_with_its_ordinal(result: Result) -> None:
    record = encode(result)

    assert decode(record) == result
    assert record.startswith(b'{"ordinal":%d,' % result.ordinal)
    assert encode(decode(record)) == record


@pytest.mark.parametrize(
    "result",
    [
        *RESULTS,
        replace(FAILED, kept=KEPT),
        replace(FAILED, kept=replace(KEPT, cost=READ_FROM_CACHE.cost)),
    ],
)
def test_counts_of_a_record_are_those_of_its_result(result: Result) -> None:
    weights = result.weights if isinstance(result, Response) else None

    kind = "" if isinstance(result, Response) else result.kind
    assert decode_counts(encode(result)) == (result.ordinal, Counts.of(result), weights, kind)


def test_failure_keeps_of_its_answer_what_it_cost_as_a_whole() -> None:
    kept = replace(KEPT, cost=Cost(1.25, wait_seconds=0.125, prompt_tokens=3, eval_tokens=7, is_divided=False))

    assert decode(encode(replace(FAILED, kept=KEPT))) == replace(FAILED, kept=kept)


def test_result_for_an_equal_request_read_nothing_from_a_prefix_cache() -> None:
    results = (response(READ_FROM_CACHE), replace(FAILED, kept=replace(KEPT, cost=READ_FROM_CACHE.cost)))

    for result in results:
        counts = Counts.of(result)
        repeated = Counts.of(result.repeated(13, 15))
        shared = counts.times(3)
        assert (counts.evaluated_tokens, counts.cached_tokens) == (1, 2)
        assert (repeated.evaluated_tokens, repeated.cached_tokens, repeated.prompt_tokens) == (0, 0, 3)
        assert (shared.evaluated_tokens, shared.cached_tokens, shared.prompt_tokens) == (1, 2, 9)


@pytest.mark.parametrize(
    ("costs", "cached"),
    [
        ([Cost(prompt_tokens=3, cached_tokens=2), Cost(prompt_tokens=4, cached_tokens=0)], 2),
        ([Cost(prompt_tokens=3, cached_tokens=2), Cost(prompt_tokens=4)], None),  # two servers, one of an old version
        ([Cost(prompt_tokens=3, cached_tokens=2), Cost(seconds=1.0)], 2),  # a reply without any count
        ([Cost(), Cost()], None),
    ],
)
def test_cached_tokens_of_several_attempts_are_known_if_those_of_each_are(
    costs: list[Cost], cached: int | None
) -> None:
    assert Cost.total(costs).cached_tokens == cached


@pytest.mark.parametrize("answer", [PLAIN, FULL, FULL._replace(thought_aloud=True), VECTORS, READ_FROM_CACHE])
def test_answer_of_the_cache_is_read_as_it_was_written(answer: ModelAnswer) -> None:
    assert decode_answer(encode_answer(answer)) == answer


def test_what_another_version_adds_to_an_answer_is_kept_and_published() -> None:
    document = {**json.loads(encode(response(PLAIN))), "mood": "good"}

    found = decode(to_ascii(document))

    assert isinstance(found, Response)
    assert json.loads(encode(found)) == document
    assert response_line(found, 7, "Why?")["mood"] == "good"


def test_what_an_earlier_version_did_not_tell_is_not_made_up() -> None:
    times = ("load_seconds", "prompt_eval_seconds", "eval_seconds", "wait_seconds")
    document = {key: value for key, value in json.loads(encode(response(PLAIN))).items() if key not in times}

    assert json.loads(encode(decode(to_ascii(document)))) == document


def test_ordinal_is_read_from_the_beginning_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_codec, "decode", None)

    assert ordinal_of(b'{"ordinal":12,"line":') == 12


@pytest.mark.parametrize("place", [1, 3, -1])
def test_ordinal_that_stands_elsewhere_is_found_too(place: int) -> None:
    """An earlier version began the record of a failure with the answer that would not do."""
    items = list(json.loads(encode(replace(FAILED, kept=KEPT))).items())
    items.insert(place, items.pop(0))

    assert ordinal_of(to_ascii(dict(items))) == 3


def test_text_of_an_answer_that_looks_like_a_record_is_not_taken_for_one() -> None:
    answer = PLAIN._replace(text='{"ordinal":99,')

    assert ordinal_of(encode(response(answer))) == 12
    assert ordinal_of(encode_old(replace(FAILED, kept=replace(KEPT, text='{"ordinal":99,')))) == 3


def encode_old(failure: Failure) -> bytes:
    document = json.loads(encode(failure))
    return to_ascii({"response": document.pop("response"), **document})


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"7",
        b"{}",
        b'{"ordinal":1}',
        b'{"ordinal":1,"line":1,"outcome":"response"}',
        b'{"ordinal":1,"line":1,"outcome":"failure"}',
        b'{"ordinal": 1' + b"[" * 100_000,
    ],
)
def test_damaged_record_is_one_error(record: bytes) -> None:
    for read in (decode, decode_answer):
        with pytest.raises(RecordError):
            read(record)


def test_line_tells_what_people_need_of_a_response_in_its_order() -> None:
    several = (response(PLAIN, seed=7), response(PLAIN, seed=8))
    line = response_line(response(FULL, weights=("m", "a"), same_as=2, responses=several), "own", "Why?")

    assert list(line) == [
        *("id", "line", "prompt", "response", "attempts", "endpoint", "model", "done_reason"),
        *("seconds", "load_seconds", "prompt_eval_seconds", "eval_seconds", "wait_seconds"),
        *("prompt_tokens", "eval_tokens", "thinking", "tool_calls", "logprobs", "parsed", "mended", "repairs"),
        *("same_as", "finished_at", "responses"),
    ]
    shown: Any = line["responses"]
    assert [answer["seed"] for answer in shown] == [7, 8]
    assert not any({"line", "id", "ordinal", "finished", "weights"} & answer.keys() for answer in shown)


def test_line_tells_what_people_need_of_a_failure_in_its_order() -> None:
    line = failure_line(replace(FAILED, kept=KEPT, same_as=2, responses=(response(PLAIN),)), "own")

    assert list(line) == [
        *("line", "id", "class", "message", "attempts", "endpoint", "response", "tool_calls", "thinking", "repairs"),
        *("seconds", "prompt_tokens", "eval_tokens", "wait_seconds", "same_as", "responses"),
    ]
    assert list(failure_line(replace(FAILED, endpoint=""), 4)) == ["line", "id", "class", "message", "attempts"]


def test_counts_are_those_of_the_result() -> None:
    cut = FULL._replace(done_reason="length")
    evaluating: dict[str, Any] = {"prompt_eval_seconds": 0.25}
    costs: dict[str, Any] = {"prompt_tokens": 3, "eval_tokens": 7, "work_seconds": 1.125, "wait_seconds": 0.125}

    assert Counts.of(response(PLAIN)) == Counts(responses=1, **costs, **evaluating)
    assert Counts.of(response(cut, is_cached=True, same_as=1)) == Counts(
        responses=1, cut_short=1, repairs=2, cached=1, same=1, **costs, **evaluating
    )
    assert Counts.of(FAILED) == Counts(failures=1)
    assert Counts.of(replace(FAILED, kept=KEPT, same_as=1)) == Counts(failures=1, repairs=2, same=1, **costs)


def test_null_is_a_value_and_none_is_not() -> None:
    assert "parsed" in response_line(response(PLAIN._replace(parsed=None)), 1, "")
    assert "parsed" not in response_line(response(PLAIN._replace(parsed=NOT_PARSED)), 1, "")


def test_tokens_of_a_call_count_once_whatever_shares_its_first_response() -> None:
    cost = Cost(0.5, prompt_eval_seconds=0.4, wait_seconds=0.1, prompt_tokens=640)
    first = Response(0, 1, 1, "a", ModelAnswer(embeddings=[[1.0]], model="m", cost=cost, finished=1.0, group_size=64))
    record = encode(first)

    assert decode(record) == first
    counts = decode_counts(record)[1]
    assert counts == Counts.of(first)
    shared, total = counts.times(3), Counts.of(first)
    for line in (2, 3):  # as publishing adds them up
        total.add(Counts.of(first.repeated(line - 1, line)))
    assert shared == total
    assert (total.prompt_tokens, total.grouped, total.same) == (640, 3, 2)
