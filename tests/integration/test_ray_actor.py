"""The actor without Ray, over guards that a line of Python stands in for: looks, leases, keepers, ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from obcd.ray import gpu_server
from obcd.ray.gpu_server import GpuServer
from obcd.ray.messages import GuardState, ServerReport
from tests.support import wait_until

pytestmark = pytest.mark.integration

#: Reports its process, then each order that it gets; `end` makes it report its end.
GUARD = """
import json, os, sys
for line in sys.stdin:
    order = json.loads(line)
    state = "ended" if "drain" in order else "serving"
    print(json.dumps({"state": state, "trouble": f"{os.getpid()} {sorted(order)}", "cause": order.get("cause", "")}),
          flush=True)
    if state == "ended":
        break
"""


class FakeRay:
    """The few names of Ray that an actor uses."""

    def __init__(self) -> None:
        self.killed: list[tuple[object, bool]] = []
        self.util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.11")

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(current_actor="me")

    def kill(self, actor: object, *, no_restart: bool) -> None:
        self.killed.append((actor, no_restart))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    made = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setattr(gpu_server, "GUARD", (sys.executable, "-ISc", GUARD))
    monkeypatch.setattr(gpu_server, "REPORT_SECONDS", 0.5)
    monkeypatch.setattr(gpu_server, "PAUSES", (0.05, 0.1))
    return made


def report(actor: GpuServer, keeper: str = "", known: int = -1) -> ServerReport:
    return ServerReport.from_json(actor.look(keeper, known)["report"])


def guard(actor: GpuServer) -> int:
    wait_until(lambda: report(actor).trouble, what="a guard reports")
    return int(report(actor).trouble.split()[0])


def end(actor: GpuServer, ray: FakeRay) -> None:
    actor.drain(0.0, "scaling")
    wait_until(lambda: ray.killed, what="the actor has ended")


def test_a_look_waits_for_the_next_report_and_renews_the_lease(ray: FakeRay) -> None:
    actor = GpuServer({"ports": "0"})
    guard(actor)

    first = actor.look("m1/7", actor.look("", -1)["number"])

    assert first["held_by"] == ""
    assert first["report"]["trouble"].endswith("['lease']")
    json.dumps(first)  # it crosses to another process
    end(actor, ray)


def test_a_keeper_of_another_machine_is_refused_and_one_of_this_machine_takes_over(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = GpuServer({})
    guard(actor)
    actor.look("m1/7", -1)

    assert actor.look("m2/9", -1)["held_by"] == "m1/7"
    assert actor.look("m1/8", -1)["held_by"] == ""
    monkeypatch.setattr(gpu_server, "TAKEOVER_SECONDS", 0.0)
    assert actor.look("m2/9", -1)["held_by"] == ""
    end(actor, ray)


def test_a_guard_that_is_killed_is_replaced(ray: FakeRay) -> None:
    actor = GpuServer({})
    first = guard(actor)

    os.kill(first, signal.SIGKILL)

    wait_until(lambda: guard(actor) != first, what="another guard reports")
    assert ray.killed == []
    end(actor, ray)


def test_an_actor_whose_server_has_drained_ends_for_good(ray: FakeRay) -> None:
    actor = GpuServer({})
    guard(actor)

    began = time.monotonic()
    actor.drain(5.0, "down")
    wait_until(lambda: report(actor).state == GuardState.ENDED)

    assert report(actor).cause == "down"
    wait_until(lambda: ray.killed)
    assert ray.killed == [("me", True)]
    assert time.monotonic() - began >= 0.5  # the keeper reads the report first
