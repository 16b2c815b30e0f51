"""When an endpoint switches from its loaded signature to another: each switch costs a load of the model. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from obcd.core.scheduling.groups import Group
from obcd.core.scheduling.leases import Holder

#: Seconds that work for another signature waits before an endpoint lets its own work run out and switches.
COLLATE_SECONDS = 30.0

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
