"""`slurm`: a job on a real Slurm while a task is requeued, one reaches its time limit and a node loses its power."""

from __future__ import annotations

import sys

from tests.bench.figures import Figure
from tests.slurm.cluster import slurm_here, why_no_slurm
from tests.slurm.story import SIMULATE, SLOTS, run_story

COUNT, CARDS = 2000, 2


def measure() -> list[Figure]:
    """Run the story of `tests/slurm` once; without Slurm there are no figures."""
    if reason := why_no_slurm():
        print(f"slurm: left out, {reason}", file=sys.stderr)
        return []
    with slurm_here(SIMULATE) as cluster:
        found = run_story(cluster, COUNT)
    return [
        Figure("prompts without an answer", COUNT - len(found.answered), most=0, is_worst=True),
        Figure("prompts answered twice", sum(count > 1 for count in found.answered.values()), most=0, is_worst=True),
        Figure("requests sent again", found.arrivals - COUNT, most=2 * CARDS * (SLOTS + 1), is_worst=True),
        Figure("time beside what the cards allow", found.ratio, "×", most=1.15),
    ]
