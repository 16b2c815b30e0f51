"""`slots`: how close a job of equal requests comes to the time its slots need at the least."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import fresh_spool, prompts

COUNT, ENDPOINTS, SLOTS, SECONDS = 1000, 4, 8, 1.0
#: Full rounds of all slots, the last one begun: 31.25 rounds take 32.
IDEAL_SECONDS = -(-COUNT // (ENDPOINTS * SLOTS)) * SECONDS


def measure() -> list[Figure]:
    """Run one job of 1,000 prompts over 4 endpoints of 8 slots, 1 s a prompt."""
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        spool.wait_ready()
        dropped = spool.drop("round.jsonl", prompts(COUNT))
        published, _ = spool.wait_published("round.jsonl", 10 * IDEAL_SECONDS)
        account = servers.account()
    last_answer = max(item.finished or 0.0 for item in account.asked)
    return [
        Figure(
            "settled file to published folder, times the ideal", (published - dropped) / IDEAL_SECONDS, "", most=1.08
        ),
        Figure(
            "slot-seconds in use while prompts waited",
            100 * account.busy_share(dropped, account.last_arrival),
            "%",
            least=95,
        ),
        Figure("settled file to published folder", published - dropped, "s"),
        Figure("settled file to first request at a server", account.first_arrival - dropped, "s"),
        Figure("first request to last answer", last_answer - account.first_arrival, "s"),
        Figure("last answer to published folder", published - last_answer, "s"),
        Figure("requests beyond one a prompt", len(account.asked) - COUNT, "", most=0, is_worst=True),
    ]
