"""What the coordinator counts for metrics: cumulative counters and histograms, which only grow.

    recorder ─result on disk─► CounterSet ─view─► status.json ─► obcd.metrics
    ledger of a job ─loaded──►     │  ▲
                                   ▼  │ kept
                                 counters.json

A result counts when it is on disk, so the counters never run ahead of the ledgers. Results, tokens and jobs go on over
a restart and stay equal to the ledgers: beside them is kept how many records of each ledger they have, and what a
killed coordinator recorded and did not count is counted when the job is loaded again. Attempts and times begin at 0
with each coordinator. Main thread only. Each prompt passes here twice, so the methods do nothing but add.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from obcd.core.answer.counts import Counts
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.tally import Tally
from obcd.core.documents import Document
from obcd.core.request.records import plain_model
from obcd.spool.job.ledger import Replay

#: Upper bounds of the histograms, in seconds: of requests and their waits, and of ticks.
REQUEST_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
TICK_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
#: In place of a number of records: all are counted, those of a complete job for good, or older than the counters.
COMPLETE, OLDER = -1, -2
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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCounters(Document):
    """What a later coordinator continues with, as in counters.json; names as in `CountersView`.

    Attributes:
        records: {job that is not published: number of records of its ledger that are counted, or COMPLETE}
    """

    since: float
    responses: int
    failures: Mapping[str, int]
    prompt_tokens: int
    output_tokens: int
    cache_hits: int
    repairs: int
    jobs_finished: int
    records: Mapping[str, int]

    @property
    def tally(self) -> Tally:
        """The sums of results."""
        return Tally(
            self.responses,
            dict(self.failures),
            self.prompt_tokens,
            self.output_tokens,
            self.cache_hits,
            self.repairs,
        )


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
        self._tally = Tally()
        self._retries: dict[str, int] = {}
        self._attempts = self._jobs_finished = 0
        #: {canonical name of a model: (durations, waits)}
        self._models: dict[str, tuple[Histogram, Histogram]] = {}
        self._ticks = Histogram(TICK_BOUNDS)
        #: {job that is not published: number of records of its ledger that are counted; `COMPLETE`: all, for good}
        self._records: dict[str, int] = {}
        self._is_resumed = False

    def resume(self, kept: KeptCounters) -> None:
        """Continue with what an earlier coordinator counted."""
        self._is_resumed = True
        self._since, self._jobs_finished = kept.since, kept.jobs_finished
        self._tally, self._records = kept.tally, dict(kept.records)

    def on_recovered(self, jobs: Collection[str]) -> None:
        """Take the jobs that an earlier coordinator left, except published ones; called after `resume`, if that is."""
        if self._is_resumed:
            self._records = {job: records for job, records in self._records.items() if job in jobs}
        else:
            self._records = dict.fromkeys(jobs, OLDER)

    def kept(self) -> KeptCounters:
        """Return what a later coordinator continues with."""
        tally = self._tally
        return KeptCounters(
            since=self._since,
            responses=tally.responses,
            failures=dict(tally.failures),
            prompt_tokens=tally.prompt_tokens,
            output_tokens=tally.output_tokens,
            cache_hits=tally.cache_hits,
            repairs=tally.repairs,
            jobs_finished=self._jobs_finished,
            records=dict(self._records),
        )

    def records_of(self, job: str) -> int | None:
        """Return how many records of a job's ledger are counted; None: all."""
        records = self._records.get(job, 0)
        return None if records < 0 else records

    def on_loaded(self, job: str, replay: Replay) -> None:
        """Count the results in a job's ledger that are not counted yet."""
        self._tally.merge(replay.uncounted)
        if self._records.get(job) != COMPLETE:
            self._records[job] = replay.records

    def on_attempt(self, fault: str = "") -> None:
        """Count an attempt that ended.

        Args:
            fault: The class of its fault, if the request is sent again.
        """
        self._attempts += 1
        if fault:
            self._retries[fault] = self._retries.get(fault, 0) + 1

    def on_recorded(self, job: str, counts: Counts, model: str, failure: str = "") -> None:
        """Count a result that is on disk.

        Args:
            counts: Its part of the counts of its job, for all requests that share it.
            model: The canonical name of its model.
            failure: Its class, if it is a failure.
        """
        self._records[job] = self._records.get(job, 0) + 1
        self._tally.add(counts, failure)
        if counts.responses and counts.work_seconds and not counts.cached:  # of a group, the first has its call's
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

    def on_complete(self, job: str, cancelled: int) -> None:
        """Count a job that has all its results, once.

        Args:
            cancelled: The requests for which a clerk records that their job was cancelled.
        """
        if self._records.get(job) == COMPLETE:  # an earlier coordinator counted it, and did not publish it
            return
        self._records[job] = COMPLETE
        self._jobs_finished += 1
        if cancelled:
            self._tally.add_failures(FaultKind.CANCELLED, cancelled)

    def forget(self, job: str) -> None:
        """Forget a job that is published, or gone."""
        self._records.pop(job, None)

    def on_tick(self, seconds: float) -> None:
        """Count a tick of the main loop."""
        self._ticks.observe(seconds)

    def view(self) -> CountersView:
        """Return the counters now."""
        tally = self._tally
        return CountersView(
            since=round(self._since, 3),
            responses=tally.responses,
            failures=dict(tally.failures),
            retries=dict(self._retries),
            attempts=self._attempts,
            prompt_tokens=tally.prompt_tokens,
            output_tokens=tally.output_tokens,
            cache_hits=tally.cache_hits,
            repairs=tally.repairs,
            jobs_finished=self._jobs_finished,
            models=tuple(
                ModelCountersView(model=plain_model(name), duration=duration.view(), queue=queue.view())
                for name, (duration, queue) in self._models.items()
            ),
            ticks=self._ticks.view(),
        )
