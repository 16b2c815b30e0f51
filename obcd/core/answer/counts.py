"""What a job's results add up to; the same sums while it runs, after a restart, and in its manifest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from obcd.core.request.records import Outcome


@dataclass(slots=True)
class Counts:
    """Sums over results.

    Attributes:
        cut_short: Responses that ended with `length`.
        repairs: How often was asked again since an answer did not fit its schema, over responses and failures.
        cached: Responses that were computed before, and not asked for again.
        same: Results that are those of an equal request (`dedupe`).
        prompt_tokens, eval_tokens: Tokens read and generated, over responses and the failures that tell of theirs.
        work_seconds: Seconds that requests took at their endpoints, over the same.
    """

    responses: int = 0
    failures: int = 0
    cut_short: int = 0
    repairs: int = 0
    cached: int = 0
    same: int = 0
    prompt_tokens: int = 0
    eval_tokens: int = 0
    work_seconds: float = 0.0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Counts:
        """Return what one record of a ledger adds."""
        has_failed = record["outcome"] == Outcome.FAILURE
        return cls(
            responses=int(not has_failed),
            failures=int(has_failed),
            cut_short=int(not has_failed and record.get("done_reason") == "length"),
            repairs=record.get("repairs", 0),
            cached=int(not has_failed and record.get("cached") is True),
            same=int("same_as" in record),
            prompt_tokens=record.get("prompt_tokens", 0),
            eval_tokens=record.get("eval_tokens", 0),
            work_seconds=record.get("seconds", 0.0),
        )

    @property
    def done(self) -> int:
        """Requests that have their result."""
        return self.responses + self.failures

    def times(self, count: int) -> Counts:
        """Return what as many equal requests add whose result this is; it was computed once."""
        if count == 1:
            return self
        return Counts(
            responses=self.responses * count,
            failures=self.failures * count,
            cut_short=self.cut_short * count,
            repairs=self.repairs * count,
            cached=self.cached * count,
            same=count - 1,
            prompt_tokens=self.prompt_tokens * count,
            eval_tokens=self.eval_tokens * count,
            work_seconds=self.work_seconds,
        )

    def add(self, other: Counts) -> None:
        """Add other sums to these."""
        self.responses += other.responses
        self.failures += other.failures
        self.cut_short += other.cut_short
        self.repairs += other.repairs
        self.cached += other.cached
        self.same += other.same
        self.prompt_tokens += other.prompt_tokens
        self.eval_tokens += other.eval_tokens
        self.work_seconds += other.work_seconds
