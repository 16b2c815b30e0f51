"""The steps in a worker: one round for each silence, reported step by step, and never in the middle for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.endpoint.recovery_steps import SILENCE, RecoveryFinding, RecoveryStep, RecoverySteps
from obcd.core.request.records import Signature
from obcd.ollama.recovery import RecoveringServer
from obcd.workers import recovery_driver
from obcd.workers.loader import Loader, Preflight
from obcd.workers.recovery_driver import RecoveryDriver
from tests.golden.wording import wording

ASKED = Signature("llama3.2:latest", (("num_ctx", 8192),))
URL = "http://127.0.0.1:1"
YES, NO, SILENT, RELOADED = (
    RecoveryFinding.YES, RecoveryFinding.NO, RecoveryFinding.SILENT, RecoveryFinding.RELOADED,
)  # fmt: skip


class World:
    """A worker whose clock stands still; each round finds what comes next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rounds: Iterable[Iterable[RecoveryFinding]]) -> None:
        self.now, self.patients = 100.0, list[RecoveringServer]()
        self._rounds = iter(rounds)
        monkeypatch.setattr(recovery_driver, "monotonic", lambda: self.now)
        monkeypatch.setattr(recovery_driver, "run", self._run)
        self.loader = Loader(URL, Preflight())
        self.said: list[str] = []
        self.recovery = RecoveryDriver(URL, self.loader, Deadlines(), lambda: None, self.said.append)

    def _run(self, steps: RecoverySteps, server: RecoveringServer) -> None:
        self.patients.append(server)
        for finding in next(self._rounds):
            if steps.step is RecoveryStep.TOKEN:
                server.on_token(finding)
            steps.note(finding, self.now)


def test_nothing_is_done_while_nobody_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [])

    assert world.recovery.try_to_help(None) is None
    assert world.recovery.refusal() is None


def test_silence_is_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [[YES, YES]])
    for _ in range(3):
        assert world.recovery.on_silence(ASKED, 0.0)
    assert world.said == [SILENCE]
    assert world.recovery.refusal() is not None

    assert world.recovery.try_to_help(None) is None
    assert world.recovery.try_to_help(None) is None

    assert [server.signature for server in world.patients] == [ASKED]
    assert world.recovery.refusal() is None


def test_server_that_cannot_be_helped_is_tried_again_when_its_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [[SILENT], [NO]])
    world.loader.on_silence(ASKED, 0.0)

    why = world.recovery.try_to_help(None)
    assert str(why).endswith(wording("start-the-server-again"))
    assert world.recovery.try_to_help(None) == why
    assert len(world.patients) == 1

    world.now += 10.0
    assert world.recovery.try_to_help(None) is None
    assert len(world.patients) == 2


def test_answer_that_comes_all_the_same_ends_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [[SILENT]])
    world.loader.on_silence(ASKED, 0.0)
    world.recovery.try_to_help(None)

    world.loader.note_used(ASKED, "", 0.0)

    assert world.recovery.try_to_help(None) is None
    assert world.recovery.refusal() is None


def test_error_that_nobody_expected_leaves_no_round_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [[YES, NO], [YES, YES]])
    world.loader.on_silence(ASKED, 0.0)

    with pytest.raises(Exception, match="no after token"):
        world.recovery.try_to_help(None)

    assert world.recovery.try_to_help(None) is None


@pytest.mark.parametrize(
    ("rounds", "is_reloaded"),
    [([YES, RELOADED, YES], True), ([YES, YES], False), ([NO], False), ([YES, SILENT, YES, YES, YES], False)],
)
def test_last_attempt_waits_for_the_token_to_know_whether_the_process_hung(
    monkeypatch: pytest.MonkeyPatch, rounds: list[RecoveryFinding], is_reloaded: bool
) -> None:
    world = World(monkeypatch, [rounds])
    world.recovery.on_silence(ASKED, 0.0)
    thread = threading.Thread(target=world.recovery.try_to_help, args=(None,))
    thread.start()

    found = world.recovery.wait_for_reload(ASKED)

    thread.join()
    assert found is is_reloaded


def test_wait_for_the_token_ends_when_a_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [])
    world.recovery.on_silence(ASKED, 0.0)
    world.loader.on_life()
    world.recovery.try_to_help(None)

    assert not world.recovery.wait_for_reload(ASKED)
