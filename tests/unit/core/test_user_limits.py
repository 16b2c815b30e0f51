"""Limits of one submitter: what is over them waits, and the sentence says for what."""

from __future__ import annotations

import pytest

from obcd.core.user_limits import NOTHING, UserLimits, UserUsage, why_too_large, why_too_much

GIB = 2**30


@pytest.mark.parametrize(
    ("size", "held", "limits", "says"),
    [
        (GIB, UserUsage(1000, 1000 * GIB), UserLimits(), ""),
        (1, UserUsage(4, 4), UserLimits(jobs=5), ""),
        (1, UserUsage(5, 5), UserLimits(jobs=5), "may have 5 jobs under way ([spool] user_jobs)"),
        (1, UserUsage(9, 9), UserLimits(jobs=1), "may have a job under way ([spool] user_jobs)"),
        (GIB, UserUsage(1, GIB), UserLimits(bytes=2 * GIB), ""),
        (GIB + 1, UserUsage(1, GIB), UserLimits(bytes=2 * GIB), "may have 2 GiB under way ([spool] user_bytes)"),
        (9 * GIB, NOTHING, UserLimits(bytes=2 * GIB), ""),  # it would wait for ever
    ],
)
def test_too_much_is_what_exceeds_a_limit(size: int, held: UserUsage, limits: UserLimits, says: str) -> None:
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
    why = why_too_large(size, UserLimits(file_bytes=limit))

    assert (says in why) if says else (why == "")
