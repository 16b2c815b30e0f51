"""Limits of one submitter: what is over them waits, and the sentence says for what."""

from __future__ import annotations

import pytest

from obcd.core.user_limits import NOTHING, UserLimits, UserUsage, why_too_large, why_too_much
from tests.golden.wording import wording

GIB = 2**30


@pytest.mark.parametrize(
    ("size", "held", "limits", "says"),
    [
        (GIB, UserUsage(1000, 1000 * GIB), UserLimits(), ""),
        (1, UserUsage(4, 4), UserLimits(jobs=5), ""),
        (1, UserUsage(5, 5), UserLimits(jobs=5), wording("may-have-5-jobs-under-way")),
        (1, UserUsage(9, 9), UserLimits(jobs=1), wording("may-have-a-job-under-way")),
        (GIB, UserUsage(1, GIB), UserLimits(bytes=2 * GIB), ""),
        (GIB + 1, UserUsage(1, GIB), UserLimits(bytes=2 * GIB), wording("may-have-2-gib-under-way")),
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
        (GIB + GIB // 2, GIB, wording("it-has-1-5-gib-and")),
        (1025, 1024, wording("it-has-1-0-kib-and")),
    ],
)
def test_too_large_is_what_exceeds_the_limit_of_a_file(size: int, limit: int, says: str) -> None:
    why = why_too_large(size, UserLimits(file_bytes=limit))

    assert (says in why) if says else (why == "")
