"""`finding`: slots that were found against the best that one could have said, from process start to process end."""

from __future__ import annotations

from tests.bench.clients import run_batch
from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import fresh_spool, prompts

COUNT, SECONDS, SPREAD = 1000, 0.25, 0.5
SLOTS = (4, 8, 16, 32)


def measure() -> list[Figure]:
    """Answer 1,000 prompts on one endpoint of 4, 8, 16, 32 slots: the best fixed setting's seconds over auto's."""
    figures = []
    for slots in SLOTS:
        taken = {wanted: _seconds(slots, wanted) for wanted in (slots, slots + max(1, slots // 8), "auto")}
        best = min(seconds for wanted, seconds in taken.items() if wanted != "auto")
        figures.append(Figure(f"best fixed over auto, {slots} slots", 100 * best / taken["auto"], "%", least=93))
    return figures


def _seconds(slots: int, wanted: int | str) -> float:
    with (
        fresh_spool() as spool,
        Servers(1, slots, SECONDS, spool.folder / "log", "--seconds-spread", SPREAD) as servers,
    ):
        return run_batch(spool.folder, servers.configuration(wanted), prompts(COUNT))
