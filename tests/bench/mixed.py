"""`mixed`: two models by turns against the same lines in order, and a small job behind a large one."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import Spool, fresh_spool, prompts

COUNT, ENDPOINTS, SLOTS, SECONDS, LOAD_SECONDS = 1024, 4, 8, 0.25, 1.0
MODELS = ("llama3.2", "qwen2.5")
LARGE, SMALL = 100_000, 10
#: Somebody else, where we may give files away; else submitter's own jobs take turns.
OTHER_USER = 65534


def measure() -> list[Figure]:
    """Answer 1,024 lines of two models on 4 endpoints; then 10 prompts of another submitter behind 100,000."""
    lines = [{"prompt": f"Question {number}", "model": MODELS[number % 2]} for number in range(COUNT)]
    by_turns = [json.dumps(line).encode() + b"\n" for line in lines]
    in_order = [json.dumps(line).encode() + b"\n" for line in sorted(lines, key=lambda line: line["model"])]
    first, loads = _models(by_turns)
    second, _ = _models(in_order)
    return [
        Figure("two models by turns over the same in order", first / second, "", most=1.15),
        Figure("loads of an endpoint at most", loads, "", most=2, is_worst=True),
        *_small_behind_large(),
    ]


def _models(lines: Iterable[bytes]) -> tuple[float, int]:
    """Return the seconds, and how often the endpoint that did so most loaded a model."""
    with fresh_spool() as spool:
        more = ("--models", ",".join(MODELS), "--load-seconds", LOAD_SECONDS)
        with Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log", *more) as servers:
            spool.start(servers.configuration())
            spool.wait_ready()
            dropped = spool.drop("mixed.jsonl", lines)
            published, _ = spool.wait_published("mixed.jsonl", 300)
            return published - dropped, max(servers.preloads())


def _small_behind_large() -> list[Figure]:
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        spool.wait_ready()
        alone = _answer_small(spool, "alone.jsonl")
        spool.drop("large.jsonl", prompts(LARGE))
        spool.wait_running("large.jsonl")
        behind = _answer_small(spool, "behind.jsonl")
    return [
        Figure("10 prompts behind 100,000 of another submitter, times alone", behind / alone, "", most=3),
        Figure("10 prompts alone", alone, "s"),
    ]


def _answer_small(spool: Spool, name: str) -> float:
    dropped = spool.drop(name, prompts(SMALL), owner=OTHER_USER)
    return spool.wait_published(name, 120)[0] - dropped
