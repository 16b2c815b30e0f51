"""`workers`: how soon 28 of them are ready, and what memory is each one's own."""

from __future__ import annotations

import time

from tests.bench import procfs
from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import Spool, fresh_spool, prompts, wait_until

ENDPOINTS, SLOTS, SECONDS = 28, 16, 1.0


def measure() -> list[Figure]:
    """Start a coordinator with 28 endpoints; give all of their slots work, and look at the workers' memory."""
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        began = time.monotonic()
        spool.start(servers.configuration())
        spool.wait_ready()
        ready = time.monotonic()
        from_first = max(procfs.age(pid) for pid in _pids(spool, servers)) - (time.monotonic() - ready)
        spool.drop("full.jsonl", prompts(10 * ENDPOINTS * SLOTS))
        wait_until(lambda: servers.answered() > 3 * ENDPOINTS * SLOTS, 60, "no slot is at work", look=0.2)
        own = [procfs.own_mib(pid) for pid in _pids(spool, servers)]
    return [
        Figure("process start to all endpoints up", ready - began, "s"),
        Figure("of that from the first worker's start on", from_first, "s", most=1.0),
        Figure("memory of a worker's own, the largest", max(own), "MiB", most=10, is_worst=True),
    ]


def _pids(spool: Spool, servers: Servers) -> list[int]:
    return [pid for name, pid in spool.status()["processes"].items() if name in servers.endpoints()]
