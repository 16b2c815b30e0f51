"""Whose job comes next: submitters take turns, and of one submitter's jobs the higher priority goes first. Pure.

A submitter's priority orders only their own jobs; the daemon's user can order all jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

#: The range of a priority.
LEAST_PRIORITY, MOST_PRIORITY = -100, 100
#: The place of a trial among the jobs of its submitter: before every job with a deadline in danger. The views of jobs
#: show `MOST_PRIORITY` for it.
FOREMOST = 1_000_000_000


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """The priority of a job; higher is served first.

    Attributes:
        among_all: Among the jobs of all submitters; set by the daemon's own user.
        among_own: Among the jobs of the same submitter; set by the submitter.
    """

    among_all: int = 0
    among_own: int = 0


#: The rank of a job for which none was set.
COMMON = Rank()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that waits to become active, or is active.

    Attributes:
        uid: Its submitter.
        can_start: Whether it may start; a paused one may not.
        suspicion: How often it was active when the coordinator died; 0 below the limit of a suspect.
    """

    uid: int
    rank: Rank = COMMON
    can_start: bool = True
    suspicion: int = 0


def choose_next(
    waiting: Sequence[Candidate], active: Sequence[Candidate], limit: int, *, is_on_trial: bool = False
) -> int | None:
    """Return which waiting job becomes active next, as its place in `waiting` (oldest first); None: none may.

    At most `limit` jobs of the same or a higher rank are active. A submitter without an active job need not wait until
    others' jobs end: somebody's five thousand files do not keep a newcomer out. If it is a suspect's turn, the least
    suspected one is taken.

    Args:
        is_on_trial: Whether a suspect is active: then no other starts, so that it is known which one it was.
    """
    held = Counter(candidate.uid for candidate in active)
    room = {
        rank: limit - sum(candidate.rank >= rank for candidate in active)
        for rank in {candidate.rank for candidate in waiting}
    }
    fit = [
        (-candidate.rank.among_all, held[candidate.uid], -candidate.rank.among_own, place)
        for place, candidate in enumerate(waiting)
        if candidate.can_start
        and (room[candidate.rank] > 0 or not held[candidate.uid])
        and not (candidate.suspicion and is_on_trial)
    ]
    if not fit:
        return None
    first = min(fit)[-1]
    if not waiting[first].suspicion:
        return first
    suspects = [place for *_, place in fit if waiting[place].suspicion]
    return min(suspects, key=lambda place: (waiting[place].suspicion, place))
