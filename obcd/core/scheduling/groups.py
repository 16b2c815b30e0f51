"""The units of scheduling: the requests of one job that need one signature; whose turn it is, and which model's. Pure.

An endpoint keeps the signature that it has loaded while there is work for it: each switch costs a load of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.holder import Holder

#: Seconds that work for another signature waits before an endpoint lets its own work run out and switches.
COLLATE_SECONDS = 30.0


@dataclass(slots=True)
class Group:
    """The requests of one job that need one signature."""

    backlog: Backlog
    number: int
    signature: Signature
    served_at: float  # when one of its requests was last leased (or when the group came)
    turn: int = 0  # the number of its last turn, among those of all
    #: Whether it got a slot before its turn, to go on with a lane, and has not had its turn since.
    is_ahead: bool = False
    unservable_since: float | None = None

    @property
    def is_at_rest(self) -> bool:
        """Return whether no request of it waits for an endpoint."""
        return self.backlog.is_at_rest or not self.backlog.has_unleased(self.number)


class Turns:
    """The turns of submitters, and of the jobs of one submitter.

    A slot that a lane has just freed goes on to that lane before its turn, once; it pays with its next turn. So no
    submitter waits for more than one reply beyond fair share, and slots are not handed to and fro after each request.
    """

    def __init__(self) -> None:
        self._count = 0
        #: {submitter: the number of their last turn}
        self._served: dict[int, int] = {}
        #: Submitters who got a slot before their turn and have not had their turn since.
        self._ahead: set[int] = set()

    def order(self, group: Group) -> tuple[int, int, int, int]:
        """Return the key by which groups are sorted, the next one first."""
        backlog = group.backlog
        return -backlog.rank.among_all, self._served.get(backlog.submitter, 0), -backlog.rank.among_own, group.turn

    def put_first(self, groups: list[Group], endpoint: str, freed: tuple[str, int] | None) -> list[Group]:
        """Return groups in the order of their turns, but before them that of a lane whose slot was freed, if it may.

        Args:
            groups: In the order of their turns.
            freed: Job and signature number of the lane whose slot is free.
        """
        for _ in groups[1:]:
            first, second = groups[0], groups[1]
            if not self._owes(first, second):
                break
            first.is_ahead = False
            self._ahead.discard(first.backlog.submitter)
            self._pass(first)
            groups.sort(key=self.order)
        for group in groups[1:]:
            is_meant = (group.backlog.job, group.number) == freed and group.backlog.keeps_slot(group.number, endpoint)
            if is_meant and _is_alike(group, groups[0]) and not self._owes(group, groups[0]):
                return [group, *(other for other in groups if other is not group)]
        return groups

    def _owes(self, group: Group, other: Group) -> bool:
        """Return whether a group went ahead of another and has not paid for it yet."""
        is_ahead = group.is_ahead or group.backlog.submitter in self._ahead
        return is_ahead and _is_alike(group, other)

    def note(self, group: Group, now: float, *, is_ahead: bool) -> None:
        """Record that a group got a slot.

        Args:
            is_ahead: Before its turn.
        """
        group.served_at = now
        self._pass(group)
        if is_ahead:
            group.is_ahead = True
            self._ahead.add(group.backlog.submitter)

    def _pass(self, group: Group) -> None:
        self._count += 1
        group.turn = self._served[group.backlog.submitter] = self._count


def _is_alike(group: Group, other: Group) -> bool:
    """Return whether two groups take turns: neither has a higher priority."""
    rank, others = group.backlog.rank, other.backlog.rank
    is_own = group.backlog.submitter == other.backlog.submitter
    return rank == others if is_own else rank.among_all == others.among_all


#: Returns whether an endpoint could get work of a group now.
Serves = Callable[[Holder, Group], bool]


def must_switch(
    endpoint: Holder, ready: Collection[Group], endpoints: Collection[Holder], serves: Serves, now: float
) -> bool:
    """Return whether an endpoint has to let its work run out for a group that no endpoint serves.

    Args:
        ready: The groups that it could serve.
    """
    starved = [
        group
        for group in ready
        if group.signature != endpoint.loaded
        and now - group.served_at > COLLATE_SECONDS
        and not servers_of(group, endpoints, serves)
    ]
    order = spared_first(endpoints) if starved else []
    return any(next((item for item in order if serves(item, group)), None) is endpoint for group in starved)


def spared_first(endpoints: Collection[Holder]) -> list[Holder]:
    """Return the endpoints, beginning with the one to spare; only that one drains, the others go on working.

    It is one whose signature others have too, with the fewest requests in flight: it stays the first while it drains.
    """
    loaded = Counter(item.loaded for item in endpoints)
    return sorted(endpoints, key=lambda item: (loaded[item.loaded] == 1, len(item.leases)))


def servers_of(group: Group, endpoints: Collection[Holder], serves: Serves) -> int:
    """Return how many endpoints have a group's signature loaded and could get work of it."""
    return sum(item.loaded == group.signature and serves(item, group) for item in endpoints)
