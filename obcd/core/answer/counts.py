"""The sums over a job's results: the same while it runs, after a restart, and in its manifest. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter

from obcd.core.answer.outcomes import NO_COST, Response, Result


@dataclass(slots=True)
class Counts:
    """Sums over results.

    Attributes:
        cut_short: Responses that ended with `length`.
        empty: Responses that say nothing: white space, or thoughts alone.
        repairs: How often a request was sent again because an answer did not fit its schema, over all results.
        cached: Responses that were computed earlier, and not requested again.
        same: Results that are those of an equal request (`dedupe`).
        grouped: Responses that came in one call with others; the first of a call has the tokens and seconds of all.
        prompt_tokens, eval_tokens: Tokens read and generated, over responses and the failures that report theirs.
        work_seconds: Seconds that requests took at their endpoints without the wait for a slot there, over the same
            results: as many seconds of work as an endpoint with one slot needs for them.
        wait_seconds: Seconds of that wait.
        prompt_eval_seconds: Seconds of the evaluation of prompts, over responses whose servers report them. What the
            prefix cache of a server held takes no part of it; what another request evaluated at the same time may.
        evaluated_tokens, cached_tokens: Prompt tokens that were evaluated, and that came from the prefix cache of a
            server, over requests that were sent and whose replies say so (Ollama from v0.33.3 on).
    """

    responses: int = 0
    failures: int = 0
    cut_short: int = 0
    empty: int = 0
    repairs: int = 0
    cached: int = 0
    same: int = 0
    prompt_tokens: int = 0
    eval_tokens: int = 0
    work_seconds: float = 0.0
    wait_seconds: float = 0.0
    prompt_eval_seconds: float = 0.0
    evaluated_tokens: int = 0
    cached_tokens: int = 0
    grouped: int = 0

    @classmethod
    def of(cls, result: Result) -> Counts:
        """Return the counts of one result."""
        same = int(result.same_as is not None)
        if isinstance(result, Response):
            answer = result.answer
            cost, repairs = answer.cost, answer.repairs
        else:
            cost, repairs = (NO_COST, 0) if result.kept is None else (result.kept.cost, result.kept.repairs)
        counts = cls(
            repairs=repairs,
            same=same,
            prompt_tokens=cost.prompt_tokens,
            eval_tokens=cost.eval_tokens,
            work_seconds=max(0.0, cost.seconds - cost.wait_seconds),
            wait_seconds=cost.wait_seconds,
        )
        if cost.cached_tokens is not None:
            counts.evaluated_tokens = cost.prompt_tokens - cost.cached_tokens
            counts.cached_tokens = cost.cached_tokens
        if isinstance(result, Response):
            counts.prompt_eval_seconds = cost.prompt_eval_seconds
            counts.responses, counts.cut_short = 1, int(result.answer.done_reason == "length")
            counts.empty, counts.cached = int(_has_empty(result)), int(result.is_cached)
            counts.grouped = int(result.answer.group_size > 1)
        else:
            counts.failures = 1
        return counts

    def __reduce__(self) -> tuple[type[Counts], tuple[int | float, ...]]:
        """Pickle as a tuple: it comes with every result, and a dataclass with slots takes three times as long."""
        return Counts, _values(self)

    @property
    def knows_cache(self) -> bool:
        """Whether a reply said which part of a prompt came from the server's prefix cache."""
        return bool(self.evaluated_tokens or self.cached_tokens)

    @property
    def seconds(self) -> float:
        """Seconds that requests were at their endpoints, working and waiting."""
        return self.work_seconds + self.wait_seconds

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
            empty=self.empty * count,
            repairs=self.repairs * count,
            cached=self.cached * count,
            same=count - 1,
            prompt_tokens=self.prompt_tokens * (1 if self.grouped else count),
            eval_tokens=self.eval_tokens * count,
            work_seconds=self.work_seconds,
            wait_seconds=self.wait_seconds,
            prompt_eval_seconds=self.prompt_eval_seconds,
            evaluated_tokens=self.evaluated_tokens,
            cached_tokens=self.cached_tokens,
            grouped=self.grouped * count,
        )

    def add(self, other: Counts) -> None:
        """Add other sums to these."""
        self.responses += other.responses
        self.failures += other.failures
        self.cut_short += other.cut_short
        self.empty += other.empty
        self.repairs += other.repairs
        self.cached += other.cached
        self.same += other.same
        self.prompt_tokens += other.prompt_tokens
        self.eval_tokens += other.eval_tokens
        self.work_seconds += other.work_seconds
        self.wait_seconds += other.wait_seconds
        self.prompt_eval_seconds += other.prompt_eval_seconds
        self.evaluated_tokens += other.evaluated_tokens
        self.cached_tokens += other.cached_tokens
        self.grouped += other.grouped


#: Returns the values of all fields, in their order.
_values = attrgetter(*(item.name for item in fields(Counts)))


def _has_empty(response: Response) -> bool:
    return any(each.answer.is_empty for each in response.responses or (response,))
