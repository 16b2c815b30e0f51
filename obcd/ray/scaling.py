"""How many servers there should be, and which ones come and go: pure, with time as an argument.

what waits ─► wanted ─► Demand (the most of the last minutes) ─► decide ─► Step
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from obcd.coordinator.view import JobState, View

#: States of jobs whose requests wait for servers.
WAITING = (JobState.ACCEPTED, JobState.RUNNING)
#: Slots of a server whose number is not known yet.
USUAL_SLOTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of the scaling.

    Attributes:
        least, most: The number of servers; `most` None: as many as the cluster has GPUs.
        idle_seconds: How long fewer servers must be enough before one goes.
    """

    least: int
    most: int | None
    idle_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownServer:
    """One server, as the keeper knows it.

    Attributes:
        number: Of its name.
        is_serving: Whether it answers.
        is_draining: Whether it finishes and ends.
        is_stale: Whether it was started with another configuration.
        is_placed: Whether Ray has given it a GPU.
    """

    number: int
    is_serving: bool = False
    is_draining: bool = False
    is_stale: bool = False
    is_placed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done now: numbers of servers to start, to drain, and to withdraw before Ray has placed them."""

    start: tuple[int, ...] = ()
    drain: tuple[int, ...] = ()
    withdraw: tuple[int, ...] = ()


def waiting_requests(view: View) -> int:
    """Return how many requests have no result; a job that is only named counts as one."""
    listed = sum(max(0, job.total - job.done) for job in view.jobs if job.state in WAITING)
    return listed + sum(job.state in WAITING for job in view.further_jobs)


class Demand:
    """The number of servers that the last minutes needed.

    Args:
        there: The servers at the beginning, which stay as long as any others.
    """

    def __init__(self, limits: Limits, there: int, now: float) -> None:
        self._limits = limits
        self._seen: deque[tuple[float, int]] = deque([(now, there)])

    def target(self, waiting: int | None, slots: int, gpus: int, now: float) -> int:
        """Return how many servers there should be.

        Args:
            waiting: Requests without a result; None while the coordinator's status cannot be read: nothing changes.
            slots: Requests in flight at one server; 0 while it is not known.
            gpus: GPUs of the cluster.
        """
        wanted = self._seen[-1][1] if waiting is None else -(-waiting // (slots or USUAL_SLOTS))
        while self._seen and self._seen[-1][1] <= wanted:
            self._seen.pop()
        self._seen.append((now, wanted))  # falling numbers: the first is the most of the time that counts
        while now - self._seen[0][0] > self._limits.idle_seconds and len(self._seen) > 1:
            self._seen.popleft()
        most = gpus if self._limits.most is None else self._limits.most
        return max(min(self._seen[0][1], most), min(self._limits.least, most))


def decide(members: Sequence[KnownServer], target: int, free: int, taken: Collection[int]) -> Step:
    """Decide who comes and who goes.

    A server is only started where a GPU is free, so that nothing waits in Ray's queue for a GPU that nobody has. One
    server at a time is replaced because of its configuration.

    Args:
        target: How many servers there should be.
        free: GPUs that Ray has not given away.
        taken: Numbers whose names are still in use.
    """
    staying = [item for item in members if not item.is_draining]
    pending = [item for item in staying if not item.is_placed]
    surplus = len(staying) - target
    if surplus > 0:
        withdrawn = sorted(item.number for item in pending)[::-1][:surplus]
        placed = sorted((item for item in staying if item.is_placed), key=_worth)
        return Step(withdraw=tuple(withdrawn), drain=tuple(item.number for item in placed[: surplus - len(withdrawn)]))
    numbers = [number for number in range(target + len(taken)) if number not in taken]
    step = Step(start=tuple(numbers[: max(0, min(-surplus, free - len(pending)))]))
    stale = sorted((item for item in staying if item.is_stale), key=_worth)
    is_calm = len(staying) == len(members) and all(item.is_serving or item.is_stale for item in staying)
    return Step(start=step.start, drain=(stale[0].number,)) if stale and is_calm and not step.start else step


def _worth(member: KnownServer) -> tuple[bool, bool, int]:
    """Order servers by how much is lost with them, the least first."""
    return (member.is_serving, not member.is_stale, -member.number)
