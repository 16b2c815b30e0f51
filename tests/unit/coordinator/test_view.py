"""The view: what is in status.json and progress.json, under which keys, in which order; and reading it back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obcd.config.settings import Settings
from obcd.coordinator.jobs.job_lifecycle import MOST_REPORTED
from obcd.coordinator.jobs.running_job import idle_view
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.metering.counters import CountersView, HistogramView, ModelCountersView
from obcd.coordinator.view import (
    EndpointView,
    FurtherJobView,
    HostView,
    JobState,
    JobView,
    PublishedView,
    PullView,
    RejectedView,
    ReloadView,
    View,
    WaitingView,
)
from obcd.core.documents import Document
from obcd.spool.folders.layout import Layout
from tests.unit.coordinator.jobs.test_running_job import job

#: All keys of status.json, in their order; those of the objects in its lists.
STATUS_KEYS = [
    "format", "version", "pid", "root", "inbox", "outbox", "per_user", "state", "updated", "updated_at", "troubles",
    "notes", "takes_reloads", "reloads", "eta_seconds", "jobs", "further_jobs", "endpoints", "hosts", "pulls",
    "settling", "waiting", "rejected", "published", "processes", "requests_waiting",
    "free_bytes", "min_free_bytes", "cards", "counters",
]  # fmt: skip
IDLE_KEYS = [
    "job", "name", "profile", "drop_id", "parent", "uid", "state", "priority", "context", "total", "done", "failed",
    "failed_by_class", "cut_short", "empty", "tokens_per_second", "requests_per_second", "work_seconds",
    "prompt_eval_seconds", "eta_seconds", "trouble",
]  # fmt: skip
ENDPOINT_KEYS = [
    "name", "url", "gpu", "slots", "finds_slots", "in_flight", "state", "reason", "version", "models", "answered",
    "faults", "tokens_per_second", "left_out", "host", "digests", "loaded", "loaded_num_ctx", "prompt_tokens",
    "output_tokens",
]  # fmt: skip
#: Keys that are left out where there is nothing to say.
LEFT_OUT = ("window", "yields")
OTHER_KEYS: dict[type[Document], list[str]] = {
    FurtherJobView: ["job", "profile", "name", "state"],
    EndpointView: [*ENDPOINT_KEYS, *LEFT_OUT],
    HostView: ["name", "owner", "by", "state", "age_seconds", "endpoints", "seconds_left", "why", "cards"],
    PullView: ["endpoint", "model", "percent"],
    WaitingView: ["file", "why", "reason"],
    RejectedView: ["file", "folder", "why"],
    PublishedView: ["job", "name", "folder", "responses", "failures", "empty"],
    CountersView: [
        "since",
        "responses",
        "failures",
        "retries",
        "attempts",
        "prompt_tokens",
        "output_tokens",
        "cache_hits",
        "repairs",
        "jobs_finished",
        "models",
        "ticks",
    ],
    ModelCountersView: ["model", "duration", "queue"],
    HistogramView: ["bounds", "counts", "sum"],
    ReloadView: ["number", "began", "at", "is_ok", "text", "exit_code"],
}

#: Names of files may hold bytes that are no UTF-8.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.just("\udc80"), max_size=8)
SIMPLE: dict[object, st.SearchStrategy[object]] = {
    str: TEXTS,
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    object: st.none() | st.booleans() | st.integers() | st.lists(TEXTS, max_size=2),
    type(None): st.none(),
}


def values_of(hint: object) -> st.SearchStrategy[object]:
    """Make any values of a field's type."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    if isinstance(hint, type) and issubclass(hint, Document):
        return views_of(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return st.lists(values_of(inner[0]), max_size=2).map(tuple)
    if origin is Mapping:
        return st.dictionaries(TEXTS, values_of(inner[1]), max_size=2)
    return st.one_of([values_of(item) for item in inner])


def views_of(kind: type[Document]) -> st.SearchStrategy[Any]:
    """Make any values of a class."""
    return st.builds(kind, **{name: values_of(hint) for name, hint in get_type_hints(kind).items()})


@pytest.mark.parametrize("kind", [View, JobView, *OTHER_KEYS], ids=lambda kind: kind.__name__)
def test_what_is_written_is_read_back(kind: type[Document]) -> None:
    @settings(max_examples=25, deadline=None)
    @given(views_of(kind))
    def is_read_back(view: Document) -> None:
        text = json.dumps(view.to_json(), ensure_ascii=False).encode("utf-8", "backslashreplace")
        assert kind.from_json(json.loads(text)) == view

    is_read_back()


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """Yield a coordinator of one endpoint that was not started."""
    made = Coordinator(Settings.model_validate({"ollama_instances": {"a": 0}}), Layout.at(tmp_path / "root"))
    yield made
    made._recorder.stop(5)


def test_status_has_these_keys_in_this_order(coordinator: Coordinator) -> None:
    written = coordinator.view(0.0).to_json()

    assert list(written) == STATUS_KEYS
    assert [list(item) for item in json.loads(json.dumps(written))["endpoints"]] == [ENDPOINT_KEYS]


@pytest.mark.parametrize("kind", OTHER_KEYS, ids=lambda kind: kind.__name__)
def test_object_in_a_list_of_status_has_these_keys(kind: type[Document]) -> None:
    @settings(max_examples=1)
    @given(views_of(kind))
    def has_them(view: Document) -> None:
        keys = list(view.to_json())
        assert keys == [key for key in OTHER_KEYS[kind] if key in keys or key not in LEFT_OUT]

    has_them()


def test_progress_has_these_keys_in_this_order() -> None:
    running, openai = job(10, 4, 2.0), job(10, 4, 2.0)
    openai.header = replace(openai.header, asks="/v1/embeddings")

    assert list(idle_view(running.header, JobState.ACCEPTED).to_json()) == IDLE_KEYS
    assert list(running.view(0.0).to_json()) == [*IDLE_KEYS, "updated_at"]
    assert list(openai.view(0.0).to_json()) == [*IDLE_KEYS, "updated_at", "batch"]


def test_what_status_has_no_keys_for_is_counted_all_the_same(coordinator: Coordinator) -> None:
    header = job(500, 0, 0.0).header
    for number in range(MOST_REPORTED + 2):
        coordinator.jobs.take(replace(header, id=f"j{number}"))

    view = coordinator.view(0.0)

    assert (len(view.jobs), len(view.further_jobs)) == (MOST_REPORTED, 2)
    assert (view.unfinished, view.requests) == (MOST_REPORTED + 2, 500 * (MOST_REPORTED + 2))
    assert len(view.all_jobs) == view.unfinished


def test_requests_of_paused_jobs_do_not_wait(coordinator: Coordinator) -> None:
    header = job(500, 0, 0.0).header
    for name in ("a", "b", "c"):
        coordinator.jobs.take(replace(header, id=name))
    coordinator.jobs.pause(frozenset("b"))

    assert coordinator.view(0.0).requests_waiting == 1000


def test_file_of_an_older_coordinator_is_read(coordinator: Coordinator) -> None:
    written = coordinator.view(0.0).to_json()
    for key in ("further_jobs", "pulls", "notes", "rejected", "per_user", "takes_reloads", "reloads", "counters"):
        del written[key]

    view = View.from_json(json.loads(json.dumps(written)))

    assert (view.state, view.further_jobs, view.takes_reloads) == ("STARTING", (), False)
    assert view.counters == CountersView()
