"""Endpoints that come, stay, go and come back: who has a worker, and who may be asked. No process is started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.endpoints.changes import compare
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.endpoints.receiving import AttemptFailed, RequestAnswered
from obcd.core.answer.counts import Counts
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Remedy, worker_lost
from obcd.core.endpoint.group_size import GroupSize
from obcd.core.endpoint.health import EndpointState
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import JobSettings, Signature
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler
from obcd.workers.messages import Answered, Ask, AskGroup, Faulted, GroupCall, Grouped, tickets_of
from obcd.workers.pool import Received

MODEL = Signature("m:latest", ())


def settings(slots: dict[str, int], connect_timeout: float = 5.0) -> Settings:
    return Settings.model_validate(
        {
            "ollama_instances": {name: {"slots": count} for name, count in slots.items()},
            "requests": {"connect_timeout_seconds": connect_timeout},
        }
    )


class Cluster:
    """Endpoints with a scheduler and a job of a hundred requests."""

    def __init__(self, slots: dict[str, int], *, is_probed: bool = True) -> None:
        self.settings = settings(slots)
        self.scheduler = Scheduler()
        self.endpoints = Endpoints(self.settings, Path("jobs"), self.scheduler, 0.0)
        self.backlog = Backlog("j", bytes(100), (MODEL,), limit=4)
        self.scheduler.add_job(self.backlog, 0.0)
        if is_probed:
            self.probe(slots)

    def probe(self, names: Iterable[str]) -> None:
        for name in names:
            self.scheduler.on_probe(name, {MODEL.model: "d"}, None, 0.0)

    def reload(self, slots: dict[str, int], connect_timeout: float = 5.0) -> None:
        new = settings(slots, connect_timeout)
        self.endpoints.apply(compare(self.settings, new, self.endpoints.leaving), new, 1.0)
        self.settings = new

    def answer(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            assert self.scheduler.answered(lease.ticket, lease.endpoint, 2.0) == lease
        self.endpoints.receive(2.0)

    @property
    def workers(self) -> dict[str, int]:
        """Return `{endpoint with a worker: its slots}`."""
        return {name: self.scheduler.endpoint(name).slots for name in self.endpoints.pool._workers}

    @property
    def names(self) -> list[str]:
        return [item.name for item in self.endpoints.members]


def test_endpoint_that_holds_requests_leaves_after_the_last_one() -> None:
    made = Cluster({"a": 2, "b": 1})
    made.endpoints.figures["a"].version = "0.33.0"
    held = [lease for lease in made.scheduler.assign(0.0) if lease.endpoint == "a"]

    made.reload({"c": 1, "b": 1})
    assert (made.names, made.endpoints.leaving) == (["c", "b", "a"], {"a"})
    made.answer(held[:1])
    assert made.workers == {"a": 2, "b": 1, "c": 1}
    assert made.scheduler.endpoint("a").in_flight == 1
    made.answer(held[1:])

    assert (made.names, made.endpoints.leaving, made.workers) == (["c", "b"], set(), {"b": 1, "c": 1})
    assert made.endpoints.facts()["a"].version == "0.33.0"
    assert made.backlog.unfinished == 98


def test_endpoint_that_holds_nothing_leaves_at_once() -> None:
    made = Cluster({"a": 2, "b": 1})

    made.reload({"b": 1})

    assert (made.names, made.workers) == (["b"], {"b": 1})


def test_endpoint_that_comes_back_keeps_its_worker_and_what_it_holds() -> None:
    made = Cluster({"a": 2, "b": 1})
    held = [lease for lease in made.scheduler.assign(0.0) if lease.endpoint == "a"]
    worker = made.endpoints.pool._workers["a"]
    made.reload({"b": 1})

    made.reload({"a": 3, "b": 1})
    made.answer(held)

    assert made.endpoints.leaving == set()
    assert made.endpoints.pool._workers["a"] is worker
    assert made.workers["a"] == 3
    made.probe("a")
    assert len(made.scheduler.assign(3.0)) == 3


def test_same_server_under_another_name_has_no_worker_until_the_first_name_has_left() -> None:
    made = Cluster({"h:1": 2})
    held = made.scheduler.assign(0.0)

    made.reload({"http://h:1": 2})
    assert made.names == ["http://h:1", "h:1"]
    assert made.workers == {"h:1": 2}
    assert made.scheduler.endpoint("http://h:1").health.state is EndpointState.STARTING
    made.reload({"http://h:1": 4})
    made.answer(held)

    assert made.workers == {"http://h:1": 4}


def test_name_that_waits_for_another_one_may_leave_again() -> None:
    made = Cluster({"h:1": 2})
    held = made.scheduler.assign(0.0)
    made.reload({"http://h:1": 2})

    made.reload({"h:1": 2})
    made.answer(held)

    assert (made.names, made.workers, made.endpoints.leaving) == (["h:1"], {"h:1": 2}, set())


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_slots_and_the_limit_for_connections_are_taken_in(slots: int) -> None:
    made = Cluster({"a": 2})

    made.reload({"a": slots}, connect_timeout=9.0)

    spec = made.endpoints.pool._workers["a"].spec
    assert spec.connect_timeout_seconds == 9.0
    assert len(made.scheduler.assign(1.0)) == slots


def test_worker_is_overdue_by_the_longest_limits_of_any_job_and_not_by_the_last_configuration() -> None:
    made = Cluster({"a": 1})
    made.endpoints.on_limits(JobSettings(model="m", load_timeout_seconds=100.0, request_timeout_seconds=500.0))
    made.scheduler.assign(0.0)
    made.endpoints.on_limits(JobSettings(model="m", load_timeout_seconds=1.0, request_timeout_seconds=1.0))

    made.endpoints.replace_frozen(600.0)

    assert made.scheduler.endpoint("a").in_flight == 1


def test_frozen_worker_is_replaced_and_each_of_its_requests_comes_back_as_a_failed_attempt() -> None:
    made = Cluster({"a": 2})
    held = made.scheduler.assign(0.0)
    fault = replace(worker_lost(), costs_attempt=False)

    events = made.endpoints.replace_frozen(10_000.0)

    assert events == [AttemptFailed(lease, 0, fault, is_final=False) for lease in held]
    assert made.endpoints.figures["a"].faults == 2
    assert made.scheduler.endpoint("a").in_flight == 0


def test_late_answer_is_no_event() -> None:
    made = Cluster({"a": 1})
    (lease,) = made.scheduler.assign(0.0)
    answer = Answered(lease.ticket, b"{}", 1, 1, Counts(responses=1))
    message = Received("a", answer)

    assert made.endpoints._receiver._on_message(message, 1.0) == RequestAnswered(lease, answer)
    assert made.endpoints._receiver._on_message(message, 2.0) is None
    assert made.endpoints.figures["a"].answered == 1


def embedding_cluster(count: int, size: int) -> Cluster:
    made = Cluster({"a": 4})
    signature = Signature("m:latest", (), True)
    made.scheduler.remove_job("j")
    made.scheduler.add_job(Backlog("j", bytes(count), (signature,), limit=4), 0.0)
    found = made.scheduler.endpoint("a").group_sizes[signature.model] = GroupSize(size)
    found._left = None
    return made


def sent_by(made: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[Ask | AskGroup]:
    sent: list[Any] = []
    monkeypatch.setattr(made.endpoints.pool, "send", lambda _, message: sent.append(message))
    made.endpoints.dispatch(0.0)
    return sent


def test_texts_for_vectors_are_sent_in_groups_and_their_results_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made = embedding_cluster(100, 16)
    sent = sent_by(made, monkeypatch)
    assert [tickets_of(message) for message in sent] == [tuple(range(1, 17)), tuple(range(17, 33))]

    # when the first group is answered, except for one of them
    tickets = tickets_of(sent[0])
    late = Fault(FaultKind.TOO_LONG, "too long", Remedy.NEVER)
    outcomes: list[Answered | Faulted] = [Answered(ticket, b"{}", 1, 0, Counts(responses=1)) for ticket in tickets[1:]]
    outcomes.append(Faulted(1, 1, late))
    monkeypatch.setattr(made.endpoints.pool, "find_ready", lambda _: ["a"])
    monkeypatch.setattr(
        made.endpoints.pool,
        "receive",
        lambda *_: iter([Received("a", Grouped(tuple(outcomes), (GroupCall(15, 15, 0.1),)))]),
    )
    events = made.endpoints.receive(1.0)

    assert [type(event) for event in events] == [RequestAnswered] * 15 + [AttemptFailed]
    assert made.endpoints.in_flight == 16
    assert made.endpoints.figures["a"].answered == 15


def test_single_text_is_a_group_of_one_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    made = embedding_cluster(2, 1)

    sent = sent_by(made, monkeypatch)

    assert [type(message) for message in sent] == [AskGroup, AskGroup]


def test_openai_lines_are_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = embedding_cluster(100, 16)
    made.scheduler._state.backlogs["j"].may_share = False

    sent = sent_by(made, monkeypatch)

    assert [type(message) for message in sent] == [Ask] * 4
