"""What the coordinator counts for metrics: cumulative counters and histograms, which only grow.

    recorder ─result on disk─► Counters ─view─► status.json ─► obcd.metrics

A result counts when it is on disk, so the counters never run ahead of the ledgers. Main thread only. Each prompt passes
here twice, so the methods do nothing but add.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from obcd.core.answer.counts import Counts
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.documents import Document
from obcd.core.request.records import plain_model

#: Upper bounds of the histograms, in seconds: of requests and their waits, and of ticks.
REQUEST_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
TICK_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
#: The most models with histograms of their own; the requests of further ones share those of `OTHER_MODELS`.
MOST_MODELS, OTHER_MODELS = 32, "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramView(Document):
    """A histogram.

    Attributes:
        bounds: The upper bounds of its buckets.
        counts: The number of values in each bucket alone, and last of those above all bounds.
        sum: The sum of all values.
    """

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    sum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCountersView(Document):
    """The answered requests of one model, without answers from obcd's cache; those of one call count as one.

    Attributes:
        model: Its name as people write it, e.g. `llama3.2`.
        duration: Seconds from a request to its reply, over all attempts for it.
        queue: The part of them in which it waited for a slot of its server.
    """

    model: str
    duration: HistogramView
    queue: HistogramView


@dataclass(frozen=True, slots=True, kw_only=True)
class CountersView(Document):
    """The counters, as in status.json.

    Attributes:
        since: When they were 0, in Unix seconds.
        responses: Requests with a response on disk; each of several equal requests counts (`dedupe`).
        failures: `{class: number of requests with such a failure on disk}`.
        retries: `{class of the fault: number of attempts after which the request is sent again}`.
        attempts: Attempts that ended with a reply or a fault; answers from obcd's cache are none.
        prompt_tokens, output_tokens: Tokens that servers read and generated, as far as results report them: without
            answers from obcd's cache, and once for equal requests.
        cache_hits: Responses from obcd's cache.
        repairs: How often a request was sent again because an answer did not fit its schema.
        jobs_finished: Jobs whose requests all have a result.
        models: The histograms of each model.
        ticks: Seconds that a tick of the main loop took.
    """

    since: float = 0.0
    responses: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cache_hits: int = 0
    repairs: int = 0
    jobs_finished: int = 0
    models: tuple[ModelCountersView, ...] = ()
    ticks: HistogramView = field(default_factory=HistogramView)


class Histogram:
    """A histogram that grows.

    Args:
        bounds: The upper bounds of its buckets, ascending; a value on a bound is below it, as Prometheus counts.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Add a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def view(self) -> HistogramView:
        """Return its present state."""
        return HistogramView(bounds=self._bounds, counts=tuple(self._counts), sum=round(self._sum, 6))


class CounterSet:
    """The counters of a coordinator.

    Args:
        since: When they are 0, in Unix seconds.
    """

    def __init__(self, since: float) -> None:
        self._since = since
        self._responses = self._cache_hits = self._attempts = self._jobs_finished = 0
        self._prompt_tokens = self._output_tokens = self._repairs = 0
        self._failures: dict[str, int] = {}
        self._retries: dict[str, int] = {}
        #: {canonical name of a model: (durations, waits)}
        self._models: dict[str, tuple[Histogram, Histogram]] = {}
        self._ticks = Histogram(TICK_BOUNDS)

    def on_attempt(self, fault: str = "") -> None:
        """Count an attempt that ended.

        Args:
            fault: The class of its fault, if the request is sent again.
        """
        self._attempts += 1
        if fault:
            self._retries[fault] = self._retries.get(fault, 0) + 1

    def on_recorded(self, counts: Counts, model: str, failure: str = "") -> None:
        """Count a result that is on disk.

        Args:
            counts: Its part of the counts of its job, for all requests that share it.
            model: The canonical name of its model.
            failure: Its class, if it is a failure.
        """
        if failure:
            self._failures[failure] = self._failures.get(failure, 0) + counts.failures
        self._responses += counts.responses
        self._cache_hits += counts.cached
        if counts.cached:
            return
        lines = counts.same + 1 if counts.same else 1
        self._repairs += counts.repairs // lines
        self._output_tokens += counts.eval_tokens // lines
        self._prompt_tokens += counts.prompt_tokens if counts.grouped else counts.prompt_tokens // lines
        if counts.responses and counts.work_seconds:  # of a group, the first has the seconds of their call
            duration, queue = self._models.get(model) or self._add_model(model)
            duration.observe(counts.work_seconds + counts.wait_seconds)
            queue.observe(counts.wait_seconds)

    def _add_model(self, model: str) -> tuple[Histogram, Histogram]:
        """Return the histograms of a model that has none; beyond `MOST_MODELS` they are those of all further ones."""
        if len(self._models) >= MOST_MODELS:
            model = OTHER_MODELS
        if model not in self._models:
            self._models[model] = Histogram(REQUEST_BOUNDS), Histogram(REQUEST_BOUNDS)
        return self._models[model]

    def on_complete(self, cancelled: int) -> None:
        """Count a job that has all its results.

        Args:
            cancelled: The requests for which a clerk records that their job was cancelled.
        """
        self._jobs_finished += 1
        if cancelled:
            self._failures[FaultKind.CANCELLED] = self._failures.get(FaultKind.CANCELLED, 0) + cancelled

    def on_tick(self, seconds: float) -> None:
        """Count a tick of the main loop."""
        self._ticks.observe(seconds)

    def view(self) -> CountersView:
        """Return the counters now."""
        return CountersView(
            since=round(self._since, 3),
            responses=self._responses,
            failures=dict(self._failures),
            retries=dict(self._retries),
            attempts=self._attempts,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            cache_hits=self._cache_hits,
            repairs=self._repairs,
            jobs_finished=self._jobs_finished,
            models=tuple(
                ModelCountersView(model=plain_model(name), duration=duration.view(), queue=queue.view())
                for name, (duration, queue) in self._models.items()
            ),
            ticks=self._ticks.view(),
        )
