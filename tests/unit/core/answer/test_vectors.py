"""What is a reply of vectors, and what only looks like one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.answer.outcomes import ModelAnswer, Response
from obcd.core.answer.record_codec import decode, encode, response_line, to_ascii
from obcd.core.answer.vectors import VectorsJson, parse_with_vectors, read_vectors, why_no_vectors
from obcd.errors import LineError
from tests.golden.wording import wording


@pytest.mark.parametrize("found", [[[0.6, -0.8]], [[1, 0], [0.0, 1e-40]]])
def test_vectors_of_finite_numbers_are_taken(found: list[list[float]]) -> None:
    assert why_no_vectors(found, len(found)) == ""


@pytest.mark.parametrize(
    ("found", "count", "sentence"),
    [
        (None, 1, wording("the-reply-holds-no-vectors")),
        ({}, 1, wording("the-reply-holds-no-vectors")),
        ([0.6, 0.8], 2, wording("the-reply-holds-no-vectors")),
        ([], 1, wording("the-reply-holds-0-vectors-where")),
        ([[1.0]], 2, wording("the-reply-holds-1-vectors-where")),
        ([[1.0], [1.0, 2.0]], 2, wording("the-reply-holds-vectors-of-different")),
        ([[], []], 2, wording("the-reply-holds-a-vector-without")),
        ([[1.0], [0.0]], 2, wording("the-reply-holds-a-vector-of")),
        ([[1.0, None]], 1, wording("the-reply-holds-a-vector-with")),
        ([[1.0, True]], 1, wording("the-reply-holds-a-vector-with")),
        ([[1.0, float("nan")]], 1, wording("the-reply-holds-a-vector-with")),
        ([[1, 10**400]], 1, wording("the-reply-holds-a-vector-with")),
        ([[1.0, float("inf")]], 1, wording("the-reply-holds-a-vector-with")),
    ],
)
def test_what_is_no_vectors_is_told_in_a_sentence(found: Any, count: int, sentence: str) -> None:
    assert why_no_vectors(found, count) == sentence


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_reply_that_is_no_object_of_finite_numbers_is_refused(body: bytes) -> None:
    with pytest.raises(LineError):
        read_vectors(body)


def test_numbers_come_through_as_they_were_written() -> None:
    assert read_vectors(b'{"embeddings": [[0.012345679, -1e-7]]}') == {"embeddings": [[0.012345679, -1e-7]]}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","embeddings":[[0.1,-2e-05],[1,1E+2]],"total_duration":5}',
        b'{"embeddings":[[1.0]]}',
        b'{"embeddings":[[]]}',
        b'{"embeddings":[[],[1.0]]}',
        b'{"embeddings":[]}',
        b'{"embeddings":[[[1.0]]]}',
        b'{"embeddings":[[1],2,[3]]}',
        b'{"embeddings":[[1.0],[[2.0]],[3.0]]}',
        b'{"embeddings":[[1.0,[2.0],3.0]]}',
        b'{"embeddings":[[1.0]],"embeddings":null}',
        b'{"embeddings":null,"embeddings":[[1.0]]}',
        b'{"other":{"embeddings":[[1.0]]},"embeddings":[[2.0]]}',
        b'{"other":{"embeddings":[[1.0]]}}',
        b'{"text":"\\"embeddings\\":[[1.0]]"}',
        b'{"embeddings":[[ 1.0 ]]}',
        b'{"embeddings":[["1.0"]]}',
        b'{"embeddings":[[1e999]]}',
        b'[{"embeddings":[[1.0]]}]',
    ],
    ids=bytes.decode,
)
def test_what_is_read_is_what_json_has_and_what_is_written_says_the_same(body: bytes) -> None:
    expected = json.loads(body)

    found = parse_with_vectors(body)

    assert found == expected
    if isinstance(found, dict):
        assert json.loads(to_ascii(found)) == expected
        if isinstance(expected.get("embeddings"), list) and isinstance(found["embeddings"], VectorsJson):
            why = why_no_vectors(expected["embeddings"], 2)
            assert why_no_vectors(found["embeddings"], 2) == why
            assert why or len(found["embeddings"]) == 2


@pytest.mark.parametrize("numbers", ["01", "1.", "--1", "1,,2", "+1", "e5", "1,", "1]", "[1"])
def test_vectors_that_are_not_json_are_refused(numbers: str) -> None:
    with pytest.raises(LineError):
        read_vectors(f'{{"embeddings":[[{numbers}]]}}'.encode())


def test_json_of_a_vector_goes_through_as_the_server_wrote_it() -> None:
    document = read_vectors(b'{"model":"m","embeddings":[[1e-7,0.10],[-0.0,2]],"prompt_eval_count":3}')
    vectors = document["embeddings"]
    assert isinstance(vectors, VectorsJson)

    response = Response(0, 1, 1, "a", ModelAnswer(embeddings=vectors.part(1, 2), model="m"))
    record = encode(response)
    again = decode(record)

    assert b'"endpoint":"a","embeddings":[[-0.0,2]],"model":"m",' in record
    assert isinstance(again, Response)
    assert isinstance(again.answer.embeddings, VectorsJson)
    assert encode(again) == record
    assert again == response
    assert b'[[-0.0,2]]' in to_ascii(response_line(again, "x", "text"))  # fmt: skip
