"""Whose fault an unknown error is: one token, at most every few seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import Signature
from obcd.ollama.control import RELOADED_SECONDS, ControlError, SilentError
from obcd.ollama.loaded import Loaded
from obcd.workers import refusals
from obcd.workers.refusals import PROOF_SECONDS, Refusals
from tests.support import wait_until

MODEL, OTHER = Signature("m:latest", (("num_ctx", 8),)), Signature("m:latest", (("num_ctx", 16),))
UNKNOWN = Fault(FaultKind.SERVER_ERROR, "the server reports an error", Remedy.ELSEWHERE, harm=Harm.STRIKE, reply="x")


class World:
    """A server that computes its tokens as it is set, and a clock that moves only while somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.load_seconds = 100.0, 0.0
        self.is_loaded: bool | ControlError = True
        self.limits = list[float]()
        self.error: ControlError | None = None
        monkeypatch.setattr(refusals, "monotonic", lambda: self.now)
        monkeypatch.setattr(refusals, "ask_one_token", self._token)
        monkeypatch.setattr(refusals, "ask_loaded", self._ps)
        self.patch = monkeypatch
        self.refusals = Refusals("http://127.0.0.1:1", lambda _: 30.0, self._wait)

    def _token(self, _url: str, _signature: Signature, seconds: float, _token: object) -> float:
        self.limits.append(seconds)
        if self.error is not None:
            raise self.error
        return self.load_seconds

    def _ps(self, *_: object) -> tuple[Loaded, ...]:
        if isinstance(self.is_loaded, ControlError):
            raise self.is_loaded
        return (Loaded(name="m:latest", size_bytes=1, vram_bytes=1),) if self.is_loaded else ()

    def _wait(self, seconds: float) -> None:
        self.now += seconds

    def weigh(self, fault: Fault = UNKNOWN, signature: Signature = MODEL, sent_at: float = 99.0) -> Fault:
        return self.refusals.weigh(fault, signature, sent_at, 900.0, None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_r24_token_that_comes_makes_it_the_fault_of_the_request(world: World) -> None:
    fault = world.weigh()

    assert (fault.kind, fault.remedy, fault.harm) == ("server_error", Remedy.ELSEWHERE, Harm.NONE)
    assert (fault.is_refusal, fault.costs_attempt, fault.reply) == (True, True, "x")


@pytest.mark.parametrize("error", [ControlError("it answers with status 500"), SilentError("no answer")])
def test_r24c_token_that_does_not_come_leaves_it_the_fault_of_the_endpoint(world: World, error: ControlError) -> None:
    world.error = error

    assert world.weigh() == UNKNOWN


def test_token_that_waited_for_its_model_means_a_crash_that_costs_nobody(world: World) -> None:
    world.load_seconds = RELOADED_SECONDS + 1

    fault = world.weigh()

    assert (fault.kind, fault.costs_attempt, fault.harm, fault.is_refusal) == ("crashed", False, Harm.STRIKE, False)


def test_model_that_is_not_loaded_may_take_its_time_to_load(world: World) -> None:
    world.is_loaded = False

    world.weigh()

    assert world.limits == [930.0]


def test_server_that_lists_no_models_proves_itself_all_the_same(world: World) -> None:
    world.is_loaded = ControlError("it answers with status 404")

    assert world.weigh().is_refusal
    assert world.limits == [30.0]


@pytest.mark.parametrize("kind", [FaultKind.BAD_SCHEMA, FaultKind.CRASHED, FaultKind.CUT, FaultKind.TIMEOUT])
def test_known_faults_need_no_token(world: World, kind: FaultKind) -> None:
    fault = Fault(kind, "known", Remedy.NEVER)

    assert world.weigh(fault) is fault
    assert world.limits == []


def test_one_token_serves_all_that_fail_within_seconds(world: World) -> None:
    for _ in range(60):
        assert world.weigh().is_refusal
    assert len(world.limits) == 1

    world.now += PROOF_SECONDS
    world.weigh()

    assert len(world.limits) == 2


def test_after_a_load_only_what_was_sent_before_it_was_in_the_crash(world: World) -> None:
    world.load_seconds = 5.0
    assert world.weigh().kind == "crashed"
    world.load_seconds = 0.0

    assert world.weigh(sent_at=99.5).kind == "crashed"
    assert world.weigh(sent_at=100.5).is_refusal
    assert world.now == 100.0 + PROOF_SECONDS


def test_only_what_has_to_wait_frees_its_slot(world: World) -> None:
    assert world.refusals.needs_proof(UNKNOWN, MODEL, 99.0)
    world.weigh()

    assert not world.refusals.needs_proof(UNKNOWN, MODEL, 99.0)
    assert world.refusals.needs_proof(UNKNOWN, OTHER, 99.0)
    world.now += PROOF_SECONDS
    assert world.refusals.needs_proof(UNKNOWN, MODEL, 99.0)
    assert not world.refusals.needs_proof(Fault(FaultKind.BAD_SCHEMA, "known", Remedy.NEVER), MODEL, 99.0)


def test_what_waited_for_the_proof_of_another_pays_nothing_for_a_broken_endpoint(world: World) -> None:
    world.error = ControlError("it answers with status 500")
    found: list[Fault] = []
    thread = threading.Thread(target=lambda: found.append(world.weigh()))

    def ask(*_: object) -> float:
        thread.start()
        wait_until(lambda: world.refusals._lock.locked() and thread.is_alive())
        time.sleep(0.05)  # it waits at the lock
        raise ControlError("it answers with status 500")

    world.patch.setattr(refusals, "ask_one_token", ask)

    assert world.weigh() == UNKNOWN
    thread.join()

    assert found == [replace(UNKNOWN, costs_attempt=False)]
    assert world.weigh() == UNKNOWN  # from now on it is known


def test_proof_is_for_what_is_loaded(world: World) -> None:
    world.weigh()

    world.weigh(signature=OTHER)

    assert len(world.limits) == 2
    assert world.now == 100.0 + PROOF_SECONDS
