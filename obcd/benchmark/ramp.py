"""Ramp endpoints from one request in flight to many, all endpoints at once; this module measures and prints nothing.

The result as JSON: {"began": "…Z", "model": "llama3.2", …, "endpoints": [{"endpoint": "gpu1:11432", "steps": […], …}]}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field

from obcd.benchmark.knee import Advice, advise, is_in_vain
from obcd.benchmark.load_generator import LoadGenerator, LoadWork
from obcd.benchmark.outliers import find_outliers
from obcd.benchmark.samples import LoadStep, Sample, measure_step
from obcd.clock import monotonic, timestamp
from obcd.config.endpoints import Endpoint
from obcd.core.request.records import JobSettings

#: The least number of rounds of a step that count.
ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RampPlan:
    """The plan of a ramp.

    Attributes:
        steps: Numbers of requests in flight, rising.
        requests: Least number of requests that count at each step; rounded up to whole rounds.
        seconds: Least duration of a step, in place of `requests`; None to go by number.
        is_whole: Whether all steps are taken, even if more requests in flight bring nothing.
    """

    steps: tuple[int, ...]
    requests: int = 16
    seconds: float | None = None
    is_whole: bool = False

    def goal(self, in_flight: int) -> int:
        """Return how many answers end a step, its first round included."""
        least = 1 if self.seconds is not None else max(ROUNDS, -(-self.requests // in_flight))
        return in_flight * (1 + least)


@dataclass(slots=True)
class Ramp:
    """The measurements at one endpoint; complete steps only.

    Attributes:
        token_file: The path as in the configuration.
        load_seconds: How long the model took to load; next to nothing if it was already loaded.
        failure: Why the ramp ended early, "" if it did not.
    """

    endpoint: Endpoint
    version: str = ""
    token_file: str | None = None
    steps: list[LoadStep] = field(default_factory=list)
    load_seconds: float = 0.0
    failure: str = ""

    @property
    def best(self) -> float:
        """The best speed in tokens a second."""
        return max((step.tokens_per_second for step in self.steps), default=0.0)

    @property
    def advice(self) -> Advice | None:
        """The values to configure; None if nothing was measured."""
        return advise(self.steps) if self.steps else None


def ramp_all(
    ramps: Sequence[Ramp], work: LoadWork, plan: RampPlan, stop: threading.Event, tell: Callable[[Ramp], None]
) -> None:
    """Ramp all endpoints at once; the measurements are in `ramps`, also after KeyboardInterrupt.

    Args:
        tell: Called after each step, one call at a time.
    """
    lock = threading.Lock()

    def report_alone(ramp: Ramp) -> None:
        with lock:
            tell(ramp)

    def climb(ramp: Ramp) -> None:
        _climb(ramp, LoadGenerator(ramp.endpoint, work, stop), plan, stop, report_alone)

    with ThreadPoolExecutor(max_workers=len(ramps)) as pool:
        futures = [pool.submit(climb, ramp) for ramp in ramps]
        try:
            wait(futures)
        finally:
            stop.set()
    for future in futures:
        future.result()


def find_odd(ramps: Sequence[Ramp]) -> dict[str, float]:
    """Return `{endpoint: its best speed as a share of the median}` of those out of line."""
    return find_outliers({ramp.endpoint.name: ramp.best for ramp in ramps if ramp.steps})


def _climb(
    ramp: Ramp, crew: LoadGenerator, plan: RampPlan, stop: threading.Event, tell: Callable[[Ramp], None]
) -> None:
    began = monotonic()
    fault = crew.load()
    ramp.load_seconds = monotonic() - began
    if fault is not None:
        ramp.failure = "" if stop.is_set() else fault.message
        return
    for in_flight in plan.steps:
        collector = _Collector(in_flight, plan)
        crew.run(in_flight, collector.take)
        if not collector.is_full:
            ramp.failure = collector.trouble
            return
        step = measure_step(collector.samples, in_flight)
        assert step is not None
        ramp.steps.append(step)
        tell(ramp)
        if not plan.is_whole and is_in_vain([step.tokens_per_second for step in ramp.steps]):
            return


class _Collector:
    """Collects the samples of a step until it has enough."""

    def __init__(self, in_flight: int, plan: RampPlan) -> None:
        self.samples: list[Sample] = []
        self.is_full = False
        self.trouble = ""
        self._goal = plan.goal(in_flight)
        self._patience = max(3, in_flight)
        self._ends = monotonic() + (plan.seconds or 0.0)
        self._answered = self._failed = 0

    def take(self, sample: Sample) -> bool:
        """Add a sample, unless the step is complete; return whether to continue."""
        if self.is_full or self.trouble:
            return False
        self.samples.append(sample)
        if sample.fault:
            self._failed += 1
            if self._failed > self._patience + self._answered // 10:
                self.trouble = sample.message
        else:
            self._answered += 1
        self.is_full = self._answered >= self._goal and sample.ended >= self._ends
        return not (self.is_full or self.trouble)


def report(
    ramps: Sequence[Ramp], left_out: Mapping[str, str], settings: JobSettings, prompts: str, began: float
) -> dict[str, object]:
    """Return the result as it is written to the file.

    Args:
        left_out: `{endpoint: why it was not measured}`.
        prompts: Name of the prompt file, "" for the built-in prompts.
        began: Unix seconds.
    """
    odd = find_odd(ramps)
    return {
        "began": timestamp(began),
        "model": settings.model,
        "num_ctx": settings.num_ctx,
        "num_predict": settings.num_predict,
        "prompts": prompts or "built in",
        "stand_ins": any("-obcd-" in ramp.version for ramp in ramps),
        "endpoints": [_entry(ramp, odd.get(ramp.endpoint.name)) for ramp in ramps],
        "left_out": dict(left_out),
    }


def _entry(ramp: Ramp, share: float | None) -> dict[str, object]:
    advice = ramp.advice
    return {
        "endpoint": ramp.endpoint.name,
        "version": ramp.version,
        "failure": ramp.failure or None,
        "load_seconds": ramp.load_seconds,
        "steps": [{**asdict(step), "speedup": speedup(ramp.steps, step)} for step in ramp.steps],
        "advice": asdict(advice) if advice else None,
        "line": configuration_line(ramp, advice) if advice else None,
        "out_of_line": share,
    }


def speedup(steps: Sequence[LoadStep], step: LoadStep) -> float | None:
    """Return the speed of a step divided by the speed with one request in flight; None if that was not measured."""
    first = steps[0]
    return (
        step.tokens_per_second / first.tokens_per_second if first.in_flight == 1 and first.tokens_per_second else None
    )


def configuration_line(ramp: Ramp, advice: Advice) -> str:
    """Return the line for `[ollama_instances]`."""
    token = f", token_file = {json.dumps(ramp.token_file)}" if ramp.token_file else ""
    return f"{json.dumps(ramp.endpoint.name)} = {{gpu = {ramp.endpoint.gpu}, slots = {advice.slots}{token}}}"
