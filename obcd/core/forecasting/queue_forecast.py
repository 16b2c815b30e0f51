"""When each job ends: its work, what shares the slots with it, and the windows of both. Pure; time is an argument.

The forecast plays the coming days through as a flow: free slots go to jobs as `groups.Turns` gives them, submitters
take turns by requests, and nothing flows while a window is closed. It knows no single request.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from obcd.core.forecasting.windows import Windows
from obcd.core.scheduling.fair_share import COMMON, Rank

#: Days after which a forecast says nothing any more, and steps of it (a job ends, a window opens) at most.
MOST_SECONDS, MOST_STEPS = 60 * 86400.0, 3000
#: Means of a request for which slots idle before a window closes: nothing is sent that could not finish
#: (`leases.FINISH_MEANS`), and what is in flight finishes meanwhile.
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


class _Flow:
    def __init__(self, loads: Sequence[Load], sites: Collection[Capacity], at: float, active_jobs: int) -> None:
        self._sites, self._start, self._at, self._limit = sites, at, at, active_jobs
        self._left = {load.job: load.seconds for load in loads}
        self._active = [load for load in loads if load.is_active]
        self._waiting = [load for load in loads if not load.is_active]
        self._ends: dict[str, float | None] = {load.job: None for load in loads}
        work, requests = sum(load.seconds for load in loads), sum(load.requests for load in loads)
        self._mean = work / requests if requests else 0.0

    def run(self) -> dict[str, float | None]:
        for _ in range(MOST_STEPS):
            self._end_done()
            self._activate()
            if not self._active or self._at - self._start > MOST_SECONDS:
                break
            if not self._step():
                break
        return self._ends

    def _end_done(self) -> None:
        done = [load for load in self._active if self._left[load.job] <= _NOTHING]
        for load in done:
            self._active.remove(load)
            slots = sum(site.slots for site in self._sites if load.sites is None or site.name in load.sites)
            together = max(1, min(slots, load.requests))
            tail = load.spread * math.sqrt(2 * math.log(together))  # the last ones do not end at once
            earliest = self._start + min(load.mean, load.seconds)
            end = max(self._at, earliest) + tail
            self._ends[load.job] = end if end - self._start <= MOST_SECONDS else None

    def _activate(self) -> None:
        for load in list(self._waiting):
            if len(self._active) >= self._limit and any(one.submitter == load.submitter for one in self._active):
                continue
            self._waiting.remove(load)
            self._active.append(load)

    def _step(self) -> bool:
        """Let work flow until something changes; return whether anything will."""
        changes = [math.inf]
        slots = {}
        for site in self._sites:
            is_open, until = self._spell(site.windows, self._mean)
            changes.append(until)
            if is_open:
                slots[site.name] = site.slots
        going = []
        for load in self._active:
            is_open, until = self._spell(load.windows, load.mean)
            changes.append(until)
            if is_open:
                going.append(load)
        rates = self._share(going, slots)
        changes += [self._at + self._left[job] / rate for job, rate in rates.items() if rate > 0]
        until = min(changes)
        if until == math.inf:
            return False
        for job, rate in rates.items():
            self._left[job] -= rate * (until - self._at)
        self._at = max(until, math.nextafter(self._at, math.inf))
        return True

    def _spell(self, windows: Windows, mean: float) -> tuple[bool, float]:
        """Return whether requests are sent now, and until when that stays so."""
        if not windows:
            return True, math.inf
        spell = windows.around(self._at)
        if not spell.is_open or spell.until is None:
            return spell.is_open, math.inf if spell.until is None else spell.until
        closing = spell.until - CLOSING_MEANS * mean
        return (True, closing) if self._at < closing else (False, spell.until)

    def _share(self, loads: Sequence[Load], slots: dict[str, int]) -> dict[str, float]:
        """Return `{job: the slots that it gets}`: higher ranks first, submitters in turn."""
        free, rates = float(sum(slots.values())), {load.job: 0.0 for load in loads}
        tiers: dict[int, list[Load]] = defaultdict(list)
        for load in loads:
            tiers[load.rank.among_all].append(load)
        for _, tier in sorted(tiers.items(), reverse=True):
            open_ones = list(tier)
            while open_ones and free > _NOTHING:
                first: dict[int, Rank] = {}
                for load in open_ones:
                    first[load.submitter] = max(load.rank, first.get(load.submitter, load.rank))
                turn = [load for load in open_ones if load.rank == first[load.submitter]]
                peers: dict[int, int] = defaultdict(int)
                for load in turn:
                    peers[load.submitter] += 1
                weights = {load.job: max(load.mean, _NOTHING) / peers[load.submitter] for load in turn}
                whole, given, is_short = sum(weights.values()), 0.0, False
                for load in turn:
                    share = free * weights[load.job] / whole
                    most = self._most(load, slots) - rates[load.job]
                    rates[load.job] += min(share, most)
                    given += min(share, most)
                    if most <= share:
                        open_ones.remove(load)
                        is_short = True
                free -= given
                if not is_short:
                    break
        return rates

    def _most(self, load: Load, slots: dict[str, int]) -> float:
        """Return how many slots a job can use: those that serve it, and not more than it has requests."""
        served = sum(count for name, count in slots.items() if load.sites is None or name in load.sites)
        mean = load.mean
        return min(float(served), math.ceil(self._left[load.job] / mean)) if mean > 0 else float(served)
