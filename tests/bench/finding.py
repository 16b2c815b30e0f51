"""`finding`: slots that were found against the best that one could have said, from process start to process end."""

from __future__ import annotations

from tests.bench.clients import run_batch
from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import fresh_spool, prompts

COUNT, SECONDS, SPREAD = 1000, 0.25, 0.5
SLOTS = (4, 8, 16, 32)
#: What Ollama v0.24 adds to each request: the search must not take it for a queue.
NOISY_SLOTS, NOISE_SECONDS = (1, 4, 8), 0.113


def measure() -> list[Figure]:
    """Answer 1,000 prompts on one endpoint of 4, 8, 16, 32 slots: the best fixed setting's seconds over auto's.

    The same for 1, 4, 8 slots and 200 prompts with the noise of v0.24.
    """
    return [
        *(_compare(slots, COUNT, 0.0) for slots in SLOTS),
        *(_compare(slots, COUNT // 5, NOISE_SECONDS) for slots in NOISY_SLOTS),
    ]


def _compare(slots: int, count: int, noise: float) -> Figure:
    settings: tuple[int | str, ...] = (slots, slots + max(1, slots // 8), "auto")
    taken = {wanted: _seconds(slots, wanted, count, noise) for wanted in settings}
    best = min(seconds for wanted, seconds in taken.items() if wanted != "auto")
    what = f"best fixed over auto, {slots} slots{', noisy waits' if noise else ''}"
    return Figure(what, 100 * best / taken["auto"], "%", least=93)


def _seconds(slots: int, wanted: int | str, count: int, noise: float) -> float:
    more = ("--seconds-spread", SPREAD, "--overhead-seconds", noise)
    with fresh_spool() as spool, Servers(1, slots, SECONDS, spool.folder / "log", *more) as servers:
        return run_batch(spool.folder, servers.configuration(wanted), prompts(count))
