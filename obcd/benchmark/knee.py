"""Find from how many requests in flight on the speed no longer grows, why, and what to configure. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from obcd.benchmark.samples import LoadStep

#: Share of the best speed that counts as the best: the rest is noise, or not worth twice the memory.
ENOUGH = 0.9
#: If the server works on less than this share of the requests in flight, the others wait.
QUEUED = 0.85
#: The number of steps in a row without a better speed after which the ramp may end.
VAIN_STEPS = 2


class Limit(StrEnum):
    """The limit of an endpoint's speed."""

    ONE_SLOT = "one_slot"  # it works on one request at a time
    SLOTS = "slots"  # it works on as many requests as it has slots, and would be faster with more slots
    CARD = "card"  # more requests at a time do not make it faster
    OPEN = "open"  # no limit was found: it was fastest with the most requests in flight


@dataclass(frozen=True, slots=True)
class Advice:
    """The values to configure.

    Attributes:
        knee: The least number of requests in flight that reaches (nearly) the best speed.
        limit: The reason for the knee.
        slots: Number of requests that obcd should keep in flight there.
        num_parallel: OLLAMA_NUM_PARALLEL to set; for ONE_SLOT and SLOTS, the value to measure again with.
        server_slots: Number of slots of the server, None if no request waited for one.
    """

    knee: int
    limit: Limit
    slots: int
    num_parallel: int
    server_slots: int | None = None


def find_knee(curve: Sequence[tuple[int, float]]) -> int:
    """Return the least number of requests in flight whose speed is within `ENOUGH` of the best.

    Args:
        curve: (requests in flight, tokens a second), sorted by requests in flight; at least one.
    """
    best = max(speed for _, speed in curve)
    return next(in_flight for in_flight, speed in curve if speed >= ENOUGH * best)


def is_in_vain(speeds: Sequence[float]) -> bool:
    """Return whether the last steps of a ramp brought nothing: not one of them was faster than the steps before."""
    before, last = speeds[:-VAIN_STEPS], speeds[-VAIN_STEPS:]
    return bool(before) and ENOUGH * max(last) <= max(before)


def find_server_slots(steps: Sequence[LoadStep]) -> int | None:
    """Return the server's number of slots, from the last step at which requests waited for one; None without such."""
    queued = [step for step in steps if step.busy_slots < QUEUED * step.in_flight]
    return max(1, round(queued[-1].busy_slots)) if queued else None


def advise(steps: Sequence[LoadStep]) -> Advice:
    """Return what to configure for an endpoint.

    Args:
        steps: Sorted by requests in flight; at least one.
    """
    knee, slots = find_knee([(step.in_flight, step.tokens_per_second) for step in steps]), find_server_slots(steps)
    if slots == 1:
        return Advice(knee, Limit.ONE_SLOT, 1, 4, slots)
    if slots is not None and slots <= knee:
        return Advice(knee, Limit.SLOTS, slots, 2 * slots, slots)
    limit = Limit.OPEN if knee == steps[-1].in_flight else Limit.CARD
    return Advice(knee, limit, knee, knee, slots)
