"""The sums over a job's results: the same while it runs, after a restart, and in its manifest. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from obcd.core.answer.outcomes import NO_COST, Response, Result


@dataclass(slots=True)
class Counts:
    """Sums over results.

    Attributes:
        cut_short: Responses that ended with `length`.
        repairs: How often a request was sent again because an answer did not fit its schema, over all results.
        cached: Responses that were computed earlier, and not requested again.
        same: Results that are those of an equal request (`dedupe`).
        prompt_tokens, eval_tokens: Tokens read and generated, over responses and the failures that report theirs.
        work_seconds: Seconds that requests took at their endpoints, over the same results.
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
    def of(cls, result: Result) -> Counts:
        """Return the counts of one result."""
        same = int(result.same_as is not None)
        if isinstance(result, Response):
            answer = result.answer
            cost, repairs = answer.cost, answer.repairs
            is_cut, is_cached = answer.done_reason == "length", result.is_cached
            return cls(
                1, 0, int(is_cut), repairs, int(is_cached), same, cost.prompt_tokens, cost.eval_tokens, cost.seconds
            )
        cost, repairs = (NO_COST, 0) if result.kept is None else (result.kept.cost, result.kept.repairs)
        return cls(0, 1, 0, repairs, 0, same, cost.prompt_tokens, cost.eval_tokens, cost.seconds)

    @property
    def done(self) -> int:
        """The requests that have their result."""
        return self.responses + self.failures

    def times(self, count: int) -> Counts:
        """Return the counts of `count` equal requests with this result, which was computed once."""
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
