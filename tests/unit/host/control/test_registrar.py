"""What a host writes into its record while it starts, serves, loses a port and ends."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.host.control.registrar import Content, RecordWriter, Registrar, run
from obcd.host.servers.plan import HostPlan, Server
from obcd.hosts.record import CardReading, HostState, RegisteredEndpoint
from obcd.hosts.registration import Registration
from tests.support import wait_until

READING = {
    "uuid": "GPU-0", "index": 0, "is_lost": False, "utilisation_percent": 93, "memory_used_bytes": 5,
    "memory_total_bytes": 8, "temperature_celsius": 60, "power_watts": 300.0, "energy_joules": 8e6,
    "ecc_uncorrected": 0, "throttle": [],
}  # fmt: skip


class Place:
    """A host of two servers, its watch's file, and the connections to it."""

    def __init__(self, folder: Path) -> None:
        servers = tuple(
            Server(label=str(n), pin=f"GPU-{n}", gpu=n, card="H100", memory_bytes=0, port=1000 + n, variables={})
            for n in range(2)
        )
        self.plan = HostPlan(bind="10.0.0.11", name="10.0.0.11", vendor="nvidia", ollama="/o", parallel=16,
                             servers=servers)  # fmt: skip
        self.folder = folder
        self.offered: list[Content] = []
        self.connections: frozenset[str] = frozenset()
        self.notified: list[dict[str, str | int]] = []
        self.registrar = Registrar(self.plan, folder, self.offered.append, self.notify, lambda _: self.connections)

    def notify(self, **fields: str | int) -> None:
        self.notified.append(fields)

    def watch(self, *, answering: tuple[int, ...] = (), held: tuple[int, ...] = (), **more: Any) -> None:
        servers = {
            str(n): {
                "version": "0.33.0", "condition": {"is_answering": n in answering},
                "facts": {"holder": "process 7 (nc)" if n in held else ""},
            }
            for n in range(2)
        }  # fmt: skip
        (self.folder / "watch.json").write_text(json.dumps({"servers": servers, **more}), "utf-8")

    def ports(self) -> list[int]:
        return [int(item.url.rpartition(":")[2]) for item in self.offered[-1][1]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_an_endpoint_is_registered_when_its_server_has_answered_and_then_stays(place: Place) -> None:
    place.registrar.tick(100.0)
    assert place.offered == [(HostState.SERVING, (), ())]

    place.watch(answering=(0,), cards={"GPU-0": READING}, xid_counts={"GPU-0": {"count": 2, "last": 79}})
    place.registrar.tick(100.5)
    endpoint = RegisteredEndpoint(url="http://10.0.0.11:1000", gpu=0, gpu_uuid="GPU-0", slots=16, version="0.33.0")
    card = CardReading(uuid="GPU-0", index=0, name="H100", utilization=0.93, memory_used_bytes=5, memory_total_bytes=8,
                       temperature_celsius=60, power_watts=300.0, energy_joules=8e6, xid_errors=2,
                       last_xid=79)  # fmt: skip
    assert place.offered[1:] == [(HostState.SERVING, (endpoint,), (card,))]

    place.watch()  # it is restarted: the coordinator finds that out by itself
    place.registrar.tick(101.0)
    assert len(place.offered) == 2


def test_endpoints_yield_if_the_plan_says_so(place: Place) -> None:
    place.registrar = Registrar(replace(place.plan, yields=True), place.folder, place.offered.append, place.notify)
    place.watch(answering=(0,))

    place.registrar.tick(100.0)

    assert [item.yields for item in place.offered[-1][1]] == [True]


def test_readings_of_an_older_watch_have_no_energy_and_no_faults(place: Place) -> None:
    readings = {key: value for key, value in READING.items() if key != "energy_joules"}
    place.watch(answering=(0,), cards={"GPU-0": readings})

    place.registrar.tick(100.0)

    (card,) = place.offered[-1][2]
    assert (card.power_watts, card.energy_joules, card.xid_errors, card.last_xid) == (300.0, None, 0, None)


def test_a_port_that_another_process_has_taken_is_no_endpoint(place: Place) -> None:
    place.watch(answering=(0, 1))
    place.registrar.tick(100.0)
    assert place.ports() == [1000, 1001]

    place.watch(answering=(0, 1), held=(1,))
    place.registrar.tick(100.5)
    assert place.ports() == [1000]


def test_the_record_is_written_every_ten_seconds_whatever_the_watch_does(place: Place) -> None:
    (place.folder / "watch.json").write_text("{", "utf-8")
    for tenth in range(300):
        place.registrar.tick(100.0 + tenth / 10)

    assert len(place.offered) == 3


def test_a_host_drains_until_no_connection_lasts(place: Place) -> None:
    place.watch(answering=(0,))
    place.connections = frozenset(("a", "b"))
    place.registrar.tick(100.0)
    place.registrar.drain(100.0, 60.0)

    assert not any(place.registrar.tick(100.0 + half / 2) for half in range(20))
    assert place.offered[-1][0] is HostState.DRAINING
    assert place.ports() == [1000]
    assert place.notified[-1] == {"EXTEND_TIMEOUT_USEC": 10_000_000}  # systemd would end it before
    place.connections = frozenset(("c",))  # a probe: it was not there at the look before
    assert place.registrar.tick(111.0)


def test_a_drain_ends_when_its_time_is_over(place: Place) -> None:
    place.connections = frozenset("a")
    place.registrar.drain(100.0, 5.0)

    assert [place.registrar.tick(100.0 + second) for second in range(6)] == [False] * 5 + [True]


def test_the_last_record_says_that_the_host_is_gone(place: Place, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    writer = RecordWriter(Registration(hosts, "gpu1"))
    is_stopped = threading.Event()
    is_stopped.set()

    run(
        Registrar(place.plan, place.folder, writer.offer, place.notify, lambda _: frozenset()),
        writer,
        is_stopped,
        lambda: 0.0,
    )

    assert json.loads((hosts / "gpu1.json").read_text())["state"] == "gone"


def test_a_write_that_hangs_holds_up_nothing_and_the_latest_record_comes_after_it() -> None:
    is_hanging, written = threading.Event(), list[HostState]()

    class Hanging(Registration):
        def __init__(self) -> None:
            pass

        def write(self, state: HostState, *_: object) -> str:
            if not written:
                is_hanging.wait(10)
            written.append(state)
            return ""

    writer = RecordWriter(Hanging())
    for state in (HostState.SERVING, HostState.SERVING, HostState.GONE):
        writer.offer((state, (), ()))

    assert not writer.finish(0.01)
    is_hanging.set()
    assert writer.finish(10.0)
    wait_until(lambda: written[-1] is HostState.GONE)
    assert len(written) <= 3
