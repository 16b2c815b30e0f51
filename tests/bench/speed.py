"""`speed`: how many times faster than one request in flight per endpoint, from process start to process end."""

from __future__ import annotations

from tests.bench.clients import run_baseline, run_batch
from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import fresh_spool, prompts

COUNT, ENDPOINTS, SLOTS, SECONDS = 400, 4, 16, 0.5
#: A request takes the same time however many run beside it; or c of them are c / (1 + 0.07 (c - 1)) times as fast.
#: Times vary with the prompt, by its hash, so that every client has the same work.
SERVERS: dict[str, tuple[float | None, tuple[object, ...], float]] = {
    "slots that do not slow each other": (SECONDS, ("--seconds-spread", 0.3), 10),
    "slots that slow each other": (
        None,
        ("--seconds-spread", 0.3, "--slowdown", 0.07, "--answer-tokens", 60, "--tokens-per-second", 60 / SECONDS),
        6,
    ),
}


def measure() -> list[Figure]:
    """Answer 400 prompts on 4 endpoints of 16 slots, 0.5 s a prompt alone: the baseline's seconds over obcd's."""
    figures = []
    for name, (seconds, more, goal) in SERVERS.items():
        taken = []
        for run in ("obcd", "baseline"):
            with fresh_spool() as spool:
                servers = Servers(ENDPOINTS, SLOTS, seconds, spool.folder / "servers.log", *more)
                with servers:
                    if run == "obcd":
                        taken.append(run_batch(spool.folder, servers.configuration(), prompts(COUNT)))
                    else:
                        taken.append(run_baseline(spool.folder, servers.urls, prompts(COUNT)))
        obcd, baseline = taken
        figures += [
            Figure(f"baseline over obcd, {name}", baseline / obcd, "×", least=goal),
            Figure("obcd", obcd, "s"),
        ]
    return figures
