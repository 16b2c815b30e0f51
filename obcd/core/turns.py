"""Whose job comes next: submitters take turns, and of one submitter's jobs the higher priority goes first. Pure.

A submitter's own priority orders his own jobs and nobody else's; what the daemon's user sets orders all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

#: What a priority may be.
LEAST_PRIORITY, MOST_PRIORITY = -100, 100


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """The priority of a job; higher is served first.

    Attributes:
        among_all: Among everybody's jobs; set by the daemon's own user.
        among_own: Among the jobs of the same submitter; set by the submitter.
    """

    among_all: int = 0
    among_own: int = 0


#: The rank of a job of which nobody said anything.
COMMON = Rank()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that waits to become active, or is active.

    Attributes:
        uid: Its submitter.
        can_start: Whether it may begin; a paused one may not.
    """

    uid: int
    rank: Rank = COMMON
    can_start: bool = True


def choose_next(waiting: Sequence[Candidate], active: Sequence[Candidate], limit: int) -> int | None:
    """Return which waiting job becomes active next, as its place in `waiting` (oldest first); None: none may.

    Active are at most `limit` jobs of the same or a higher rank. A submitter who has none active need not wait for the
    others' to end: somebody's five thousand files do not keep a newcomer out.
    """
    held = Counter(candidate.uid for candidate in active)
    room = {
        rank: limit - sum(candidate.rank >= rank for candidate in active)
        for rank in {candidate.rank for candidate in waiting}
    }
    fit = [
        (-candidate.rank.among_all, held[candidate.uid], -candidate.rank.among_own, place)
        for place, candidate in enumerate(waiting)
        if candidate.can_start and (room[candidate.rank] > 0 or not held[candidate.uid])
    ]
    return min(fit)[-1] if fit else None
