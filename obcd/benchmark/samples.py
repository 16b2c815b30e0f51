"""The data of a run under load: samples, one for each request, and the figures of a step of equal load. Pure.

    step with 4 in flight   ····  ────  ────  ──      one mark a request that ended
                            warm  round round the rest does not count

Only whole rounds count, of as many requests as are in flight: equal answers end together, and a part of a round would
give a speed above or below the real one.
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
        began, ended: Monotonic seconds, as seen by the client.
        tokens: Number of tokens in the answer.
        eval_seconds: How long the server generated them, by its own report.
        work_seconds: All the server's work for the request: load, reading the prompt, the answer.
        wait_seconds: The rest of the server's own total: the wait for one of its slots.
        digest: A digest of the answer's text.
        fault: The kind of fault, "" for an answer.
        message: The sentence for the fault.
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
        """How long the client waited for it."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStep:
    """The figures of one step of equal load.

    Attributes:
        requests: Number of requests that count.
        p50_seconds, p95_seconds: Latency, as seen by the client.
        wait_seconds: Median of the wait for a slot of the server, by the server's report.
        busy_slots: Number of requests that the server worked on at a time: at most its number of slots.
        failed: Number of requests that got no answer.
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
    """Return the figures of a step; None if no whole round ended after the first one."""
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
        busy_slots=in_flight * min(1.0, share),  # Little's law; the server works on a request for `share` of its time
        failed=len(samples) - len(answered),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of all values do not exceed (nearest rank).

    Raises:
        IndexError: If there are no values.
    """
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def spread_tokens(sample: Sample, start: float, width: float, count: int) -> Iterator[tuple[int, float]]:
    """Yield (number of a bucket, tokens) of an answer: its tokens spread over the time in which they were generated.

    Args:
        start: When the first of `count` buckets of `width` seconds begins; tokens outside of them are left out.
    """
    made = max(1e-6, min(sample.eval_seconds, sample.seconds))
    began = sample.ended - made
    first, last = max(0, int((began - start) // width)), min(count - 1, int((sample.ended - start) // width))
    for number in range(first, last + 1):
        low, high = max(began, start + number * width), min(sample.ended, start + (number + 1) * width)
        if high > low:
            yield number, sample.tokens * (high - low) / made
