"""Whether a job ends before its deadline: when its rank is raised, and when it is reported. Pure.

Two forecasts count. As all jobs take their turns, the job may be in danger: then its rank among its submitter's jobs is
raised. With the ranks that are in force, it may be late: that is reported. A forecast is never exact, so both have a
margin that shrinks as the deadline comes near, and a report takes a forecast that stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from obcd.core.forecasting.local_times import describe_moment, describe_span
from obcd.core.pending.fair_share import MOST_PRIORITY, Rank

#: A job is in danger if it ends less than this before its deadline: a share of the time until then, and seconds.
DANGER_SHARE, DANGER_SECONDS = 0.15, 300.0
#: A job is late if it ends this long after its deadline: a share of the time until its end, and seconds.
LATE_SHARE, LATE_SECONDS = 0.03, 60.0
#: The share grows by this, over the square root of the answers seen: the mean of a few says little.
DOUBT, MOST_DOUBT = 0.4, 0.3
#: Seconds for which the forecast has to say so.
HOLD_SECONDS = 20.0


@dataclass(slots=True)
class DeadlineWatch:
    """The deadline of one job, and what is foreseen for it. Moments are in Unix seconds.

    Attributes:
        by: The deadline.
        ends_at: The end that was foreseen last; None: it is not foreseeable.
        is_in_danger: Whether the job's rank is raised; never once the deadline has passed.
        is_late: Whether the job is not expected to end before its deadline.
    """

    by: float
    ends_at: float | None = None
    is_in_danger: bool = False
    is_late: bool = False
    _turned_at: float | None = None

    def look(self, usual_end: float | None, ends_at: float | None, at: float, seen: int = 10_000) -> bool:
        """Take in a new forecast.

        Args:
            usual_end: The end if no rank is raised; None: it is not foreseeable.
            ends_at: The end with the ranks in force.
            seen: The number of the job's answers from which it follows.

        Returns:
            Whether `is_late` has changed.
        """
        self.ends_at = ends_at
        margin = DANGER_SECONDS + DANGER_SHARE * max(0.0, self.by - at)
        if at >= self.by:  # to be first helps no more: what is left takes its usual turn
            self.is_in_danger = False
        elif usual_end is not None:
            self.is_in_danger = usual_end > self.by - (2 * margin if self.is_in_danger else margin)
        if at >= self.by:  # no forecast is needed any more
            is_late, hold = True, 0.0
        elif ends_at is None:
            is_late, hold = self.is_late, 0.0
        else:
            share = LATE_SHARE + min(MOST_DOUBT, DOUBT / math.sqrt(max(1, seen)))
            slack = LATE_SECONDS + share * max(0.0, ends_at - at)
            is_late, hold = ends_at > self.by + (-slack if self.is_late else slack), HOLD_SECONDS
        if is_late is self.is_late:
            self._turned_at = None
            return False
        self._turned_at = at if self._turned_at is None else min(self._turned_at, at)
        if at - self._turned_at < hold:
            return False
        self.is_late, self._turned_at = is_late, None
        return True

    @property
    def late_seconds(self) -> float | None:
        """By how much the job will miss its deadline; None: it will not, or nobody knows by how much."""
        if not self.is_late or self.ends_at is None:
            return None
        return max(0.0, self.ends_at - self.by)

    def describe(self, label: str, at: float) -> str:
        """Return the sentence about a job that is late, e.g. `notes.jsonl will miss 06:00 by 40 min`."""
        by, late = describe_moment(self.by, at), self.late_seconds
        if at >= self.by:
            ends = f", it ends at about {describe_moment(self.ends_at, at)}" if self.ends_at is not None else ""
            return f"{label} has missed {by}{ends}"
        return f"{label} will miss {by}" + (f" by {describe_span(late)}" if late else "")


def raised_ranks(jobs: Iterable[tuple[str, int, Rank, DeadlineWatch]]) -> dict[str, Rank]:
    """Return `{job in danger: its raised rank}`: before all other jobs of its submitter, the nearest deadline first.

    It changes nothing among submitters: their turns do not depend on `among_own`.

    Args:
        jobs: `[(job, submitter, rank, deadline), …]`.
    """
    in_danger = sorted((watch.by, job, rank) for job, _, rank, watch in jobs if watch.is_in_danger)
    count = len(in_danger)
    return {job: Rank(rank.among_all, MOST_PRIORITY + count - place) for place, (_, job, rank) in enumerate(in_danger)}
