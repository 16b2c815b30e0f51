"""`longest`: what it brings to ask long lines first, on a simulated clock with obcd's own scheduler.

Times are lognormal; the logarithm of a line's length goes with that of its time by a correlation. The order follows the
answers (`obcd.core.pending.longest_first`): blindly by length a job would win 5 to 20 % at a correlation of 0.6 and
above, and lose
3 to 12 % at -0.3, where short lines take long.
"""

from __future__ import annotations

import heapq
import math
import random
from statistics import mean

from obcd.core.endpoint.concurrency import Span
from obcd.core.pending.backlog import Backlog
from obcd.core.pending.longest_first import sort_sizes
from obcd.core.request.records import Signature
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler
from tests.bench.figures import Figure

MODEL = Signature("llama3.2:latest", ())
#: (requests, endpoints, slots of each): ten rounds of the slots, and sixteen.
JOBS = ((4480, 28, 16), (1000, 4, 16))
SPREAD, CORRELATIONS, SEEDS = 0.5, (-0.3, 0.0, 0.3, 0.6, 0.9), 5


def measure() -> list[Figure]:
    """Return the makespan of a job with long lines first, over that in the order of its lines; means over seeds."""
    figures = []
    for correlation in CORRELATIONS:
        share = mean(compare(*job, correlation, seed) for job in JOBS for seed in range(SEEDS))
        figures.append(Figure(f"time saved by long lines first, correlation {correlation:g}", 100 * (1 - share), "%"))
    return figures


def compare(requests: int, endpoints: int, slots: int, correlation: float, seed: int) -> float:
    """Return the makespan with sizes over that without."""
    dice = random.Random(seed)
    times, lengths = [], []
    for _ in range(requests):
        time, noise = dice.gauss(0, 1), dice.gauss(0, 1)
        times.append(math.exp(SPREAD * time))
        lengths.append(round(1000 * math.exp(correlation * time + math.sqrt(1 - correlation**2) * noise)))
    return makespan(times, sort_sizes(lengths), endpoints, slots) / makespan(times, b"", endpoints, slots)


def makespan(times: list[float], sizes: bytes, endpoints: int, slots: int) -> float:
    """Return how long a job takes, in seconds."""
    scheduler, now = Scheduler(), 0.0
    backlog = Backlog("job", bytes(len(times)), (MODEL,), sizes=sizes, limit=4)
    for number in range(endpoints):
        scheduler.add_endpoint(str(number), slots, now)
        scheduler.on_probe(str(number), {MODEL.model: "d"}, None, now)
    scheduler.add_job(backlog, now)
    events: list[tuple[float, int, Lease]] = []
    while backlog.unfinished:
        for lease in scheduler.assign(now):
            heapq.heappush(events, (now + times[lease.ordinal], lease.ticket, lease))
        due = scheduler.next_due(now)
        if due is not None and due < events[0][0]:
            now = due
        else:
            now, ticket, lease = heapq.heappop(events)
            scheduler.answered(ticket, lease.endpoint, now, Span(times[lease.ordinal]))
        scheduler.take_overtaken()
    return now
