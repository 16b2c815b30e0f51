"""From the view of a coordinator to metrics of Prometheus. Pure.

    status.json ─► View ─► samples ─► exposition ─► node_exporter's textfile, or /metrics of the page

Base units; counters end in `_total`. Labels name endpoints, hosts, cards, models and fixed words: never a job, a user
or a prompt, which would make a series each and show who asks what.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from obcd.coordinator.metering.counters import HistogramView
from obcd.coordinator.view import DaemonState, EndpointView, JobState, View, WaitReason
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.health import EndpointState
from obcd.hosts.record import CardReading
from obcd.text import printable

#: The `host` of the coordinator's machine, whether an endpoint is configured by its loopback address or by its name.
LOCAL: Final = "localhost"
#: The names of loopback in the URL of an endpoint.
LOOPBACK: Final = frozenset(("127.0.0.1", "::1", LOCAL))
#: The most models of an endpoint whose digests are shown, so that an endpoint has at most 35 series; those that jobs
#: have used come first.
MOST_MODELS: Final = 16
#: The type of the body for HTTP (Prometheus's text format, prometheus.io/docs/instrumenting/exposition_formats).
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: (name, help, attribute of a reading)
_CARD_GAUGES: Final = (
    ("obcd_gpu_utilization_ratio", "Share of the last moment in which the card computed.", "utilization"),
    ("obcd_gpu_memory_used_bytes", "Memory of the card in use.", "memory_used_bytes"),
    ("obcd_gpu_memory_bytes", "Memory of the card.", "memory_total_bytes"),
    ("obcd_gpu_power_watts", "Power that the card draws.", "power_watts"),
    ("obcd_gpu_temperature_celsius", "Temperature of the card's chip.", "temperature_celsius"),
    ("obcd_gpu_lost", "Whether the card fell off the bus.", "is_lost"),
)
_CARD_COUNTERS: Final = (
    ("obcd_gpu_energy_joules_total", "Energy that the card used since its driver was loaded.", "energy_joules"),
    ("obcd_gpu_xid_errors_total", "Faults of the card that its driver reported (Xid).", "xid_errors"),
)


def samples(view: View | None) -> Iterator[Metric]:
    """Yield the metrics of a coordinator.

    Args:
        view: Its last state; None if it is not running: then `obcd_up` is 0, and there is nothing else, because the
            last values would look like present ones.
    """
    yield _gauge("obcd_up", "Whether a coordinator runs and its status is current.", view is not None)
    if view is None:
        return
    yield _labelled("obcd_build_info", "The version of the coordinator.", [((view.version,), 1)], "version")
    yield _gauge("obcd_status_timestamp_seconds", "When the coordinator wrote its status, in Unix time.", view.updated)
    states = [((state.value,), view.state == state) for state in DaemonState]
    yield _labelled("obcd_coordinator_state", "The state of the coordinator is 1, the others are 0.", states, "state")
    yield _gauge("obcd_troubles", "What keeps the coordinator from working as it should.", len(view.troubles))
    yield from _work(view)
    yield from _counters(view)
    yield from _endpoints(view)
    yield from _cards(view)


def exposition(view: View | None) -> bytes:
    """Return the metrics of a coordinator in Prometheus's text format; the argument is that of `samples`."""
    return generate_latest(_Collected(view))


@dataclass(frozen=True, slots=True)
class _Collected(Collector):
    view: View | None

    def collect(self) -> Iterable[Metric]:
        return (metric for metric in samples(self.view) if metric.samples)


# --- jobs, files, space ----------------------------------------------------------------------------------------------


def _work(view: View) -> Iterator[Metric]:
    waiting = "Requests without a result that are not in flight, of jobs that are not paused."
    yield _gauge("obcd_requests_waiting", waiting, view.requests_waiting)
    jobs = Counter(item.state for item in view.all_jobs)
    states = [((state.value,), jobs[state]) for state in JobState]
    yield _labelled("obcd_jobs", "Jobs that are not published, by state.", states, "state")
    eta = "Seconds until all jobs are done that are not paused; absent while that is not known."
    yield _gauge("obcd_eta_seconds", eta, view.eta_seconds)
    files = Counter(item.reason for item in view.waiting)
    reasons = [((reason.value,), files[reason]) for reason in WaitReason]
    yield _labelled("obcd_files_waiting", "Files of the inbox that are not accepted, by reason.", reasons, "reason")
    yield _gauge("obcd_spool_free_bytes", "Free space on the filesystem of the spool.", view.free_bytes)
    least = "Free space of the spool below which the coordinator pauses."
    yield _gauge("obcd_spool_min_free_bytes", least, view.min_free_bytes)


def _counters(view: View) -> Iterator[Metric]:
    counters = view.counters
    finished: list[_Sample] = [(("response", ""), counters.responses)]
    finished += [(("failure", kind), count) for kind, count in _with_zeros(counters.failures).items()]
    text = "Requests with a recorded result; the class is that of a failure."
    yield _labelled("obcd_requests_finished_total", text, finished, "outcome", "class")
    retries = [((reason,), count) for reason, count in _with_zeros(counters.retries).items()]
    text = "Attempts after whose fault a request was sent again."
    yield _labelled("obcd_requests_retried_total", text, retries, "reason")
    text = "Attempts that ended with a reply or a fault."
    yield _labelled("obcd_attempts_total", text, [((), counters.attempts)])
    tokens: list[_Sample] = [(("prompt",), counters.prompt_tokens), (("output",), counters.output_tokens)]
    yield _labelled("obcd_tokens_total", "Tokens that servers read and generated.", tokens, "kind")
    text = "Responses from the cache of answers."
    yield _labelled("obcd_cache_hits_total", text, [((), counters.cache_hits)])
    text = "Requests that were sent again because an answer did not fit its schema."
    yield _labelled("obcd_repairs_total", text, [((), counters.repairs)])
    text = "Jobs whose requests all have a result."
    yield _labelled("obcd_jobs_finished_total", text, [((), counters.jobs_finished)])
    duration = HistogramMetricFamily(
        "obcd_request_duration_seconds", "Time from a request to its response.", labels=("model",)
    )
    queue = HistogramMetricFamily(
        "obcd_queue_seconds", "Part of that in which a request waited for a slot of its server.", labels=("model",)
    )
    for item in view.counters.models:
        _observe(duration, (item.model,), item.duration)
        _observe(queue, (item.model,), item.queue)
    ticks = HistogramMetricFamily("obcd_tick_seconds", "Time that a tick of the coordinator's loop took.", labels=())
    _observe(ticks, (), counters.ticks)
    yield from (duration, queue, ticks)


def _with_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by class with those that are 0: Prometheus sees no increase at the first value of a series."""
    return {**dict.fromkeys((kind.value for kind in FaultKind), 0), **counts}


# --- endpoints and cards ---------------------------------------------------------------------------------------------


def _endpoints(view: View) -> Iterator[Metric]:
    hosts = {name: host.name for host in view.hosts for name in host.endpoints}
    items = [((item.name, hosts.get(item.name) or _host(item)), item) for item in view.endpoints]
    labels = ("endpoint", "host")
    up = [((*names, str(item.gpu)), item.state == EndpointState.UP) for names, item in items]
    yield _labelled("obcd_endpoint_up", "Whether the endpoint gets a request for every slot.", up, *labels, "gpu")
    states = [((*names, state.value), item.state == state) for names, item in items for state in EndpointState]
    text = "The state of the endpoint is 1, the others are 0."
    yield _labelled("obcd_endpoint_state", text, states, *labels, "state")
    slots = [(names, item.slots) for names, item in items]
    yield _labelled("obcd_endpoint_slots", "Requests that the endpoint may have in flight.", slots, *labels)
    busy = [(names, item.in_flight) for names, item in items]
    text = "Requests that the endpoint has in flight."
    yield _labelled("obcd_endpoint_requests_in_flight", text, busy, *labels)
    left_out = [(names, len(item.left_out)) for names, item in items]
    text = "Kinds of work that the endpoint does not get; obcd status says why."
    yield _labelled("obcd_endpoint_left_out", text, left_out, *labels)
    attempts = [((*names, "response"), item.answered) for names, item in items]
    attempts += [((*names, "fault"), item.faults) for names, item in items]
    text = "Attempts at the endpoint that ended, by outcome."
    yield _labelled("obcd_endpoint_attempts_total", text, attempts, *labels, "outcome")
    used = {item.model for item in view.counters.models}
    models = [
        ((*names, model, digest), 1)
        for names, item in items
        for model, digest in sorted(item.digests.items(), key=lambda pair: (pair[0] not in used, pair))[:MOST_MODELS]
    ]
    text = "The models of the endpoint and their digests; those that jobs used come first."
    yield _labelled("obcd_endpoint_model_info", text, models, *labels, "model", "digest")


def _host(item: EndpointView) -> str:
    return LOCAL if item.host in LOOPBACK else item.host


def _cards(view: View) -> Iterator[Metric]:
    """Yield the readings of cards; those in records count before those of the coordinator's machine."""
    found = {card.uuid: (LOCAL, card) for card in view.cards}
    found |= {card.uuid: (host.name, card) for host in view.hosts for card in host.cards}
    for name, text, attribute in (*_CARD_GAUGES, *_CARD_COUNTERS):
        values = [((*_card_labels(host, card),), getattr(card, attribute)) for host, card in found.values()]
        yield _labelled(name, text, [item for item in values if item[1] is not None], "host", "gpu", "uuid")


def _card_labels(host: str, card: CardReading) -> tuple[str, ...]:
    return host, "" if card.index < 0 else str(card.index), card.uuid


# --- families --------------------------------------------------------------------------------------------------------

_Sample = tuple[Sequence[str], float]


def _gauge(name: str, text: str, value: float | None) -> Metric:
    """Return a metric without labels; one without a value has no sample."""
    return _labelled(name, text, [] if value is None else [((), value)])


def _labelled(name: str, text: str, values: Iterable[_Sample], *labels: str) -> Metric:
    """Return a counter if its name ends in `_total`, else a gauge."""
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, text, labels=labels)
    for texts, value in values:
        family.add_metric(_labels(texts), _number(value))
    return family


def _observe(family: HistogramMetricFamily, labels: Sequence[str], histogram: HistogramView) -> None:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    if len(histogram.counts) == len(bounds):  # else it is of a coordinator that counts nothing
        buckets = list(zip(bounds, map(_number, accumulate(histogram.counts)), strict=True))
        family.add_metric(_labels(labels), buckets, _number(histogram.sum))


def _labels(texts: Sequence[str]) -> list[str]:
    return [text if text.isprintable() else printable(text) for text in texts]


def _number(value: float) -> float:
    """Return a number that a float can hold: a whole number in a file may have hundreds of digits."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
