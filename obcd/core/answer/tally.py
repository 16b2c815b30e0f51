"""What results add to the counters of the whole coordinator: the same from a worker's message and from a ledger. Pure.

Counts of a job say what its submitter has; a tally says what servers did for it. So the tokens of equal requests count
once, and those of an answer from obcd's cache do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from obcd.core.answer.counts import Counts


@dataclass(slots=True)
class Tally:
    """Sums over results.

    Attributes:
        responses: Requests with a response; each of several equal requests counts (`dedupe`).
        failures: `{class: requests with such a failure}`.
        prompt_tokens, output_tokens: Tokens that servers read and generated, as far as results report them.
        cache_hits: Responses from obcd's cache.
        repairs: How often a request was sent again because an answer did not fit its schema.
    """

    responses: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    output_tokens: int = 0
    cache_hits: int = 0
    repairs: int = 0

    def add(self, counts: Counts, failure: str = "") -> None:
        """Add a result.

        Args:
            counts: Its part of the counts of its job, for all requests that share it.
            failure: Its class, if it is a failure.
        """
        if failure:
            self.add_failures(failure, counts.failures)
        self.responses += counts.responses
        self.cache_hits += counts.cached
        if counts.cached:
            return
        lines = counts.same + 1 if counts.same else 1
        self.repairs += counts.repairs // lines
        self.output_tokens += counts.eval_tokens // lines
        self.prompt_tokens += counts.prompt_tokens if counts.grouped else counts.prompt_tokens // lines

    def add_failures(self, failure: str, number: int) -> None:
        """Add failures of one class."""
        self.failures[failure] = self.failures.get(failure, 0) + number

    def merge(self, other: Tally) -> None:
        """Add the sums of other results."""
        for failure, number in other.failures.items():
            self.add_failures(failure, number)
        self.responses += other.responses
        self.prompt_tokens += other.prompt_tokens
        self.output_tokens += other.output_tokens
        self.cache_hits += other.cache_hits
        self.repairs += other.repairs
