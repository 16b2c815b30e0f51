"""`obcd api` as a process, beside a coordinator and a simulated server; and a client for it."""

from __future__ import annotations

import os
import pwd
import socket
from typing import Any

from tests.support import Cluster, CoordinatorProcess, Running, Simulated, run_obcd, wait_until

ME = pwd.getpwuid(os.geteuid()).pw_name


class ApiCoordinator(CoordinatorProcess):
    """A coordinator whose configuration has an API."""

    def obcd_api(self, *words: str) -> str:
        done = run_obcd(self.environment, "api", "--config", self.config, "--root", self.root, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class ApiProcess:
    """`obcd api` on the spool of a coordinator, and a client of OpenAI's for it."""

    def __init__(self, cluster: Cluster, coordinator: ApiCoordinator, address: str) -> None:
        self._cluster, self._coordinator, self.address = cluster, coordinator, address
        self._options = ("--config", coordinator.config, "--root", coordinator.root)
        self.token = coordinator.obcd_api("token", ME)
        self.process = self.start()

    def start(self) -> Running:
        process = self._cluster.begin("api", *self._options)
        wait_until(lambda: self._answers(process), what=process.text)
        return process

    def _answers(self, process: Running) -> bool:
        assert process.process.poll() is None, process.text()
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def client(self, **options: Any) -> Any:
        from openai import OpenAI  # noqa: PLC0415 - it takes a second to import

        return OpenAI(api_key=self.token, base_url=f"http://{self.address}/v1", **options)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start_api(cluster: Cluster, server: Simulated, started: list[Running]) -> ApiProcess:
    """Start a coordinator and the API of its user.

    Args:
        started: Takes the coordinator.
    """
    address = free_address()
    config = cluster.configure(server.names, api={"enabled": True, "listen": address})
    coordinator = ApiCoordinator(cluster.environment, cluster.folder / "root", config)
    started.append(coordinator)
    return ApiProcess(cluster, coordinator, address)


def finished(client: Any, batch: str) -> Any:
    """Wait for the end of a batch, as a client does."""

    def over() -> Any:
        found = client.batches.retrieve(batch)
        return found if found.status in ("completed", "failed", "cancelled", "expired") else None

    return wait_until(over)
