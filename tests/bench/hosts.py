"""`hosts`: 200 records of 8 endpoints each, a host that registers, and a hosts folder that hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

from obcd.hosts.record import WRITE_SECONDS, CardReading, HostState, RegisteredEndpoint
from obcd.hosts.registration import Registration
from tests.bench import procfs
from tests.bench.accept import tick_figures
from tests.bench.figures import Figure
from tests.bench.servers import MODEL, Servers
from tests.bench.spool import Spool, fresh_spool, prompts, wait_until

RECORDS, ENDPOINTS = 200, 8
#: Seconds of measuring, and for which the folder hangs.
SECONDS, FROZEN_SECONDS = 40.0, 60.0
SCANNER = "host scanner"


class _Hosts(threading.Thread):
    """Writes the records of many hosts, one after the other, each every ten seconds."""

    def __init__(self, folder: Path, count: int, urls: list[str] | None = None) -> None:
        super().__init__(daemon=True)
        self._hosts = []
        for number in range(count):
            names = urls or [f"http://10.0.{number}.1:{11432 + index}" for index in range(ENDPOINTS)]
            endpoints = [
                RegisteredEndpoint(url=url, gpu=index, gpu_uuid=f"GPU-{number:020}-{index}", slots=4, version="0.33.0")
                for index, url in enumerate(names)
            ]
            cards = [
                CardReading(uuid=item.gpu_uuid, name="NVIDIA H100 80GB HBM3", utilization=0.93, power_watts=300.5)
                for item in endpoints
            ]
            self._hosts.append((Registration(folder, f"{'own' if urls else 'host'}{number}"), endpoints, cards))
        self._is_over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._is_over.is_set():
            for registration, endpoints, cards in self._hosts:
                registration.write(HostState.SERVING, endpoints, cards)
                self._is_over.wait(WRITE_SECONDS / len(self._hosts))

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def measure() -> list[Figure]:
    """Register 200 × 8 endpoints that are not used, then one host, whose folder hangs for a minute."""
    with fresh_spool() as spool, Servers(1, 4, 0.2, spool.folder / "servers.log") as servers:
        folder = spool.folder / "hosts"
        folder.mkdir()
        crowd = _Hosts(folder, RECORDS)
        full = f'[cluster]\nhosts = "{folder}"\nmax_endpoints = 1\n'  # so that no worker calls any of these addresses
        spool.start(servers.configuration() + full)
        wait_until(lambda: spool.status().get("state") == "READY", 30, "the coordinator is not ready", look=0.1)
        wait_until(lambda: len(spool.status()["hosts"]) == RECORDS, 60, "the records are not seen", look=0.5)
        figures = _measure_cost(spool)
        crowd.stop()
        for path in folder.iterdir():
            path.unlink()
        spool.stop()

        spool.start(f'model = "{MODEL}"\n[cluster]\nhosts = "{folder}"\n', is_timed=True)
        wait_until(lambda: spool.status().get("state") == "READY", 30, "the coordinator is not ready", look=0.1)
        spool.drop("notes.jsonl", prompts(10_000))
        wait_until(lambda: bool(spool.status().get("jobs")), 30, "the job does not wait", look=0.1)
        registered = time.monotonic()
        own = _Hosts(folder, 1, servers.urls)
        first = wait_until(lambda: bool(servers.answered()), 30, "the host gets no request", look=0.05)
        lost, began, until = _hang(spool)
        own.stop()
        spool.stop()
        turns = spool.turns(began, until)
    return [
        *figures,
        Figure("registration to the first answer", first - registered, "s", most=10, is_worst=True),
        Figure(
            f"endpoints lost in {FROZEN_SECONDS:.0f} s without an answer of the folder", lost, most=0, is_worst=True
        ),
        *tick_figures(turns),
    ]


def _measure_cost(spool: Spool) -> list[Figure]:
    scanner = spool.status()["processes"][SCANNER]
    began, own, child = time.monotonic(), procfs.own_cpu(spool.pid), procfs.own_cpu(scanner)
    time.sleep(SECONDS)
    seconds = time.monotonic() - began
    share = 100 * (procfs.own_cpu(spool.pid) - own) / seconds
    scans = seconds / 2.0
    cost = 1000 * (procfs.own_cpu(scanner) - child) / scans
    return [
        Figure(f"a scan of {RECORDS} records × {ENDPOINTS} endpoints", cost, "ms of CPU", most=20),
        Figure("the coordinator's main process meanwhile, with nothing to do", share, "% of a core", most=2),
    ]


def _hang(spool: Spool) -> tuple[int, float, float]:
    """Stop each process that scans the folder; the coordinator replaces it after a while, and the next one is stopped.

    Returns:
        How many endpoints were lost, and when this began and ended.
    """
    began = time.monotonic()
    before = {item["name"] for item in spool.status()["endpoints"]}
    lost, was_unreadable = set[str](), False
    while time.monotonic() - began < FROZEN_SECONDS:
        status = spool.status()
        scanner = status.get("processes", {}).get(SCANNER)
        if scanner:
            with contextlib.suppress(ProcessLookupError):  # just replaced
                os.kill(scanner, signal.SIGSTOP)
        if status:
            was_unreadable |= any("hosts folder unreadable" in text for text in status["troubles"])
            lost |= before - {item["name"] for item in status["endpoints"] if item["state"] == "UP"}
        time.sleep(0.1)
    assert was_unreadable
    return len(lost), began, time.monotonic()
