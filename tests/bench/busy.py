"""`busy`: whether a slot is ever idle while prompts wait, across two jobs and the acceptance of a large file."""

from __future__ import annotations

import time

from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import Spool, fresh_spool, prompts, wait_until

#: {what: (endpoints, slots of each, seconds a request, goal in percent)}
CLUSTERS = {"4 × 16 at 0.5 s": (4, 16, 0.5, 97), "28 × 16 at 1 s": (28, 16, 1.0, 95)}
#: A file of 1 GB, and seconds of work in each of the two jobs beside it.
LINES, LINE_BYTES, WORK_SECONDS = 1_000_000, 1000, 20


def measure() -> list[Figure]:
    """Answer two jobs in turn while 1,000,000 lines of 1,000 bytes are accepted."""
    return [_busy(name, *cluster) for name, cluster in CLUSTERS.items()]


def _busy(name: str, count: int, slots: int, seconds: float, goal: float) -> Figure:
    work = int(WORK_SECONDS * count * slots / seconds)
    with fresh_spool() as spool, Servers(count, slots, seconds, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        spool.wait_ready()
        for file, lines in (("large.jsonl", prompts(LINES, LINE_BYTES)), ("second.jsonl", prompts(work))):
            spool.write(file, lines)  # before: it takes a processor that is not ours to use in what is measured
        spool.drop("first.jsonl", prompts(work))
        wait_until(lambda: servers.answered() > 2 * count * slots, 60, "the first job does not run", look=0.2)
        seen = spool.jobs()
        both = len(seen) + 2
        began = spool.release("large.jsonl")
        spool.release("second.jsonl")
        wait_until(lambda: len(_see(spool, seen)) == both, 300, "the files are not accepted", look=0.1)
        ended = time.monotonic()
        account = servers.account()
    return Figure(f"slots in use while prompts wait, {name}", 100 * account.busy_share(began, ended), "%", least=goal)


def _see(spool: Spool, seen: set[str]) -> set[str]:
    """Add the jobs that are accepted now: one of them may be published before the other is accepted."""
    seen |= spool.jobs()
    return seen
