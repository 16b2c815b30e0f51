"""A server whose model answers nobody, and one that is only slow: real control calls, a real load after them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from obcd.clock import monotonic
from obcd.core.answer.outcomes import ModelAnswer
from obcd.core.endpoint import deadlines, recovery_steps
from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.endpoint.faults import Fault
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request, signature_of
from obcd.ollama import recovery
from obcd.ollama.client import TIMED_OUT, ask
from obcd.ollama.transport import Transport
from obcd.standins.simulated.gpu_server import Behaviour
from obcd.standins.wire.account import prompt_key
from obcd.workers.loader import Loader, Preflight
from obcd.workers.recovery_driver import RecoveryDriver
from tests.golden.wording import wording
from tests.integration.loopback import SimulatedServer, simulating

pytestmark = pytest.mark.integration

JOB = JobSettings(model="llama3.2", num_ctx=4096, num_predict=64)
EMBEDDING = "nomic-embed-text"
STUCK, ONE_TOKEN = "[[simulate:stuck*1]] why?", prompt_key("Hi")


def request(prompt: str, kind: str = "prompt") -> Request:
    model = EMBEDDING if kind == "embed" else None
    return parse_line(json.dumps({kind: prompt, "model": model}).encode(), 1)


class Client:
    """What a slot and the probe thread of a worker do, one request at a time."""

    def __init__(self, url: str) -> None:
        self._transport, self._loader = Transport(url), Loader(url, Preflight())
        self._recovery = RecoveryDriver(url, self._loader, Deadlines(), lambda: None, lambda _: None)

    def close(self) -> None:
        self._transport.close()

    def ask(self, prompt: str, limit: float = 60.0, kind: str = "prompt") -> ModelAnswer | Fault:
        wanted = request(prompt, kind)
        self.trouble = self._recovery.try_to_help(None)
        fault = self._recovery.refusal() or self._loader.ensure(self._transport, signature_of(wanted, JOB))
        if fault is not None:
            return fault
        sent_at = monotonic()
        timer = threading.Timer(limit, self._transport.abort, (TIMED_OUT,))
        timer.start()
        outcome = ask(self._transport, wanted, JOB)
        timer.cancel()
        self._transport.arm()
        if isinstance(outcome, Fault):
            assert self._loader.on_silence(signature_of(wanted, JOB), sent_at)
        else:
            self._loader.note_used(signature_of(wanted, JOB), "", 0.0)
        return outcome


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedServer]:
    monkeypatch.setattr(deadlines, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(recovery_steps, "REST_BASE", 0.0)
    monkeypatch.setattr(recovery, "GONE_SECONDS", 0.5)
    with simulating(Behaviour(seconds=0.05, load_seconds=0.0, models=("llama3.2", EMBEDDING))) as started:
        yield started


def asked(server: SimulatedServer) -> list[str]:
    return [item["prompt"] for item in server.requests()]


def test_model_that_hangs_is_loaded_anew_and_answers(server: SimulatedServer) -> None:
    with contextlib.closing(Client(server.url)) as client:
        assert isinstance(client.ask("Hello"), ModelAnswer)

        fault = client.ask(STUCK, limit=0.3)

        assert isinstance(fault, Fault)
        assert fault.kind == "timeout"
        # the next one finds out, by one token that does not come, and is answered by the model that is loaded anew
        assert isinstance(client.ask("Hello again"), ModelAnswer)
        assert asked(server) == [prompt_key("Hello"), prompt_key(STUCK), ONE_TOKEN, prompt_key("Hello again")]


def test_server_that_is_slow_keeps_its_model(server: SimulatedServer) -> None:
    with contextlib.closing(Client(server.url)) as client:
        assert isinstance(client.ask("[[simulate:seconds=5]] Hello", limit=0.3), Fault)

        assert isinstance(client.ask("Hello again"), ModelAnswer)

        outcomes = [item["outcome"] for item in server.requests()]
        assert outcomes == ["cancelled", "answered", "answered"]  # the token came: nothing was unloaded
        assert asked(server)[1] == ONE_TOKEN


def test_model_that_cannot_be_unloaded_is_said(server: SimulatedServer) -> None:
    with contextlib.closing(Client(server.url)) as client, contextlib.closing(Transport(server.url)) as other:
        # given somebody else whose request hangs there too: a simulated model is unloaded when nobody uses it
        assert isinstance(client.ask(STUCK, limit=0.3), Fault)
        thread = threading.Thread(target=ask, args=(other, request("and mine?"), JOB))
        thread.start()
        while len(server.requests()) < 2:
            threading.Event().wait(0.01)

        fault = client.ask("Hello")

        assert isinstance(fault, Fault)
        assert fault.kind == "doubted"
        assert str(client.trouble).endswith(wording("start-the-server-again"))
        other.abort(TIMED_OUT)
        thread.join(60)
        # once it is gone the model is unloaded, and all is well
        assert isinstance(client.ask("Hello again"), ModelAnswer)


def test_embedding_model_that_hangs_is_tried_by_a_text_of_its_own_and_loaded_anew(server: SimulatedServer) -> None:
    with contextlib.closing(Client(server.url)) as client:
        assert isinstance(client.ask("Hello", kind="embed"), ModelAnswer)

        fault = client.ask(STUCK, limit=0.3, kind="embed")

        assert isinstance(fault, Fault)
        assert isinstance(client.ask("Hello again", kind="embed"), ModelAnswer)
        assert asked(server) == [*map(prompt_key, ("Hello", STUCK)), ONE_TOKEN, prompt_key("Hello again")]
