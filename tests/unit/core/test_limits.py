"""Limits of one submitter: what is over them waits, and the sentence says for what."""

from __future__ import annotations

import pytest

from obcd.core.limits import NOTHING, Held, Limits, why_too_large, why_too_much

GIB = 2**30


@pytest.mark.parametrize(
    ("size", "held", "limits", "says"),
    [
        (GIB, Held(1000, 1000 * GIB), Limits(), ""),
        (1, Held(4, 4), Limits(jobs=5), ""),
        (1, Held(5, 5), Limits(jobs=5), "may have 5 jobs under way ([spool] user_jobs)"),
        (1, Held(9, 9), Limits(jobs=1), "may have a job under way ([spool] user_jobs)"),
        (GIB, Held(1, GIB), Limits(bytes=2 * GIB), ""),
        (GIB + 1, Held(1, GIB), Limits(bytes=2 * GIB), "may have 2 GiB under way ([spool] user_bytes)"),
        (9 * GIB, NOTHING, Limits(bytes=2 * GIB), ""),  # it would wait for ever
    ],
)
def test_too_much_is_what_exceeds_a_limit(size: int, held: Held, limits: Limits, says: str) -> None:
    why = why_too_much(size, held, limits)

    assert (says in why) if says else (why == "")


@pytest.mark.parametrize(
    ("size", "limit", "says"),
    [
        (GIB, 0, ""),
        (GIB, GIB, ""),
        (GIB + GIB // 2, GIB, "it has 1.5 GiB, and a file may have 1 GiB ([spool] max_file_bytes)"),
        (1025, 1024, "it has 1.0 KiB, and a file may have 1 KiB"),
    ],
)
def test_too_large_is_what_exceeds_the_limit_of_a_file(size: int, limit: int, says: str) -> None:
    why = why_too_large(size, Limits(file_bytes=limit))

    assert (says in why) if says else (why == "")
