"""Hosts register, stop and come back with a job running; the servers' own account judges."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import ExitCode
from obcd.hosts.record import HostState, RegisteredEndpoint
from obcd.hosts.registration import Registration
from tests.golden.wording import wording
from tests.support import NEVER_HEDGED, Cluster, CoordinatorProcess, Simulated, prompt_lines, prompts, wait_until

pytestmark = pytest.mark.integration

#: A folder in which everything happens ten times as fast.
QUICK: Mapping[str, float | str] = {
    **NEVER_HEDGED,
    "obcd.coordinator.hosts.host_scanner:SCAN_SECONDS": 0.2,
    "obcd.hosts.roster:SILENT_SECONDS": 2.5,
    "obcd.hosts.roster:DEAD_SECONDS": 6.0,
}


class Host(threading.Thread):
    """A host that registers the endpoints of simulated servers, every fifth of a second, until `stop`."""

    def __init__(self, folder: Path, name: str, urls: Sequence[str], slots: int = 4) -> None:
        super().__init__(daemon=True)
        self.registration = Registration(folder, name, by="test")
        self.endpoints = [RegisteredEndpoint(url=url, slots=slots) for url in urls]
        self.state = HostState.SERVING
        self._is_over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._is_over.is_set():
            self.registration.write(self.state, self.endpoints)
            self._is_over.wait(0.2)

    def stop(self) -> None:
        self._is_over.set()
        self.join(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "hosts"
    made.mkdir()
    return made


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    made: list[Host] = []
    yield made
    for host in made:
        host.stop()


@pytest.fixture
def coordinator(cluster: Cluster, folder: Path) -> CoordinatorProcess:
    config = cluster.configure([], cluster={"hosts": str(folder)})
    return cluster.coordinate(config, tweaks=QUICK)


def states(coordinator: CoordinatorProcess) -> dict[str, str]:
    return {item["name"]: item["state"] for item in coordinator.status()["endpoints"]}


def asked_once(*servers: Simulated) -> set[int]:
    return {count for server in servers for count in server.asked().values()}


def host_view(coordinator: CoordinatorProcess, name: str) -> dict[str, Any]:
    return next((item for item in coordinator.status()["hosts"] if item["name"] == name), {})


def test_job_waits_for_a_host_and_hosts_come_drain_and_die_with_it_running(
    cluster: Cluster, coordinator: CoordinatorProcess, folder: Path, hosts: list[Host]
) -> None:
    # given a job and no host
    first, second = (cluster.simulate("--parallel", 4, "--seconds", 0.3) for _ in range(2))
    coordinator.drop(prompts(60))
    waiting = wait_until(lambda: [job["trouble"] for job in coordinator.status()["jobs"] if job["trouble"]])
    assert waiting[0].startswith(wording("waiting-for-a-host"))
    assert coordinator.status()["troubles"] == []

    # when a host registers, and another one while the first one drains
    hosts.append(Host(folder, "one", first.urls))
    wait_until(lambda: first.in_flight() == 4)
    hosts.append(Host(folder, "two", second.urls))
    hosts[0].state = HostState.DRAINING
    wait_until(lambda: states(coordinator).keys() == set(second.names))
    assert host_view(coordinator, "one")["state"] == "draining"
    sent = len(first.asked())

    # and the second one falls silent, then comes back
    hosts[1].stop()
    wait_until(lambda: states(coordinator) == {second.names[0]: "DRAINING"})
    wait_until(lambda: second.in_flight() == 0)
    wait_until(lambda: states(coordinator) == {})
    hosts.append(Host(folder, "two", second.urls))

    # then everything is answered, and each prompt was sent once
    coordinator.published().assert_complete(60)
    assert len(first.asked()) == sent
    assert asked_once(first, second) == {1}


def test_scan_that_hangs_is_shown_and_stops_nothing(
    cluster: Cluster, quick_server: Simulated, folder: Path, hosts: list[Host]
) -> None:
    config = cluster.configure([], cluster={"hosts": str(folder)})
    tweaks = {**QUICK, "obcd.coordinator.hosts.host_scanner:LIMIT_SECONDS": 1.0}
    coordinator = cluster.coordinate(config, tweaks=tweaks)
    hosts.append(Host(folder, "one", quick_server.urls))
    wait_until(lambda: states(coordinator) == {quick_server.names[0]: "UP"})

    # a process that is stopped answers as little as one that waits for a file server
    scanner = coordinator.status()["processes"]["host scanner"]
    os.kill(scanner, signal.SIGSTOP)
    wait_until(lambda: any("hosts folder unreadable since" in text for text in coordinator.status()["troubles"]))
    coordinator.drop(prompts(4))
    coordinator.published().assert_complete(4)

    # and is replaced, since a file server stops no process
    wait_until(lambda: not coordinator.status()["troubles"])
    assert coordinator.status()["processes"]["host scanner"] != scanner
    assert states(coordinator) == {quick_server.names[0]: "UP"}


def test_batch_waits_for_a_host_too(
    cluster: Cluster, quick_server: Simulated, folder: Path, hosts: list[Host], tmp_path: Path
) -> None:
    config = cluster.configure([], cluster={"hosts": str(folder)})
    (tmp_path / "notes.jsonl").write_bytes(prompt_lines(prompts(4)))
    batch = cluster.begin(
        "batch", "--config", config, "--prompts", tmp_path / "notes.jsonl", "--output_dir", tmp_path / "out",
        tweaks=QUICK,
    )  # fmt: skip
    wait_until(lambda: wording("no-endpoint-can-be-reached-yet") in batch.text())

    hosts.append(Host(folder, "one", quick_server.urls))

    assert batch.wait() == ExitCode.DONE
    assert len(quick_server.asked()) == 4


def test_what_is_in_flight_at_a_host_that_is_gone_is_sent_elsewhere(
    cluster: Cluster, coordinator: CoordinatorProcess, folder: Path, hosts: list[Host]
) -> None:
    slow = cluster.simulate("--parallel", 4, "--seconds", 1000)
    hosts.append(Host(folder, "slow", slow.urls))
    coordinator.drop(prompts(4))
    wait_until(lambda: slow.in_flight() == 4)

    quick = cluster.simulate("--parallel", 4)
    hosts.append(Host(folder, "quick", quick.urls))
    wait_until(lambda: states(coordinator).get(quick.names[0]) == "UP")
    hosts[0].stop()
    hosts[0].registration.close()

    published = coordinator.published()
    published.assert_complete(4)
    assert {line["attempts"] for line in published.responses} == {1}
    assert host_view(coordinator, "slow")["state"] == "gone"
    wait_until(lambda: slow.in_flight() == 0)
