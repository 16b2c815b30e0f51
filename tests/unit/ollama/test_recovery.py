"""The steps of a recovery as calls to a server. No server is asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from obcd.core.endpoint.recovery_steps import RecoveryStep, RecoverySteps
from obcd.core.request.records import Signature
from obcd.ollama import recovery
from obcd.ollama.control import SILENT, ControlError, SilentError
from obcd.ollama.loaded import Loaded
from obcd.ollama.recovery import RecoveringServer, run
from tests.golden.wording import wording

ASKED = Signature("llama3.2:latest", (("num_ctx", 8192),))
LOADED = (Loaded(name="llama3.2:latest", size_bytes=1, vram_bytes=1),)
HANGS, BROKEN = SilentError(SILENT), ControlError("it answers with status 500")


class Server:
    """Stands for the calls: each look tells the next of its answers, the last one for ever."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        looks: list[tuple[Loaded, ...] | ControlError],
        token: ControlError | None = None,
        unloads: ControlError | None = None,
    ) -> None:
        self.calls: list[str] = []
        self.said: list[str] = []
        self.is_well = False
        self._looks = looks
        monkeypatch.setattr(recovery, "ask_loaded", self._look)
        monkeypatch.setattr(recovery, "ask_one_token", self._caller("token", token))
        monkeypatch.setattr(recovery, "unload", self._caller("unload", unloads))
        monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.0)
        seconds = itertools.count()
        monkeypatch.setattr(recovery, "monotonic", lambda: float(next(seconds)))

    def recover(self) -> RecoverySteps:
        """Take one round."""
        asked = RecoveringServer(
            url="http://x",
            signature=ASKED,
            token_seconds=30.0,
            is_well=lambda: self.is_well,
            break_off=lambda: self.calls.append("break off"),
            tell=self.said.append,
        )
        steps = RecoverySteps()
        steps.begin(0.0)
        run(steps, asked)
        return steps

    def _look(self, *_: object) -> tuple[Loaded, ...]:
        found = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(found, ControlError):
            raise found
        return found

    def _caller(self, name: str, error: ControlError | None) -> Callable[..., None]:
        def call(*_: object) -> None:
            self.calls.append(name)
            if error is not None:
                raise error

        return call


@pytest.mark.parametrize("token", [None, BROKEN], ids=["slow", "errors"])
def test_server_that_answers_at_all_is_not_touched(monkeypatch: pytest.MonkeyPatch, token: ControlError | None) -> None:
    server = Server(monkeypatch, [LOADED], token)

    assert server.recover().step is RecoveryStep.OVER
    assert server.calls == ["token"]
    assert [text.partition(":")[0] for text in server.said] == [wording("nobody-is-answered"), wording("a-token-came")]


def test_process_that_the_server_has_replaced_hung_and_did_not_just_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [LOADED])
    monkeypatch.setattr(recovery, "ask_one_token", lambda *_: 12.5)

    assert server.recover().step is RecoveryStep.OVER
    assert server.calls == ["break off"]
    assert server.said[-1] == wording("it-hung-and-the-server-has")
    assert not any("does not hang" in text for text in server.said)


def test_token_of_a_loaded_model_shows_that_the_server_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [LOADED])
    monkeypatch.setattr(recovery, "ask_one_token", lambda *_: 0.18)  # the most of v0.24

    server.recover()

    assert server.calls == []
    assert server.said[-1].startswith(wording("a-token-came"))


def test_server_that_answers_others_meanwhile_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [LOADED], HANGS)
    server.is_well = True

    assert server.recover().step is RecoveryStep.OVER
    assert server.calls == ["token"]


@pytest.mark.parametrize("look", [(), BROKEN], ids=["nothing loaded", "errors"])
def test_load_that_is_under_way_is_not_broken_off(
    monkeypatch: pytest.MonkeyPatch, look: tuple[Loaded, ...] | ControlError
) -> None:
    server = Server(monkeypatch, [look])

    assert server.recover().step is RecoveryStep.OVER
    assert server.calls == []


def test_model_that_computes_nothing_is_unloaded_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [LOADED, LOADED, LOADED, ()], HANGS)

    assert server.recover().step is RecoveryStep.OVER
    assert server.calls == ["token", "break off", "unload"]
    assert server.said[-1] == wording("it-hung-its-model-is-unloaded-2")


@pytest.mark.parametrize(
    ("looks", "token", "unloads", "reason"),
    [
        ([LOADED], HANGS, None, wording("it-stays-loaded-perhaps-since-somebody")),
        ([LOADED], HANGS, BROKEN, "status 500"),
        ([LOADED, HANGS], HANGS, None, wording("does-not-answer")),
        ([HANGS], None, HANGS, wording("does-not-answer")),
    ],
    ids=["stays", "refuses", "look hangs then", "look hangs"],
)
def test_server_that_needs_somebody_is_left_alone_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    looks: list[tuple[Loaded, ...] | ControlError],
    token: ControlError | None,
    unloads: ControlError | None,
    reason: str,
) -> None:
    server = Server(monkeypatch, looks, token, unloads)

    steps = server.recover()

    assert (steps.step, server.said[-1]) == (RecoveryStep.REST, steps.sentence)
    assert reason in steps.sentence
    assert steps.sentence.endswith(wording("start-the-server-again"))
