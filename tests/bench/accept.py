"""`accept`: a gigabyte of a million lines is taken in while another job keeps all slots busy."""

from __future__ import annotations

import json
import time

from obcd.standins.wire.account import prompt_key
from tests.bench import procfs
from tests.bench.entry import Turn
from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import Spool, fresh_spool, prompts, wait_until

LINES, LINE_BYTES = 1_000_000, 1000
ENDPOINTS, SLOTS, SECONDS = 4, 8, 1.0
#: Enough for three minutes of the other job.
OTHER = 180 * ENDPOINTS * SLOTS
#: Seconds to go on measuring after the large job's first request was seen.
AFTERWARDS = 3.0


def measure() -> list[Figure]:
    """Accept 1,000,000 lines of 1,000 bytes beside a job that fills 4 endpoints of 8 slots, 1 s a prompt."""
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration(), is_timed=True)
        spool.wait_ready()
        spool.drop("other.jsonl", prompts(OTHER))
        wait_until(lambda: servers.answered() > 2 * ENDPOINTS * SLOTS, 30, "the other job does not run", look=0.5)
        others = {prompt_key(json.loads(line)["prompt"]) for line in prompts(OTHER)}
        before, memory_before = spool.jobs(), procfs.peak_mib(spool.pid)
        dropped = spool.drop("million.jsonl", prompts(LINES, LINE_BYTES))
        accepted = wait_until(lambda: spool.jobs() != before, 170, "the million is not accepted", look=0.02)
        wait_until(
            lambda: any(item.prompt not in others for item in servers.account().asked),
            60,
            "the million is not asked",
            look=0.5,
        )
        time.sleep(AFTERWARDS)
        until = time.monotonic()
        account, memory = servers.account(), _memory(spool)
        spool.stop()
        turns = spool.turns(dropped, until)
    asked = min(item.arrived for item in account.asked if item.prompt not in others)
    share = 100 * account.busy_share(dropped, accepted)
    growth = memory["coordinator"] - memory_before
    return [
        Figure("settled file to accepted job", accepted - dropped, "s", most=20),
        Figure("accepted job to its first request at a server", max(0.0, asked - accepted), "s", most=1),
        *tick_figures(turns),
        Figure("coordinator's peak resident memory", memory["coordinator"], "MiB", most=150, is_worst=True),
        Figure("growth of that by the large job", growth, "MiB", most=60, is_worst=True),
        Figure("clerk's peak resident memory", memory["clerk intake large"], "MiB"),
        Figure("slot-seconds in use by the other job meanwhile", share, "%", least=95),
    ]


def _memory(spool: Spool) -> dict[str, float]:
    """Return the peaks in MiB: `{"coordinator": …, "clerk intake large": …, …}`."""
    children = {name: procfs.peak_mib(pid) for name, pid in spool.status()["processes"].items() if pid}
    return {"coordinator": procfs.peak_mib(spool.pid), **children}


def tick_figures(turns: list[Turn]) -> list[Figure]:
    """Return how long turns of the main loop took."""
    longest = max(turns, key=lambda turn: turn.tick)
    ordered = sorted(turn.tick for turn in turns)
    return [
        Figure("longest tick", 1000 * longest.tick, "ms", most=100, is_worst=True),
        Figure("of that the main thread computed", 1000 * longest.cpu, "ms"),
        Figure("99.9th percentile of the ticks", 1000 * ordered[int(0.999 * (len(ordered) - 1))], "ms"),
        Figure(
            "longest turn, status and notices included",
            1000 * max(turn.turn for turn in turns),
            "ms",
            most=100,
            is_worst=True,
        ),
        Figure("ticks", len(turns)),
    ]
