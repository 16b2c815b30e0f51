from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from obcd.host.watch import probing
from obcd.host.watch.probing import LIMIT, PERIOD, SHORT_PERIOD, Prober, ServerProbe
from obcd.host.watch.watch_rules import ProbeAnswer
from obcd.ollama.loaded import Loaded
from tests.support import wait_until
from tests.unit.host.fake_servers import MODEL, Server

HELD = Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=40, context_length=8192)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.end()


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(probing, "monotonic", made)
    return made


def next_probe(prober: Prober, now: float) -> ServerProbe:
    """Turn at one moment until another probe is there."""
    number = prober.latest("0").number

    def has_come() -> bool:
        prober.tick(now)
        return prober.latest("0").number > number

    wait_until(has_come, 5.0)
    return prober.latest("0")


def test_a_probe_tells_models_and_version(server: Server, clock: Clock) -> None:
    prober = Prober({"0": server.url})
    assert prober.latest("0").answer is ProbeAnswer.UNKNOWN
    assert next_probe(prober, clock.now) == ServerProbe(
        number=1, answer=ProbeAnswer.ANSWERED, models=(HELD,), version="0.33.0"
    )


def test_the_version_is_asked_once_a_process_and_kept(server: Server, clock: Clock) -> None:
    prober = Prober({"0": server.url})
    next_probe(prober, clock.now)
    clock.now += PERIOD
    assert next_probe(prober, clock.now).version == "0.33.0"
    assert server.asked == ["/api/ps", "/api/version", "/api/ps"]

    prober.forget("0")
    assert prober.latest("0") == ServerProbe(number=2)
    next_probe(prober, clock.now)
    assert server.asked[3:] == ["/api/ps", "/api/version"]


def test_who_answers_is_asked_again_after_a_while_and_who_does_not_sooner(server: Server, clock: Clock) -> None:
    prober = Prober({"0": server.url})
    next_probe(prober, clock.now)
    clock.now += PERIOD - 0.001
    prober.tick(clock.now)
    assert server.asked.count("/api/ps") == 1
    clock.now += 0.001
    server.status = 500
    assert next_probe(prober, clock.now).answer is ProbeAnswer.STRANGE

    clock.now += SHORT_PERIOD
    server.status = 200
    assert next_probe(prober, clock.now).answer is ProbeAnswer.ANSWERED


def test_a_probe_that_takes_too_long_has_hung_and_its_thread_ends(server: Server, clock: Clock) -> None:
    prober = Prober({"0": server.url})
    server.is_open.clear()
    prober.tick(clock.now)
    wait_until(lambda: server.asked, 5.0)
    (thread,) = (item for item in threading.enumerate() if item.name == "probe")
    prober.tick(clock.now + LIMIT - 0.001)
    assert prober.latest("0").number == 0

    prober.tick(clock.now + LIMIT)

    assert prober.latest("0") == ServerProbe(number=1, answer=ProbeAnswer.HUNG)
    thread.join(2.0)
    assert not thread.is_alive()


def test_an_answer_that_the_process_before_still_owes_is_not_taken_for_the_next_one_s(
    server: Server, clock: Clock
) -> None:
    prober = Prober({"0": server.url})
    server.is_open.clear()
    prober.tick(clock.now)
    wait_until(lambda: server.asked, 5.0)

    prober.forget("0")

    clock.now += LIMIT  # the old question would have hung by now
    prober.tick(clock.now)
    assert prober.latest("0") == ServerProbe()
    server.is_open.set()
    assert next_probe(prober, clock.now).answer is ProbeAnswer.ANSWERED


def test_a_server_that_accepts_nothing_has_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LIMIT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        found = Prober({"0": f"http://127.0.0.1:{deaf.getsockname()[1]}"}).ask_all()
    assert found["0"].answer is ProbeAnswer.HUNG


def test_a_port_without_a_server_refuses() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # held and not listened to
        found = Prober({"0": f"http://127.0.0.1:{held.getsockname()[1]}"}).ask_all()
    assert found["0"].answer is ProbeAnswer.REFUSED


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"[]", b'{"models": [{"name": "m"}]}', b'{"models": [3]}', b'{"models": 7}', b"[" * 100_000,
     b'{"models": [{"name": "m", "size": "big"}]}'],
)  # fmt: skip
def test_what_is_not_ollama_s_answer_is_strange(server: Server, body: bytes) -> None:
    server.bodies["/api/ps"] = body
    assert Prober({"0": server.url}).ask_all()["0"] == ServerProbe(answer=ProbeAnswer.STRANGE)


def test_words_of_http_that_are_none_are_strange(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        prober = Prober({"0": f"http://127.0.0.1:{stranger.getsockname()[1]}"})
        prober.tick(clock.now)
        connection, _ = stranger.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"220 mail.example ESMTP\r\n")
        assert next_probe(prober, clock.now).answer is ProbeAnswer.STRANGE


@pytest.mark.parametrize(
    ("item", "loaded"),
    [
        ({"name": "m", "size": 7}, Loaded(name="m", size_bytes=7, vram_bytes=7)),  # size_vram not told
        ({**MODEL, "context_length": None}, Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=40)),
        ({**MODEL, "size_vram": 0}, Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=0, context_length=8192)),
    ],
)
def test_a_model_is_read_with_what_is_told_of_it(server: Server, item: dict[str, Any], loaded: Loaded) -> None:
    server.bodies["/api/ps"] = json.dumps({"models": [item]}).encode()
    assert Prober({"0": server.url}).ask_all()["0"].models == (loaded,)


def test_what_a_stranger_sends_is_cut_and_cannot_move_the_cursor(server: Server) -> None:
    names = ["\x1b[2J" + "x" * 5000] * 500
    server.bodies["/api/ps"] = json.dumps({"models": [{**MODEL, "name": name} for name in names]}).encode()
    server.bodies["/api/version"] = json.dumps({"version": "\x1b[2J" + "9" * 500}).encode()
    found = Prober({"0": server.url}).ask_all()["0"]
    assert len(found.models) <= 100 or found.answer is ProbeAnswer.STRANGE
    assert "\x1b" not in found.version + "".join(model.name for model in found.models)
    assert len(found.version) <= 70


def test_no_model_at_all_is_an_answer(server: Server) -> None:
    server.bodies["/api/ps"] = b'{"models": null}'
    assert Prober({"0": server.url}).ask_all()["0"] == ServerProbe(answer=ProbeAnswer.ANSWERED, version="0.33.0")


def test_one_that_hangs_delays_no_other(server: Server, clock: Clock) -> None:
    other = Server()
    other.is_open.clear()
    prober = Prober({"0": server.url, "1": other.url})
    assert next_probe(prober, clock.now).answer is ProbeAnswer.ANSWERED
    assert prober.latest("1") == ServerProbe()
    other.end()


@pytest.mark.parametrize("key", ["size", "size_vram", "context_length"])
@pytest.mark.parametrize("number", ["1e999", "Infinity", "NaN"])
def test_a_number_that_is_none_is_strange_and_no_hang(server: Server, clock: Clock, key: str, number: str) -> None:
    server.bodies["/api/ps"] = json.dumps({"models": [{**MODEL, key: 77}]}).replace("77", number).encode()
    assert next_probe(Prober({"0": server.url}), clock.now).answer is ProbeAnswer.STRANGE


def test_a_version_that_does_not_come_is_no_hang(server: Server, clock: Clock) -> None:
    server.bodies["/api/version"] = b"["
    assert next_probe(Prober({"0": server.url}), clock.now) == ServerProbe(
        number=1, answer=ProbeAnswer.ANSWERED, models=(HELD,)
    )


def test_the_version_has_a_time_of_its_own(server: Server, clock: Clock) -> None:
    prober = Prober({"0": server.url})
    server.slow.add("/api/version")
    server.is_open.clear()
    prober.tick(clock.now)
    wait_until(lambda: server.asked == ["/api/ps", "/api/version"], 5.0)
    prober.tick(clock.now + LIMIT + 0.1)
    assert prober.latest("0").answer is ProbeAnswer.UNKNOWN
    prober.tick(clock.now + 2 * LIMIT)
    assert prober.latest("0").answer is ProbeAnswer.ANSWERED
