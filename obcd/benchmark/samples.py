"""What a run under load is made of: samples, one a request, and the figures of a step of equal load. Pure.

    step with 4 in flight   ····  ────  ────  ──      one mark a request that ended
                            warm  round round the rest does not count

Only whole rounds count, as many requests as are in flight: equal answers end together, and a part of a round would be
more, or less, than the speed at which they are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request that ended.

    Attributes:
        prompt: Which prompt it was, from 0.
        began, ended: Monotonic seconds, as the client saw it.
        tokens: Tokens of the answer.
        eval_seconds: For how long they were made, as the server says.
        work_seconds: All that the server did for it: load, reading the prompt, the answer.
        wait_seconds: What is left of the server's own total: the wait for one of its slots.
        digest: Stands for the text of the answer.
        fault: Kind of what went wrong, "" for an answer.
        message: The sentence that goes with it.
    """

    prompt: int
    began: float
    ended: float
    tokens: int = 0
    eval_seconds: float = 0.0
    work_seconds: float = 0.0
    wait_seconds: float = 0.0
    digest: int = 0
    fault: str = ""
    message: str = ""

    @property
    def seconds(self) -> float:
        """Return how long the client waited for it."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    """The figures of one load.

    Attributes:
        requests: How many of them count.
        p50_seconds, p95_seconds: Latency, as the client saw it.
        wait_seconds: Median of the wait for a slot of the server, as the server says.
        busy_slots: How many requests the server worked on at a time: at most as many as it has slots.
        failed: Requests that got no answer.
    """

    in_flight: int
    requests: int
    requests_per_second: float
    tokens_per_second: float
    p50_seconds: float
    p95_seconds: float
    wait_seconds: float
    busy_slots: float
    failed: int = 0


def measure_step(samples: Sequence[Sample], in_flight: int) -> LoadStep | None:
    """Return the figures of a step; None where not one whole round ended after the first."""
    answered = sorted((sample for sample in samples if not sample.fault), key=lambda sample: sample.ended)
    rounds = len(answered) // in_flight - 1
    if rounds < 1:
        return None
    counted = answered[in_flight : in_flight * (rounds + 1)]
    span = max(1e-6, counted[-1].ended - answered[in_flight - 1].ended)
    latencies = [sample.seconds for sample in counted]
    share = sum(sample.work_seconds for sample in counted) / max(1e-9, sum(latencies))
    return LoadStep(
        in_flight=in_flight,
        requests=len(counted),
        requests_per_second=len(counted) / span,
        tokens_per_second=sum(sample.tokens for sample in counted) / span,
        p50_seconds=percentile(latencies, 50),
        p95_seconds=percentile(latencies, 95),
        wait_seconds=percentile([sample.wait_seconds for sample in counted], 50),
        busy_slots=in_flight * min(1.0, share),  # Little's law: the share of its time that a request is worked on
        failed=len(samples) - len(answered),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of all do not exceed (nearest rank).

    Raises:
        IndexError: If there is none.
    """
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def spread_tokens(sample: Sample, start: float, width: float, count: int) -> Iterator[tuple[int, float]]:
    """Yield (number of a bucket, tokens) of an answer: its tokens spread over the time in which they were made.

    Args:
        start: When the first of `count` buckets of `width` seconds begins; what is outside of them is left out.
    """
    made = max(1e-6, min(sample.eval_seconds, sample.seconds))
    began = sample.ended - made
    first, last = max(0, int((began - start) // width)), min(count - 1, int((sample.ended - start) // width))
    for number in range(first, last + 1):
        low, high = max(began, start + number * width), min(sample.ended, start + (number + 1) * width)
        if high > low:
            yield number, sample.tokens * (high - low) / made
