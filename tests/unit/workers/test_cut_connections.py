"""One connection that breaks, and a server that ends."""

from __future__ import annotations

import socket

import pytest

from obcd.core.request.records import Signature
from obcd.ollama.control import ControlError, SilentError
from obcd.ollama.loaded import Loaded
from obcd.workers import cut_connections
from obcd.workers.cut_connections import MOMENT, CutConnections

MODEL = Signature("m:latest", ())
LOADED = (Loaded(name="m:latest", size_bytes=1, vram_bytes=1),)


class World:
    """A server in which requests are in flight, and a clock that moves only while somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:1") -> None:
        self.now, self.others = 100.0, list[int]()
        self.loaded: tuple[Loaded, ...] | ControlError = LOADED
        monkeypatch.setattr(cut_connections, "monotonic", lambda: self.now)
        monkeypatch.setattr(cut_connections, "ask_loaded", self._ps)
        self.cuts = CutConnections(url, self._wait)

    def _ps(self, *_: object) -> tuple[Loaded, ...]:
        if isinstance(self.loaded, ControlError):
            raise self.loaded
        return self.loaded

    def _wait(self, seconds: float) -> None:
        """Let the others notice meanwhile that they are cut too."""
        self.now += seconds / 2
        others, self.others = self.others, []
        for slot in others:
            self.cuts.is_server_gone(slot, MODEL, None)
        self.now += seconds / 2

    def is_gone(self, slot: int = 1, signature: Signature | None = MODEL) -> bool:
        return self.cuts.is_server_gone(slot, signature, None)

    def send(self, *slots: int) -> None:
        for slot in slots:
            self.cuts.begin(slot)
        self.now += 1.0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_r26_all_in_flight_cut_at_once_is_the_end_of_the_server(world: World) -> None:
    world.send(1, 2, 3)
    world.others = [2, 3]

    assert world.is_gone()


def test_r26_lone_request_is_cut_by_the_end_of_its_server_if_the_model_is_gone_with_it(world: World) -> None:
    world.send(1)
    world.loaded = ()
    assert world.is_gone()

    world.send(1)
    world.loaded = SilentError("it starts")
    assert world.is_gone()

    world.send(1)
    world.loaded = ControlError("connection refused")  # and nothing listens at that port
    assert world.is_gone()


def test_connection_that_breaks_beside_others_is_one_connection(world: World) -> None:
    world.send(1, 2)

    assert not world.is_gone()


def test_connection_that_breaks_alone_is_one_where_the_server_goes_on(world: World) -> None:
    world.send(1)

    assert not world.is_gone()


def test_two_that_break_beside_a_third_are_two_connections(world: World) -> None:
    world.send(1, 2, 3)
    world.cuts.is_server_gone(2, MODEL, None)

    assert not world.is_gone()


def test_requests_that_end_or_begin_meanwhile_say_nothing(world: World) -> None:
    world.send(1, 2, 3)
    world.cuts.end(3)
    world.others = [2]
    world.now += MOMENT

    assert world.is_gone()


def test_server_that_lists_no_models_and_listens_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        world = World(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        world.loaded = ControlError("it answers with status 404")
        world.send(1)

        assert not world.is_gone()


def test_model_that_was_being_loaded_need_not_be_there(world: World) -> None:
    world.loaded = ()

    assert not world.is_gone(signature=None)
