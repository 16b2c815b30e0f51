"""`makespan`: a whole cluster on one job, against a client that takes no time at all, and what each prompt costs."""

from __future__ import annotations

import heapq

from tests.bench import procfs
from tests.bench.figures import Figure
from tests.bench.servers import Asked, Servers
from tests.bench.spool import fresh_spool, prompts

COUNT, ENDPOINTS, SLOTS, SECONDS, SPREAD = 4480, 28, 16, 1.0, 0.5


def measure() -> list[Figure]:
    """Answer 4,480 prompts on 28 endpoints of 16 slots, 1 s a prompt, lognormal; count the CPU seconds."""
    with fresh_spool() as spool:
        servers = Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log", "--seconds-spread", SPREAD)
        with servers:
            spool.start(servers.configuration())
            spool.wait_ready()
            all_before, own_before = procfs.tree_cpu(spool.pid), procfs.own_cpu(spool.pid)
            spool.drop("cluster.jsonl", prompts(COUNT))
            spool.wait_published("cluster.jsonl", 300)
            all_cpu = procfs.tree_cpu(spool.pid) - all_before
            own_cpu = procfs.own_cpu(spool.pid) - own_before
            account = servers.account()
    last_answer = max(item.finished or 0.0 for item in account.asked)
    ideal = pull(account.asked, ENDPOINTS * SLOTS)
    return [
        Figure(
            "first request to last answer, times a pull that takes no time",
            (last_answer - account.first_arrival) / ideal,
            "",
            most=1.10,
        ),
        Figure("the pull that takes no time", ideal, "s"),
        Figure("CPU of all obcd processes a prompt", 1000 * all_cpu / COUNT, "ms", most=1.6),
        Figure("of that the coordinator's own process", 1000 * own_cpu / COUNT, "ms", most=0.25),
        Figure(
            "slot-seconds in use while prompts waited",
            100 * account.busy_share(account.first_arrival, account.last_arrival),
            "%",
        ),
        Figure("requests beyond one a prompt", 100 * (len(account.asked) / COUNT - 1), "%", most=2, is_worst=True),
    ]


def pull(asked: tuple[Asked, ...], slots: int) -> float:
    """Return what the same requests take in that order when each slot takes the next one the moment it is free."""
    free = [0.0] * slots
    for item in sorted(asked, key=lambda item: item.arrived):
        if item.outcome == "answered" and item.started is not None and item.finished is not None:
            heapq.heapreplace(free, free[0] + item.finished - item.started)
    return max(free)
