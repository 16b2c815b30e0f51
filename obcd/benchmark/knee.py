"""Where more requests in flight bring nothing more, why, and what to configure then. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from obcd.benchmark.samples import LoadStep

#: Share of the best speed that is as good as all of it: what is missing is noise, or not worth twice the memory.
ENOUGH = 0.9
#: Share of the requests in flight below which the number worked on shows that the others wait.
QUEUED = 0.85
#: Steps in a row without a better speed after which the ramp need not go on.
VAIN_STEPS = 2


class Limit(StrEnum):
    """What keeps an endpoint from being faster."""

    ONE_SLOT = "one_slot"  # it works on one request at a time
    SLOTS = "slots"  # it works on as many as it has slots, and would be faster with more
    CARD = "card"  # more at a time do not make it faster
    OPEN = "open"  # none was found: it was fastest with the most that was tried


@dataclass(frozen=True, slots=True)
class Advice:
    """What to configure.

    Attributes:
        knee: The least in flight that reaches (nearly) the best speed.
        limit: Why there.
        slots: Requests that obcd should keep in flight there.
        num_parallel: OLLAMA_NUM_PARALLEL to set; for ONE_SLOT and SLOTS to measure again with.
        server_slots: Slots that the server has, None where none waited for one.
    """

    knee: int
    limit: Limit
    slots: int
    num_parallel: int
    server_slots: int | None = None


def find_knee(curve: Sequence[tuple[int, float]]) -> int:
    """Return the least in flight whose speed is within `ENOUGH` of the best.

    Args:
        curve: (requests in flight, tokens a second), by rising in flight; at least one.
    """
    best = max(speed for _, speed in curve)
    return next(in_flight for in_flight, speed in curve if speed >= ENOUGH * best)


def is_in_vain(speeds: Sequence[float]) -> bool:
    """Return whether the last steps of a ramp brought nothing: none of them beat what was there before."""
    before, last = speeds[:-VAIN_STEPS], speeds[-VAIN_STEPS:]
    return bool(before) and ENOUGH * max(last) <= max(before)


def find_server_slots(steps: Sequence[LoadStep]) -> int | None:
    """Return how many slots the server has, from the last step at which requests waited for one; None if at none."""
    queued = [step for step in steps if step.busy_slots < QUEUED * step.in_flight]
    return max(1, round(queued[-1].busy_slots)) if queued else None


def advise(steps: Sequence[LoadStep]) -> Advice:
    """Return what to configure for an endpoint.

    Args:
        steps: By rising in flight; at least one.
    """
    knee, slots = find_knee([(step.in_flight, step.tokens_per_second) for step in steps]), find_server_slots(steps)
    if slots == 1:
        return Advice(knee, Limit.ONE_SLOT, 1, 4, slots)
    if slots is not None and slots <= knee:
        return Advice(knee, Limit.SLOTS, slots, 2 * slots, slots)
    limit = Limit.OPEN if knee == steps[-1].in_flight else Limit.CARD
    return Advice(knee, limit, knee, knee, slots)
