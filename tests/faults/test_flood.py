"""More at once than anybody expects, before a running coordinator."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support import Cluster, Published, Simulated, wait_until

pytestmark = pytest.mark.integration
Count = Callable[[str], None]
#: What the kernel queues for one watch before it drops events.
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@pytest.mark.case("A22")
def test_drops_whose_events_the_kernel_lost_are_found_by_the_scan(quick_server: Simulated, cluster: Cluster) -> None:
    coordinator = cluster.coordinate(
        cluster.configure(quick_server.names),
        tweaks={"obcd.coordinator.intake.drop_intake:SCAN_IDLE": 0.5},
    )
    coordinator.send(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(coordinator.pid).status() == psutil.STATUS_STOPPED)
    names = [coordinator.inbox / f".flood{number}" for number in range(2)]
    for path in names:
        path.touch()
    for _ in range(int(QUEUE.read_text("ascii")) // 2 + 100):  # two in turn: like events in a row are kept as one
        for path in names:
            os.utime(path)
    for number in range(20):
        coordinator.drop([f"question {number}"], f"late{number}.jsonl")
    coordinator.send(signal.SIGCONT)

    for number in range(20):
        coordinator.published(f"late{number}").assert_complete(1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.case("A21")
def test_ten_thousand_files_at_once_are_answered_once_each_in_bounded_memory(cluster: Cluster, count: Count) -> None:
    server = cluster.simulate("--seconds", 0.001, "--parallel", 16)
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 16}))
    total, peak = 10_000, 0
    for number in range(total):
        coordinator.drop([f"question {number}"], f"file{number}.jsonl")

    def all_published() -> bool:
        nonlocal peak
        peak = max(peak, psutil.Process(coordinator.pid).memory_info().rss)
        return len(os.listdir(coordinator.jobs)) == 0 and published() == total

    def published() -> int:
        return sum(name.startswith("file") and "." not in name for name in os.listdir(coordinator.outbox))

    wait_until(all_published, 1500, lambda: f"{published()} of {total} are published")

    count(f"10,000 files at once: coordinator at most {peak // 2**20} MiB")
    assert peak < 150 * 2**20
    assert all(asked == 1 for asked in server.asked().values())
    for number in range(0, total, 100):
        Published(coordinator.outbox / f"file{number}").assert_complete(1)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.case("F15")
def test_million_hidden_files_hold_no_drop_up_and_are_told(
    quick_server: Simulated, cluster: Cluster, count: Count
) -> None:
    coordinator = cluster.coordinate(cluster.configure(quick_server.names))
    for number in range(1_000_000):
        (coordinator.inbox / f".{number}").touch()

    coordinator.drop(["question"], "beside.jsonl")

    coordinator.published("beside", 120).assert_complete(1)
    wait_until(lambda: any("holds 1000000 hidden" in text for text in coordinator.status()["troubles"]), 120)
    count(f"a million hidden files: coordinator at {psutil.Process(coordinator.pid).memory_info().rss // 2**20} MiB")
