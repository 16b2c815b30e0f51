"""What is a reply of vectors, and what only looks like one."""

from __future__ import annotations

from typing import Any

import pytest

from obcd.core.answer.vectors import read_vectors, why_no_vectors
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
