"""`cpu`: what obcd itself computes for one prompt, all its processes together."""

from __future__ import annotations

from tests.bench import procfs
from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import fresh_spool, prompts

COUNT, ENDPOINTS, SLOTS, SECONDS = 2000, 8, 8, 0.5


def measure() -> list[Figure]:
    """Run 2,000 prompts over 8 endpoints of 8 slots, 0.5 s a prompt, and count CPU seconds from drop to folder."""
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        spool.wait_ready()
        all_before, own_before, servers_before = _cpu(spool.pid, servers.pid)
        dropped = spool.drop("cpu.jsonl", prompts(COUNT))
        published, _ = spool.wait_published("cpu.jsonl", 300)
        all_after, own_after, servers_after = _cpu(spool.pid, servers.pid)
    return [
        Figure("CPU of all obcd processes a prompt", 1000 * (all_after - all_before) / COUNT, "ms"),
        Figure("of that the coordinator's own process", 1000 * (own_after - own_before) / COUNT, "ms"),
        Figure("CPU from the start until all endpoints are up", all_before, "s"),
        Figure("CPU of the simulated servers a prompt", 1000 * (servers_after - servers_before) / COUNT, "ms"),
        Figure("prompts a second", COUNT / (published - dropped), "/s"),
    ]


def _cpu(coordinator: int, servers: int) -> tuple[float, float, float]:
    return procfs.tree_cpu(coordinator), procfs.own_cpu(coordinator), procfs.own_cpu(servers)
