"""The guard of a server with processes: no server outlives it or its actor, and no card has two."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.ray.messages import GuardState, ServerWish
from tests.gpu_support import StandIns, card_uuid, cards, free_base
from tests.support import SOURCES, make_environment, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="obcd host is for Linux"),
]


class StartedGuard:
    """A guard process; this test is its actor."""

    def __init__(self, environment: dict[str, str], wish: dict[str, Any]) -> None:
        self.process: Any = subprocess.Popen(
            [sys.executable, "-m", "obcd.ray.guard"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.report: dict[str, Any] = {"state": "", "url": "", "trouble": ""}
        self.order({"wish": wish, "bind": "127.0.0.1"})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.report = json.loads(line)

    def order(self, order: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def await_state(self, state: GuardState) -> None:
        wait_until(lambda: self.report["state"] == state, what=lambda: f"{state}: {self.report}")

    @property
    def port(self) -> int:
        return int(self.report["url"].rpartition(":")[2])

    def end(self) -> None:
        """End the pipe, as the end of an actor does, and reap the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(30)
        self._reader.join()
        self.process.stdout.close()


class GuardRig:
    """A machine with two cards, of which Ray gives the second."""

    def __init__(self, folder: Path) -> None:
        self.stand_ins = StandIns(folder / "gpus", cards(2))
        base = make_environment(
            folder, TMPDIR=str(folder), CUDA_VISIBLE_DEVICES="1", RAY_JOB_ID="1", RAY_AUTH_TOKEN="t"
        )
        self.environment = self.stand_ins.environment({**base, "PYTHONPATH": str(SOURCES)})
        first = free_base(8)
        self.wish = {**ServerWish.of(Settings(), f"{first}-{first + 7}").to_json(), "settle_seconds": 0.0}
        self.started: list[StartedGuard] = []

    def start(self) -> StartedGuard:
        self.started.append(StartedGuard(self.environment, self.wish))
        return self.started[-1]

    def serve(self) -> StartedGuard:
        guard = self.start()
        guard.await_state(GuardState.SERVING)
        return guard


@pytest.fixture
def rig(runtime: Path) -> Iterator[GuardRig]:
    made = GuardRig(runtime)
    yield made
    for guard in made.started:
        guard.end()
    made.stand_ins.end()


def test_server_is_pinned_to_the_given_card_and_ends_with_the_pipe_of_its_actor(rig: GuardRig) -> None:
    guard = rig.serve()
    environment = rig.stand_ins.recorded(guard.port)
    assert environment["CUDA_VISIBLE_DEVICES"] == card_uuid(1) == guard.report["gpu_uuid"]
    assert "RAY_AUTH_TOKEN" not in environment
    assert guard.report["cards"][0]["memory_used_bytes"]

    guard.end()

    assert guard.process.returncode == 0
    assert rig.stand_ins.alive() == []


def test_server_that_was_killed_comes_back_and_ends_when_its_guard_is_killed(rig: GuardRig) -> None:
    guard = rig.serve()
    first = rig.stand_ins.pid(guard.port)
    rig.stand_ins.switch("stubborn", guard.port)  # it would not heed a TERM
    guard.process.send_signal(signal.SIGKILL)
    guard.process.wait()

    second = rig.serve()

    assert first not in rig.stand_ins.alive()
    second.end()
    assert rig.stand_ins.alive() == []


def test_second_guard_of_a_card_waits_for_the_first_which_drains(rig: GuardRig) -> None:
    first = rig.serve()
    second = rig.start()
    wait_until(lambda: "earlier actor" in second.report["trouble"], what=lambda: str(second.report))
    pids = rig.stand_ins.alive()

    with socket.create_connection(("127.0.0.1", first.port)):
        first.order({"drain": 60.0, "cause": "scaling"})
        first.await_state(GuardState.DRAINING)
        wait_until(lambda: first.report["connections"] == 1, what=lambda: str(first.report))
        assert rig.stand_ins.alive() == pids
    first.await_state(GuardState.ENDED)
    assert first.process.wait(30) == 0

    second.await_state(GuardState.SERVING)
    assert not set(pids) & set(rig.stand_ins.alive())
    second.order({"drain": 0.0, "cause": "down"})
    second.await_state(GuardState.ENDED)
    assert second.report["cause"] == "down"


def test_server_ends_when_no_keeper_renews_its_lease(rig: GuardRig) -> None:
    rig.wish["lease_seconds"] = 4.0
    guard = rig.start()
    guard.await_state(GuardState.ENDED)
    assert guard.report["cause"] == "lease"
    assert rig.stand_ins.alive() == []
