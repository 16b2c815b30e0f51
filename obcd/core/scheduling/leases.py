"""Requests handed to endpoints. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from obcd.core.scheduling.poison import RequestKey


@dataclass(frozen=True, slots=True)
class Lease:
    """A request handed to an endpoint; `ticket` names it between coordinator and worker.

    Attributes:
        digest: Of the weights that have to answer, "" for any.
        signature: The number of its signature among those of its job.
        is_hedged: Whether another endpoint already worked on the same attempt: it does not count as another attempt.
        may_share: Whether it may go out in one call with others of its job.
    """

    ticket: int
    job: str
    ordinal: int
    endpoint: str
    attempt: int
    sent_at: float
    digest: str = ""
    signature: int = 0
    is_hedged: bool = False
    may_share: bool = False

    @property
    def request(self) -> RequestKey:
        """The leased request."""
        return self.job, self.ordinal


class Overtaken(NamedTuple):
    """A lease that ended because another endpoint answered first.

    Attributes:
        is_overdue: Whether it took so much longer than usual there that the endpoint may hang.
    """

    lease: Lease
    is_overdue: bool
