"""Every move of an endpoint is one line of the log, whoever caused it; and why nothing can be asked is one sentence."""

from __future__ import annotations

import logging

import pytest

from obcd.coordinator.endpoints.state_messages import describe_outage
from obcd.core.answer.counts import Counts
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.health import STRIKES, EndpointState, Health
from obcd.ollama.control import Probe
from obcd.workers.messages import Answered, Faulted, Probed
from obcd.workers.pool import Received
from tests.golden.wording import wording
from tests.unit.coordinator.endpoints.test_endpoint_set import MODEL, Cluster

REFUSED = "connection refused: no server listens there"
GOOD = Probed(Probe(None, "0.33.0", {MODEL.model: "sha"}))


class Watched(Cluster):
    """A set of one endpoint that hears from its worker what the test says."""

    def __init__(self) -> None:
        super().__init__({"gpu0": 1}, is_probed=False)

    def say(self, message: Answered | Faulted | Probed, now: float) -> None:
        self.endpoints._receiver._on_message(Received("gpu0", message), now)

    def lease(self, now: float) -> int:
        return self.scheduler.assign(now)[0].ticket

    def fail(self, harm: Harm, now: float) -> None:
        fault = Fault(FaultKind.UNREACHABLE, REFUSED, Remedy.ELSEWHERE, costs_attempt=False, harm=harm)
        self.say(Faulted(self.lease(now), 0, fault), now)

    def answer_one(self, now: float) -> None:
        self.say(Answered(self.lease(now), b"{}", 1, 1, Counts(responses=1)), now)


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    caplog.set_level(logging.INFO)
    return Watched()


def test_endpoint_that_a_request_brings_down_is_followed_until_it_is_up_again(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.say(GOOD, 0.0)
    watched.fail(Harm.DOWN, 1.0)
    watched.say(GOOD, 1.1)  # too early
    watched.say(GOOD, 50.0)
    watched.say(GOOD, 51.0)
    watched.answer_one(60.0)
    watched.answer_one(61.0)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "endpoint gpu0 is UP"),
        ("WARNING", wording("endpoint-gpu0-is-down", REFUSED)),
        ("INFO", wording("endpoint-gpu0-is-being-tried-again")),
        ("INFO", wording("endpoint-gpu0-is-up-again")),
    ]
    assert {(vars(record)["action"], vars(record)["endpoint"]) for record in caplog.records} == {
        ("endpoint_state", "gpu0")
    }


def test_strikes_and_probes_are_told_too(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.say(GOOD, 0.0)
    for _ in range(STRIKES):
        watched.fail(Harm.STRIKE, 1.0)
    watched.answer_one(10.0)
    watched.say(Probed(Probe(REFUSED)), 20.0)
    watched.say(GOOD, 90.0)

    assert caplog.messages[1:] == [
        wording("endpoint-gpu0-gets-one-request-at", REFUSED),
        wording("endpoint-gpu0-is-up-again"),
        wording("endpoint-gpu0-is-down", REFUSED),
        wording("endpoint-gpu0-is-up-again"),
    ]


def test_worker_that_is_lost_is_told(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.say(GOOD, 0.0)
    watched.lease(0.0)
    watched.endpoints.replace_frozen(1e6)

    assert caplog.messages[-1] == wording("endpoint-gpu0-is-down-its-worker")


def test_leaving_and_coming_back_is_told(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.say(GOOD, 0.0)
    watched.lease(0.0)
    watched.reload({"gpu1": 1})
    watched.reload({"gpu0": 1, "gpu1": 1})
    watched.say(GOOD, 5.0)

    assert caplog.messages[1:] == [
        wording("endpoint-gpu0-is-on-its-way"),
        wording("endpoint-gpu0-is-back-in-the"),
        "endpoint gpu0 is UP",
    ]


def test_outage_is_told_while_no_endpoint_is_up(watched: Watched) -> None:
    outages = [watched.endpoints.outage]
    watched.say(GOOD, 0.0)
    outages.append(watched.endpoints.outage)
    watched.fail(Harm.DOWN, 1.0)
    outages.append(watched.endpoints.outage)
    watched.say(GOOD, 50.0)
    outages.append(watched.endpoints.outage)

    assert outages == ["", "", wording("no-endpoint-is-up-gpu0", REFUSED), ""]


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (["DOWN", "UP"], ""),
        (["DOWN", "STARTING"], ""),
        (["DOWN", "SUSPECT"], ""),
        (["DOWN", "DOWN", "DOWN"], wording("no-endpoint-is-up-gpu0-no")),
        ([], wording("no-endpoint-is-up")),
    ],
)
def test_outage_counts_who_cannot_be_asked(states: list[str], told: str) -> None:
    healths = [Health(f"gpu{number}", EndpointState(state), "no server") for number, state in enumerate(states)]

    assert describe_outage(healths) == told
