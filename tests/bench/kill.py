"""`kill`: the coordinator is killed ten times in the middle of a job; nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.servers import Account, Asked, Servers
from tests.bench.spool import Spool, fresh_spool, prompts, wait_until

COUNT, ENDPOINTS, SLOTS, SECONDS = 500, 4, 8, 0.5
KILLS = 10
#: Milliseconds that an answer may take from its server to the disk, before a kill no longer costs it.
ON_THE_WAY_MS = 50
#: Seconds after a kill in which a request that was given out before it may still arrive at its server. No coordinator
#: starts that fast, so what arrives then is the killed one's.
GIVEN_OUT_SECONDS = 0.05


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
        Figure("lines missing", len(set(range(COUNT)) - found.keys()), most=0, is_worst=True),
        Figure("lines twice", sum(count > 1 for count in found.values()), most=0, is_worst=True),
        *_request_figures(account, kills),
        Figure("children that outlived a kill by 5 s", outlived, most=0, is_worst=True),
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
    """Find for each request that was asked again the kill that excuses it.

    Most were in flight at that kill. Some were answered just before it, and the answer was on its way to the disk:
    from the server's last byte over worker and coordinator to the end of the ledger's sync.
    """
    in_flight, unexcused, ages = 0, 0, []
    for first, again in _asked_again(account):
        between = [kill for kill in kills if first.arrived - GIVEN_OUT_SECONDS <= kill <= again.arrived]
        if not between:
            unexcused += 1
        elif first.outcome == "answered" and first.finished is not None and first.finished < between[0]:
            ages.append(between[0] - first.finished)
        else:
            in_flight += 1
    at_kills = sum(_is_in_flight(item, kill) for item in account.asked for kill in kills)
    return [
        Figure("requests in flight at the kills", at_kills),
        Figure("of them asked again", in_flight),
        Figure("asked again, though answered and on the way to the disk at a kill", len(ages)),
        Figure(
            "oldest such answer at its kill", 1000 * max(ages, default=0.0), "ms", most=ON_THE_WAY_MS, is_worst=True
        ),
        Figure("asked again without a kill between", unexcused, most=0, is_worst=True),
    ]


def _asked_again(account: Account) -> Iterator[tuple[Asked, Asked]]:
    """Yield each request that another one of the same prompt followed, and that one."""
    by_prompt: dict[str, list[Asked]] = {}
    for item in sorted(account.asked, key=lambda item: item.arrived):
        by_prompt.setdefault(item.prompt, []).append(item)
    for asked in by_prompt.values():
        yield from pairwise(asked)


def _is_in_flight(item: Asked, at: float) -> bool:
    return item.arrived <= at + GIVEN_OUT_SECONDS and (item.finished is None or item.finished > at)
