"""`kill`: the coordinator is killed ten times in the middle of a job; nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.servers import Account, Servers
from tests.bench.spool import Spool, fresh_spool, prompts, wait_until

COUNT, ENDPOINTS, SLOTS, SECONDS = 500, 4, 8, 0.5
KILLS = 10


def measure() -> list[Figure]:
    """Kill a job of 500 prompts at ten random moments; OBCD_BENCH_SEED repeats them."""
    seed = int(os.environ.get("OBCD_BENCH_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        spool.wait_ready()
        spool.drop("killed.jsonl", prompts(COUNT))
        kills, outlived = _kill_often(spool, servers, random.Random(seed))
        _, folder = spool.wait_published("killed.jsonl", 120)
        account, found = servers.account(), _ids(folder)
    return [
        Figure("kills", len(kills)),
        Figure("lines in the outbox", found.total(), least=COUNT, most=COUNT),
        Figure("lines missing", len(set(range(COUNT)) - found.keys()), most=0),
        Figure("lines twice", sum(count > 1 for count in found.values()), most=0),
        *_request_figures(account, kills),
        Figure("children that outlived a kill by 5 s", outlived, most=0),
        Figure("seed", seed),
    ]


def _kill_often(spool: Spool, servers: Servers, dice: random.Random) -> tuple[list[float], int]:
    """Kill and start again, each time a random moment after a random answer; return when, and who outlived it."""
    kills, outlived = [], 0
    for goal in sorted(dice.randrange(0, COUNT * 9 // 10) for _ in range(KILLS)):
        wait_until(partial(_has_answered, servers, goal), 60, f"{goal} answers did not come", look=0.02)
        time.sleep(dice.uniform(0, SECONDS))
        at, left = spool.kill()
        kills.append(at)
        outlived += left
        spool.start(servers.configuration())
    return kills, outlived


def _has_answered(servers: Servers, goal: int) -> bool:
    return servers.answered() >= goal


def _ids(folder: Path) -> Counter[int]:
    """Return how often each id stands in a published folder."""
    files = [path for path in (folder / "responses.jsonl", folder / "errors.jsonl") if path.exists()]
    return Counter(json.loads(line)["id"] for path in files for line in path.read_bytes().splitlines())


def _request_figures(account: Account, kills: list[float]) -> list[Figure]:
    """Compare what was asked again with what a kill can excuse.

    In flight at a kill is what had arrived and was not finished. What the server had just answered and no ledger had
    yet (a hundredth of a second, and a sync) is asked again too: the servers see that as a prompt answered twice.
    """
    in_flight = sum(
        item.arrived <= kill and (item.finished is None or item.finished > kill)
        for item in account.asked
        for kill in kills
    )
    again = sum(count - 1 for count in account.times_asked.values())
    answers = Counter(item.prompt for item in account.asked if item.outcome == "answered")
    return [
        Figure("requests asked again", again, most=in_flight),
        Figure("requests in flight at the kills", in_flight),
        Figure("of the first, answered but not on disk yet", sum(answers.values()) - len(answers)),
    ]
