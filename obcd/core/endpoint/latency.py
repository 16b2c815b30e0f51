"""How long requests take at an endpoint, and how long a request of a certain age will still take. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Weight of the newest request in the mean.
NEWEST = 0.1
#: A request that takes this many times the mean of its endpoint is overdue: it may never end.
OVERDUE = 3.0
#: The remaining time of a request that just became overdue, in means of its endpoint.
REST = 1.25


@dataclass(slots=True)
class MeanLatency:
    """The mean time of recent requests, in seconds; None before the first one."""

    mean: float | None = None

    def note(self, seconds: float) -> None:
        """Record a request that was answered."""
        self.mean = seconds if self.mean is None else self.mean + NEWEST * (seconds - self.mean)

    def is_overdue(self, age: float, elsewhere: float) -> bool:
        """Return whether a request of this age takes unusually long.

        Args:
            elsewhere: The mean of another endpoint, used if nothing is known of this one.
        """
        return age > OVERDUE * (elsewhere if self.mean is None else self.mean)

    def rest(self, age: float, elsewhere: float) -> float:
        """Return how long a request of this age will still take: the further it exceeds the mean, the longer."""
        mean = elsewhere if self.mean is None else self.mean
        return mean - age if age < mean else (age - mean) / (OVERDUE - 1) * REST
