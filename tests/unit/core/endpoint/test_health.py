"""The trust in an endpoint: every move between its states, by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from obcd.core.endpoint.faults import Harm
from obcd.core.endpoint.health import STRIKES, EndpointState, Health
from obcd.core.endpoint.retry import ENDPOINT_BASE, ENDPOINT_LIMIT
from tests.golden.wording import wording

SLOTS = 16


def up(now: float = 0.0) -> Health:
    health = Health("a", since=now)
    health.on_probe(None, now)
    return health


def down(now: float = 0.0) -> Health:
    health = up(now)
    health.on_fault(Harm.DOWN, "not reachable: refused", now, now)
    return health


def suspect(now: float = 100.0) -> Health:
    health = down(0.0)
    health.on_probe(None, now)
    return health


def draining() -> Health:
    health = up()
    health.drain(0.0)
    return health


def test_starting_gets_nothing() -> None:
    health = Health("a")

    assert (health.state, health.open_slots(SLOTS)) == (EndpointState.STARTING, 0)


def test_starting_to_up_by_a_good_probe() -> None:
    health = up()

    assert (health.state, health.reason, health.open_slots(SLOTS)) == (EndpointState.UP, "", SLOTS)


def test_starting_to_down_by_a_failed_probe() -> None:
    health = Health("a")

    health.on_probe("connection refused", 1.0)

    assert (health.state, health.reason, health.open_slots(SLOTS)) == (EndpointState.DOWN, "connection refused", 0)


def test_up_to_suspect_by_strikes_in_a_row() -> None:
    health = up()

    for _ in range(STRIKES - 1):
        health.on_fault(Harm.STRIKE, "no answer", 1.0, 2.0)
    assert health.state is EndpointState.UP
    health.on_fault(Harm.STRIKE, "no answer", 1.0, 2.0)

    assert (health.state, health.reason, health.open_slots(SLOTS)) == (EndpointState.SUSPECT, "no answer", 1)


def test_up_stays_up_when_answers_lie_between_the_strikes() -> None:
    health = up()

    for _ in range(STRIKES * 3):
        health.on_fault(Harm.STRIKE, "no answer", 1.0, 2.0)
        health.on_answer(2.0)

    assert health.state is EndpointState.UP


def test_up_to_down_at_once_by_a_refused_connection() -> None:
    health = down()

    assert (health.state, health.reason) == (EndpointState.DOWN, "not reachable: refused")
    assert ENDPOINT_BASE * 0.75 <= health.retry_at <= ENDPOINT_BASE


def test_up_to_down_by_a_failed_probe() -> None:
    health = up()

    health.on_probe("it accepts connections but does not answer", 1.0)

    assert health.state is EndpointState.DOWN


def test_up_stays_up_when_the_request_was_at_fault() -> None:
    health = up()

    for _ in range(100):
        health.on_fault(Harm.NONE, "bad request", 1.0, 2.0)

    assert health.state is EndpointState.UP


def test_down_to_suspect_by_a_good_probe_after_the_pause_only() -> None:
    health = down()

    states = []
    for at in (health.retry_at - 0.1, health.retry_at):
        health.on_probe(None, at)
        states.append(health.state)

    assert states == [EndpointState.DOWN, EndpointState.SUSPECT]
    assert health.reason == wording("tried-again-one-request-at-a")


def test_down_by_a_probe_alone_is_up_again_by_a_probe() -> None:
    health = Health("a")
    health.on_probe("connection refused", 1.0)

    health.on_probe(None, health.retry_at)

    assert (health.state, health.reason, health.open_slots(SLOTS)) == (EndpointState.UP, "", SLOTS)


def test_suspect_that_a_probe_brings_down_is_suspect_again() -> None:
    health = suspect()
    health.on_probe("connection refused", 101.0)

    health.on_probe(None, health.retry_at)

    assert health.state is EndpointState.SUSPECT


def test_down_stays_down_by_a_failed_probe_and_tells_the_newest_reason() -> None:
    health = down()
    retry_at = health.retry_at

    health.on_probe("its name cannot be resolved", 50.0)

    assert (health.state, health.reason, health.retry_at) == (
        EndpointState.DOWN,
        wording("its-name-cannot-be-resolved"),
        retry_at,
    )


@pytest.mark.parametrize("health", [up(), suspect()], ids=["up", "suspect"])
def test_endpoint_that_answers_nobody_gets_nothing_until_a_probe_after_the_rescue_and_then_one_request(
    health: Health,
) -> None:
    health.on_recovery_step("one token is requested", 200.0)
    health.on_recovery_step("it hangs", 201.0)
    assert (health.state, health.reason) == (EndpointState.DOWN, "it hangs")

    health.on_probe(None, 202.0 + ENDPOINT_LIMIT)

    assert (health.state, health.open_slots(SLOTS)) == (EndpointState.SUSPECT, 1)
    assert "it hangs" in health.reason


@pytest.mark.parametrize("health", [Health("a"), draining()], ids=["starting", "draining"])
def test_rescue_moves_nothing_that_is_not_asked_anyhow(health: Health) -> None:
    before = health.state

    health.on_recovery_step("it hangs", 1.0)

    assert health.state is before


def test_suspect_to_up_by_the_first_answer() -> None:
    health = suspect()

    health.on_answer(101.0)

    assert (health.state, health.reason) == (EndpointState.UP, "")


@pytest.mark.parametrize("harm", [Harm.STRIKE, Harm.DOWN])
def test_suspect_to_down_by_one_more_fault(harm: Harm) -> None:
    health = suspect()

    health.on_fault(harm, "no answer", 100.0, 101.0)

    assert health.state is EndpointState.DOWN


def test_faults_of_requests_sent_before_the_state_began_are_old_news() -> None:
    # given an endpoint that just became suspect, with fifteen requests still in flight from before
    health = suspect(now=100.0)

    # when they fail
    for _ in range(15):
        health.on_fault(Harm.STRIKE, "no answer", 99.0, 101.0)

    # then
    assert health.state is EndpointState.SUSPECT


def test_pause_grows_with_each_fall_up_to_its_limit_and_an_answer_makes_it_short_again() -> None:
    health, now, pauses = up(), 0.0, []
    for _ in range(9):
        health.on_fault(Harm.DOWN, "refused", now, now)
        pauses.append(health.retry_at - now)
        now = health.retry_at
        health.on_probe(None, now)

    assert pauses[:6] == sorted(pauses[:6])
    assert ENDPOINT_LIMIT * 0.75 <= pauses[-1] <= ENDPOINT_LIMIT

    health.on_answer(now)
    health.on_fault(Harm.DOWN, "refused", now, now)
    assert health.retry_at - now <= ENDPOINT_BASE


@pytest.mark.parametrize("health", [up(), down(), suspect(), Health("a")], ids=["up", "down", "suspect", "starting"])
def test_draining_ends_by_nothing_that_happens(health: Health) -> None:
    health.drain(200.0)

    health.on_probe(None, 300.0)
    health.on_probe("refused", 300.0)
    health.on_fault(Harm.DOWN, "refused", 300.0, 300.0)
    health.on_answer(300.0)

    assert (health.state, health.open_slots(SLOTS)) == (EndpointState.DRAINING, 0)


@pytest.mark.parametrize("before", [up, down, suspect, lambda: Health("a")], ids=["up", "down", "suspect", "starting"])
def test_draining_to_starting_when_taken_back(before: Callable[[], Health]) -> None:
    health = before()
    health.drain(200.0)
    health.drain(250.0)
    assert health.since == 200.0

    health.undrain(300.0)
    assert (health.state, health.open_slots(SLOTS)) == (EndpointState.STARTING, 0)
    health.on_fault(Harm.DOWN, "refused", 100.0, 300.0)
    health.on_probe(None, 300.0)

    assert (health.state, health.open_slots(SLOTS)) == (EndpointState.UP, SLOTS)


def test_undrain_moves_nothing_that_does_not_drain() -> None:
    health = suspect()

    health.undrain(200.0)

    assert (health.state, health.since) == (EndpointState.SUSPECT, 100.0)


def test_only_what_a_control_call_found_may_leave_in_a_notification() -> None:
    assert Health("a").probe_failure
    health = down()  # by a request, whose message may quote it
    assert health.probe_failure == ""
    health.on_probe("refused", 1.0)
    assert health.probe_failure == "refused"
    health.on_probe(None, 100.0)
    assert (health.state, health.probe_failure) == (EndpointState.SUSPECT, "")
    crashed = up()
    crashed.on_answer(0.0)
    crashed.on_fault(Harm.DOWN, "SECRET", 0.0, 1.0, is_crash=True)
    crashed.forgive_crashes(2.0)
    assert crashed.probe_failure == ""
    crashed.drain(3.0)
    crashed.undrain(4.0)
    assert crashed.probe_failure == Health("a").probe_failure
