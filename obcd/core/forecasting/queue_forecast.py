"""When each job ends: its work, what shares the slots with it, and the windows of both. Pure; time is an argument.

The forecast plays the coming days through as a flow: free slots go to jobs as `groups.Turns` gives them, submitters
take turns by requests, and nothing flows while a window is closed. It knows no single request.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from obcd.core.forecasting.windows import Windows
from obcd.core.pending.fair_share import COMMON, Rank

#: Days after which a forecast says nothing any more, and steps of it (a job ends, a window opens) at most.
MOST_SECONDS, MOST_STEPS = 60 * 86400.0, 3000
#: Means of a request for which slots idle before a window closes: nothing is sent that could not finish
#: (`holder.FINISH_MEANS`), and what is in flight finishes meanwhile.
CLOSING_MEANS = 1.25
#: Work that counts as none, in seconds of a slot.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A job that is to be done.

    Attributes:
        job: Its id.
        submitter: Its user id.
        rank: Its priority.
        requests: How many of its requests have no result.
        seconds: Their work, in seconds of a slot (see `WorkLeft`).
        spread: How far the requests at its end are from their mean, in seconds.
        windows: When its requests may be sent.
        sites: The names of the endpoints that can serve it; None: all.
        is_active: Whether it is one of the active jobs.
    """

    job: str
    submitter: int = 0
    rank: Rank = COMMON
    requests: int
    seconds: float
    spread: float = 0.0
    windows: Windows = field(default_factory=Windows)
    sites: frozenset[str] | None = None
    is_active: bool = True

    @property
    def mean(self) -> float:
        """What one of its requests takes, in seconds of a slot."""
        return self.seconds / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """An endpoint that serves requests.

    Attributes:
        slots: How many requests it has in flight when it is busy.
        windows: When it may be used.
    """

    name: str
    slots: int
    windows: Windows = field(default_factory=Windows)


def forecast(
    loads: Sequence[Load], sites: Collection[Capacity], at: float, *, active_jobs: int = 32
) -> dict[str, float | None]:
    """Return when each job ends if nothing else comes.

    Args:
        loads: The jobs that are not paused: first those that are active, then those that wait, in line.
        at: The present, in Unix seconds.
        active_jobs: How many jobs are active at most.

    Returns:
        `{job: the end in Unix seconds, None if it is not foreseeable}`.
    """
    return _Flow(loads, sites, at, active_jobs).run()


class _Going:
    """A job on its way through the flow."""

    __slots__ = ("left", "load", "mean", "rate")

    def __init__(self, load: Load) -> None:
        self.load, self.left, self.mean, self.rate = load, load.seconds, load.mean, 0.0


class _Flow:
    def __init__(self, loads: Sequence[Load], places: Collection[Capacity], at: float, active_jobs: int) -> None:
        self._places, self._start, self._at, self._limit = places, at, at, active_jobs
        self._active = [_Going(load) for load in loads if load.is_active]
        self._waiting = [_Going(load) for load in loads if not load.is_active]
        self._ends: dict[str, float | None] = {load.job: None for load in loads}
        work, requests = sum(load.seconds for load in loads), sum(load.requests for load in loads)
        self._mean = work / requests if requests else 0.0

    def run(self) -> dict[str, float | None]:
        for _ in range(MOST_STEPS):
            self._end_done()
            self._activate()
            if not self._active or self._at - self._start > MOST_SECONDS or not self._step():
                break
        return self._ends

    def _end_done(self) -> None:
        if all(job.left > _NOTHING for job in self._active):
            return
        for job in [job for job in self._active if job.left <= _NOTHING]:
            self._active.remove(job)
            load = job.load
            slots = sum(place.slots for place in self._places if load.sites is None or place.name in load.sites)
            together = max(1, min(slots, load.requests))
            tail = load.spread * math.sqrt(2 * math.log(together))  # the last ones do not end at once
            end = max(self._at, self._start + min(job.mean, load.seconds)) + tail
            self._ends[load.job] = end if end - self._start <= MOST_SECONDS else None

    def _activate(self) -> None:
        if not self._waiting:
            return
        submitters = {job.load.submitter for job in self._active}
        if len(self._active) >= self._limit and all(job.load.submitter in submitters for job in self._waiting):
            return
        for job in list(self._waiting):
            if len(self._active) < self._limit or job.load.submitter not in submitters:
                self._waiting.remove(job)
                self._active.append(job)
                submitters.add(job.load.submitter)

    def _step(self) -> bool:
        """Let work flow until something changes; return whether anything will."""
        until, slots = math.inf, {}
        for place in self._places:
            is_open, change = self._spell(place.windows, self._mean)
            until = min(until, change)
            if is_open:
                slots[place.name] = place.slots
        going = []
        for job in self._active:
            is_open, change = self._spell(job.load.windows, job.mean)
            until = min(until, change)
            if is_open:
                going.append(job)
        self._share(going, slots)
        for job in going:
            if job.rate > 0:
                until = min(until, self._at + job.left / job.rate)
        if until == math.inf:
            return False
        passed = until - self._at
        for job in going:
            job.left -= job.rate * passed
        self._at = max(until, math.nextafter(self._at, math.inf))
        return True

    def _spell(self, windows: Windows, mean: float) -> tuple[bool, float]:
        """Return whether requests are sent now, and until when that stays so."""
        if not windows.windows:
            return True, math.inf
        spell = windows.around(self._at)
        if not spell.is_open or spell.until is None:
            return spell.is_open, math.inf if spell.until is None else spell.until
        closing = spell.until - CLOSING_MEANS * mean
        return (True, closing) if self._at < closing else (False, spell.until)

    def _share(self, jobs: Sequence[_Going], slots: dict[str, int]) -> None:
        """Set how many slots each job gets: higher ranks first, submitters in turn."""
        whole = float(sum(slots.values()))
        free = whole
        tiers: dict[int, list[_Going]] = defaultdict(list)
        for job in jobs:
            job.rate = 0.0
            tiers[job.load.rank.among_all].append(job)
        for _, tier in sorted(tiers.items(), reverse=True):
            while tier and free > _NOTHING:
                free, is_short = self._give(tier, free, slots, whole)
                if not is_short:
                    break

    def _give(self, tier: list[_Going], free: float, slots: dict[str, int], whole: float) -> tuple[float, bool]:
        """Give free slots to the first jobs of each submitter; those that can use no more leave the tier.

        Returns:
            The slots that are left, and whether a job has left the tier.
        """
        first: dict[int, int] = {}
        for job in tier:
            rank = job.load.rank.among_own
            if rank > first.get(job.load.submitter, -(10**9)):
                first[job.load.submitter] = rank
        turn = [job for job in tier if job.load.rank.among_own == first[job.load.submitter]]
        peers = Counter(job.load.submitter for job in turn)
        weights = [max(job.mean, _NOTHING) / peers[job.load.submitter] for job in turn]
        each, left, gone = free / sum(weights), free, []
        for job, weight in zip(turn, weights, strict=True):
            most = self._most(job, slots, whole) - job.rate
            given = min(each * weight, most)
            job.rate += given
            left -= given
            if most <= each * weight:
                gone.append(job)
        for job in gone:
            tier.remove(job)
        return left, bool(gone)

    @staticmethod
    def _most(job: _Going, slots: dict[str, int], whole: float) -> float:
        """Return how many slots a job can use: those that serve it, and not more than it has requests."""
        sites = job.load.sites
        served = whole if sites is None else float(sum(slots[name] for name in sites & slots.keys()))
        return min(served, math.ceil(job.left / job.mean)) if job.mean > 0 else served
