"""The units of scheduling: the requests of one job that need one signature. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from obcd.core.request.records import Signature
from obcd.core.scheduling.backlog import Backlog


@dataclass(slots=True)
class Group:
    """The requests of one job that need one signature."""

    backlog: Backlog
    number: int
    signature: Signature
    served_at: float  # when one of its requests was last leased (or when the group came)
    turn: int = 0  # the scheduler's counter at that time
    unservable_since: float | None = None

    @property
    def is_at_rest(self) -> bool:
        """Return whether no request of it waits for an endpoint."""
        return self.backlog.is_paused or not self.backlog.has_unleased(self.number)
