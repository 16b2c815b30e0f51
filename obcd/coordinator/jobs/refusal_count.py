"""When a job is paused because the endpoints refuse its requests with errors that obcd does not know.

An endpoint that refuses a request and computes a token for another one is not at fault. But a server may be broken for
real work and not for one token, and must not fail a whole file. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: The share of a job's requests that may fail of refusals, and the least number that pauses it.
SHARE, LEAST = 0.02, 20


@dataclass(slots=True)
class RefusalCount:
    """The requests of one job that failed of refusals.

    Attributes:
        refused: How many did, in this run of the coordinator.
        resumed: How often the job was resumed: each time it takes twice as many to pause it again, so that lines that
            the user knows to fail end after a few pauses.
    """

    refused: int = 0
    resumed: int = 0
    _since: int = 0

    def add(self, lines: int, requests: int) -> bool:
        """Count lines that failed of one refusal; return whether the job is to be paused now.

        Args:
            requests: The number of requests of the job.
        """
        self.refused += lines
        self._since += lines
        return self._since >= max(LEAST, math.ceil(SHARE * requests)) << self.resumed

    def on_resume(self) -> None:
        """Count again from zero, up to twice as many."""
        self._since = 0
        self.resumed += 1
