"""`stragglers`: one endpoint three times slower than the others, one that stops answering midway."""

from __future__ import annotations

import os
import signal

from tests.bench.figures import Figure
from tests.bench.servers import Account, Servers, configuration
from tests.bench.spool import fresh_spool, prompts, wait_until

COUNT, ENDPOINTS, SLOTS, SECONDS, SLOWER = 1500, 4, 16, 0.5, 3


def measure() -> list[Figure]:
    """Answer 1,500 prompts on 4 endpoints of 16 slots: two at 0.5 s, one at 1.5 s, one that is stopped in the middle.

    Ideal is what the slots can do: the stopped one's until it is stopped, the others' to the end.
    """
    with (
        fresh_spool() as spool,
        Servers(ENDPOINTS - 2, SLOTS, SECONDS, spool.folder / "good.log") as good,
        Servers(1, SLOTS, SLOWER * SECONDS, spool.folder / "slow.log") as slow,
        Servers(1, SLOTS, SECONDS, spool.folder / "hanging.log") as hanging,
    ):
        groups = (good, slow, hanging)
        spool.start(configuration({name: slots for group in groups for name, slots in group.endpoints().items()}))
        spool.wait_ready()
        dropped = spool.drop("uneven.jsonl", prompts(COUNT))
        stopped = wait_until(lambda: sum(group.answered() for group in groups) >= COUNT // 2, 60, "half", look=0.05)
        before = hanging.account()
        os.kill(hanging.pid, signal.SIGSTOP)
        try:
            published, _ = spool.wait_published("uneven.jsonl", 120)
        finally:
            os.kill(hanging.pid, signal.SIGCONT)
        accounts = [good.account(), slow.account(), before]
    first = min(account.first_arrival for account in accounts)
    until_stopped = sum(map(_rate, accounts)) * (stopped - first)
    ideal = stopped - first + (COUNT - until_stopped) / sum(map(_rate, accounts[:2]))
    asked = sum(len(account.asked) for account in accounts)
    return [
        Figure("settled file to published folder, times the ideal", (published - dropped) / ideal, "", most=1.5),
        Figure("the ideal", ideal, "s"),
        Figure("requests beyond one a prompt", 100 * (asked - COUNT) / COUNT, "%", most=2, is_worst=True),
    ]


def _rate(account: Account) -> float:
    """Return the requests a second of all its slots."""
    spans = [item.finished - item.started for item in account.asked if item.finished and item.started]
    return account.slots / (sum(spans) / len(spans))
