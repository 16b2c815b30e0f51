"""Metrics of a view: names, labels and values, whatever the view holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from obcd.coordinator.metering.counters import CounterSet, CountersView, HistogramView, ModelCountersView
from obcd.coordinator.view import (
    EndpointView,
    FurtherJobView,
    HostView,
    JobView,
    PublishedView,
    RejectedView,
    View,
    WaitingView,
    WaitReason,
)
from obcd.core.answer.counts import Counts
from obcd.hosts.record import CardReading
from obcd.metrics.samples import LOCAL, MOST_MODELS, exposition
from tests.unit.coordinator.test_view import views_of

#: All labels that a metric may have; `le` is a histogram's own.
LABELS = {
    "endpoint", "host", "gpu", "uuid", "model", "digest", "outcome", "class", "state", "reason", "kind", "version",
    "le",
}  # fmt: skip
#: Most series that one more endpoint and its card add.
MOST_SERIES = 35
NAMES = re.compile(r"obcd_[a-z]+(_[a-z]+)*")
EMPTY = View(
    version="2.1.0", pid=7, root="/r", inbox="/r/inbox", outbox="/r/outbox", state="READY", updated=1795370000.5,
    updated_at="now",
)  # fmt: skip

Series = dict[str, float]


def families(view: View | None) -> list[Metric]:
    return list(text_string_to_metric_families(exposition(view).decode()))


def series(view: View | None) -> Series:
    """Return `{name{label=value,…}: value}` of the samples."""
    found: Series = {}
    for sample in (sample for family in families(view) for sample in family.samples):
        labels = ",".join(f"{key}={text}" for key, text in sorted(sample.labels.items()))
        found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def endpoint(number: int, models: int = 3, state: str = "UP") -> EndpointView:
    return EndpointView(
        name=f"gpu{number}:11432", url=f"http://gpu{number}:11432", gpu=1, slots=16, in_flight=15, state=state,
        reason="", version="0.33.3", answered=70, faults=3, tokens_per_second=1.0, host=f"gpu{number}",
        digests={f"m{index:02}": f"{index:012}" for index in range(models)},
    )  # fmt: skip


def card(number: int) -> CardReading:
    return CardReading(
        uuid=f"GPU-{number}", index=number, utilization=0.5, memory_used_bytes=2**30, memory_total_bytes=2**34,
        temperature_celsius=60, power_watts=250.5, energy_joules=1e6, xid_errors=2, last_xid=79,
    )  # fmt: skip


def full_view() -> View:
    """Return a view of which every metric has a sample."""
    counters = CounterSet(0.0)
    counters.on_recorded("j", Counts(responses=1, prompt_tokens=9, eval_tokens=9, work_seconds=2.0), "m00")
    counters.on_tick(0.01)
    return replace(
        EMPTY, endpoints=(endpoint(1),), cards=(card(0),), eta_seconds=90.0, free_bytes=2**33, min_free_bytes=2**28,
        counters=counters.view(),
    )  # fmt: skip


def names(found: Iterable[str]) -> set[str]:
    return {name.partition("{")[0] for name in found}


def test_without_a_coordinator_there_is_one_metric() -> None:
    assert series(None) == {"obcd_up": 0}


def test_work_and_space_are_shown() -> None:
    view = replace(
        EMPTY, requests_waiting=800, eta_seconds=90.5, free_bytes=2**33, min_free_bytes=2**28, troubles=("a", "b"),
        further_jobs=(FurtherJobView(job="1", profile="", name="n", state="ACCEPTED"),),
        waiting=(WaitingView(file="f", why="w", reason=WaitReason.DISK),),
    )  # fmt: skip
    found = series(view)

    expected = {
        "obcd_up": 1, "obcd_build_info{version=2.1.0}": 1, "obcd_status_timestamp_seconds": 1795370000.5,
        "obcd_coordinator_state{state=READY}": 1, "obcd_coordinator_state{state=STARTING}": 0, "obcd_troubles": 2,
        "obcd_requests_waiting": 800, "obcd_eta_seconds": 90.5, "obcd_jobs{state=ACCEPTED}": 1,
        "obcd_jobs{state=RUNNING}": 0, "obcd_files_waiting{reason=disk}": 1, "obcd_files_waiting{reason=limit}": 0,
        "obcd_spool_free_bytes": 2**33, "obcd_spool_min_free_bytes": 2**28,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_unknown_time_and_space_are_left_out() -> None:
    found = names(series(EMPTY))

    assert not found & {"obcd_eta_seconds", "obcd_spool_free_bytes", "obcd_spool_min_free_bytes"}


def test_counters_are_those_of_the_coordinator() -> None:
    counters = CounterSet(0.0)
    equal = Counts(responses=2, prompt_tokens=10, eval_tokens=4, work_seconds=2.0, same=1)
    counters.on_recorded("j", equal, "m:latest")
    counters.on_recorded("j", Counts(failures=1), "m:latest", "too_long")
    counters.on_attempt("busy")
    counters.on_tick(0.03)
    found = series(replace(EMPTY, counters=counters.view()))

    expected = {
        "obcd_requests_finished_total{class=,outcome=response}": 2,
        "obcd_requests_finished_total{class=too_long,outcome=failure}": 1,
        "obcd_requests_finished_total{class=timeout,outcome=failure}": 0,
        "obcd_requests_retried_total{reason=busy}": 1, "obcd_requests_retried_total{reason=cut}": 0,
        "obcd_attempts_total": 1, "obcd_tokens_total{kind=prompt}": 5, "obcd_tokens_total{kind=output}": 2,
        "obcd_cache_hits_total": 0, "obcd_repairs_total": 0, "obcd_jobs_finished_total": 0,
        "obcd_request_duration_seconds_bucket{le=1.0,model=m}": 0,
        "obcd_request_duration_seconds_bucket{le=2.5,model=m}": 1,
        "obcd_request_duration_seconds_bucket{le=+Inf,model=m}": 1,
        "obcd_request_duration_seconds_sum{model=m}": 2, "obcd_request_duration_seconds_count{model=m}": 1,
        "obcd_queue_seconds_bucket{le=0.1,model=m}": 1, "obcd_tick_seconds_bucket{le=0.025}": 0,
        "obcd_tick_seconds_bucket{le=0.05}": 1, "obcd_tick_seconds_count": 1,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_endpoint_has_its_state_load_and_digests() -> None:
    found = series(replace(EMPTY, endpoints=(endpoint(7, models=1, state="SUSPECT"),)))

    where = "endpoint=gpu7:11432"
    expected = {
        f"obcd_endpoint_up{{{where},gpu=1,host=gpu7}}": 0,
        f"obcd_endpoint_state{{{where},host=gpu7,state=SUSPECT}}": 1,
        f"obcd_endpoint_state{{{where},host=gpu7,state=UP}}": 0,
        f"obcd_endpoint_slots{{{where},host=gpu7}}": 16,
        f"obcd_endpoint_requests_in_flight{{{where},host=gpu7}}": 15,
        f"obcd_endpoint_attempts_total{{{where},host=gpu7,outcome=response}}": 70,
        f"obcd_endpoint_attempts_total{{{where},host=gpu7,outcome=fault}}": 3,
    }
    assert {name: found[name] for name in expected} == expected
    assert found[f"obcd_endpoint_model_info{{digest=000000000000,{where},host=gpu7,model=m00}}"] == 1


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", LOCAL), ("10.0.0.7", "gpu7"), ("10.0.0.8", "10.0.0.8")])
def test_host_of_an_endpoint_is_the_one_that_registered_it(address: str, host: str) -> None:
    found = replace(endpoint(1), name=f"{address}:11432", host=address)
    record = HostView(name="gpu7", state="serving", endpoints=("10.0.0.7:11432",))

    labels = next(name for name in series(replace(EMPTY, endpoints=(found,), hosts=(record,))) if "slots" in name)
    assert labels == f"obcd_endpoint_slots{{endpoint={address}:11432,host={host}}}"


def test_card_is_shown_once_and_by_its_record_first() -> None:
    host = HostView(name="gpu7", state="serving", cards=(card(0),))
    found = series(replace(EMPTY, hosts=(host,), cards=(card(0), card(1))))

    assert found["obcd_gpu_energy_joules_total{gpu=0,host=gpu7,uuid=GPU-0}"] == 1e6
    assert found["obcd_gpu_power_watts{gpu=1,host=localhost,uuid=GPU-1}"] == 250.5
    assert found["obcd_gpu_xid_errors_total{gpu=1,host=localhost,uuid=GPU-1}"] == 2
    assert sum(name.startswith("obcd_gpu_utilization_ratio") for name in found) == 2


def test_value_that_a_card_does_not_report_is_left_out() -> None:
    found = series(replace(EMPTY, cards=(CardReading(uuid="GPU-0"),)))

    assert {name for name in names(found) if "gpu" in name} == {"obcd_gpu_lost", "obcd_gpu_xid_errors_total"}


def test_endpoint_adds_few_series() -> None:
    def count(endpoints: int) -> int:
        shown = tuple(endpoint(number, models=30) for number in range(endpoints))
        hosts = tuple(
            HostView(name=f"gpu{number}", state="serving", endpoints=(item.name,), cards=(card(number),))
            for number, item in enumerate(shown)
        )
        return len(series(replace(EMPTY, endpoints=shown, hosts=hosts)))

    assert count(28) - count(27) <= MOST_SERIES


def test_models_that_jobs_used_come_first() -> None:
    used = ModelCountersView(model="m99", duration=HistogramView(), queue=HistogramView())
    found = series(replace(EMPTY, endpoints=(endpoint(1, models=100),), counters=CountersView(models=(used,))))

    shown = [name for name in found if name.startswith("obcd_endpoint_model_info")]
    assert len(shown) == MOST_MODELS
    assert any("model=m99" in name for name in shown)


def test_names_and_labels_are_from_the_list() -> None:
    for family in families(full_view()):
        assert NAMES.fullmatch(family.name)
        assert family.documentation.endswith(".")
        assert {label for sample in family.samples for label in sample.labels} <= LABELS


SECRET = "Frau Müller, geb. 3.4."


def secretive(view: View) -> View:
    """Return a view with a secret in every name that is a user's."""
    job = JobView(job=SECRET, name=SECRET, profile=SECRET, state="RUNNING", total=1, trouble=SECRET, context=SECRET)
    return replace(
        view,
        jobs=(job,),
        further_jobs=(FurtherJobView(job=SECRET, profile=SECRET, name=SECRET, state=SECRET),),
        troubles=(SECRET,),
        notes=(SECRET,),
        settling=(SECRET,),
        waiting=(WaitingView(file=SECRET, why=SECRET, reason=SECRET),),
        rejected=(RejectedView(file=SECRET, folder=SECRET, why=SECRET),),
        published=(PublishedView(job=SECRET, name=SECRET, folder=SECRET, responses=1, failures=0),),
        processes={SECRET: 1},
        root=SECRET, inbox=SECRET, outbox=SECRET,
    )  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(views_of(EndpointView), views_of(CardReading), views_of(CountersView))
def test_any_view_gives_metrics_that_can_be_read_and_no_name_of_a_user(
    item: EndpointView, reading: CardReading, counters: CountersView
) -> None:
    host = HostView(name="h", state="serving", endpoints=(item.name,), cards=(reading,))
    text = exposition(secretive(replace(EMPTY, endpoints=(item,), hosts=(host,), counters=counters))).decode("utf-8")

    assert SECRET not in text
    assert [family.name for family in text_string_to_metric_families(text)]
