"""How many texts an endpoint gets in one call of /api/embed, found from its own speed. Pure.

Each call has a cost beside that of its texts: HTTP, JSON, a turn of the model's process. Where that is much, groups of
texts are faster (v0.33 made 1.45 times as many vectors in groups of 64), elsewhere they only make each reply later
(v0.24 made 1.03 times as many).

    examination: 1 ─► 4 ─► 16 ─► 64, in three rounds ─► the size that was fastest ──after many texts──► examination

A size counts by the median of its rounds, so that one slow moment decides nothing, and another size than the present
one has to be clearly faster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

#: The sizes that are compared, and the calls of each in a round: enough that the first and the last one weigh little.
SIZES = {1: 16, 4: 8, 16: 4, 64: 3}
#: Rounds of an examination.
ROUNDS = 3
#: How much faster another size has to be, and how close to the fastest a smaller size has to come to be chosen.
GAIN, NEARLY = 1.1, 0.97
#: Most seconds that a call should take: it can only be cancelled as a whole, and it has one time limit.
MOST_SECONDS = 2.0
#: A call counts for a size if it has at least this share of it: the last one of a job may be smaller.
FULL_SHARE = 0.75
#: Calls of other sizes after which a size is left out: the texts are too long for it, or too few.
MISFITS = 48
#: Texts until the next examination.
REST_TEXTS = 50_000
#: Most texts in one call, and most bytes of them.
MOST_TEXTS, MOST_BYTES = max(SIZES), 2**18


@dataclass(slots=True)
class GroupSize:
    """The search at one endpoint with one model.

    Attributes:
        now: How many requests go into one call now.
    """

    now: int = 1
    #: The size that was found; `now` differs from it during an examination.
    _found: int = 1
    #: {size: texts a second, by round}
    _rates: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})
    #: Sizes of the present round that are still to be examined; None if there is no examination.
    _left: list[int] | None = field(default_factory=lambda: list(SIZES))
    _calls: int = 0
    _texts: int = 0
    _seconds: float = 0.0
    _misfits: int = 0
    #: Texts since the last examination.
    _since: int = 0

    def on_call(self, requests: int, texts: int, seconds: float) -> None:
        """Record a call that was answered.

        Args:
            requests, texts: How many it had; a request may have several texts.
            seconds: How long the endpoint worked on it: from the end of the call before, if it waited for that.
        """
        if self._left is None:
            self._since += texts
            if self._since >= REST_TEXTS:
                self._begin(list(SIZES))
            return
        if not FULL_SHARE * self.now <= requests <= self.now or seconds <= 0:
            self._misfits += 1
            if self._misfits >= MISFITS and self.now > 1:
                self._drop([size for size in self._rates if size >= self.now])
            return
        self._calls += 1
        self._texts += texts
        self._seconds += seconds
        if self._calls >= SIZES[self.now]:
            self._rates[self.now].append(self._texts / self._seconds)
            self._next()

    def on_timeout(self) -> None:
        """Record that a group of requests exceeded its time limit: smaller ones follow."""
        if self.now > 1:
            self._drop([size for size in self._rates if size >= self.now])

    def _begin(self, sizes: list[int]) -> None:
        self._rates = {size: [] for size in sizes}
        self._left, self._since = sizes, 0
        self._turn_to(sizes[0])

    def _drop(self, sizes: list[int]) -> None:
        """Leave sizes out, and continue with the others."""
        if self._left is None:
            self._found = max((size for size in SIZES if size < min(sizes)), default=1)
            self._turn_to(self._found)
            return
        self._rates = {size: rates for size, rates in self._rates.items() if size not in sizes}
        self._left = [size for size in self._left if size not in sizes] or [self.now]
        self._next()

    def _next(self) -> None:
        """Examine the next size, or end the examination."""
        left = self._left = (self._left or [])[1:]
        fitting = [size for size in left if self._is_short(size)]
        if not fitting:
            if len(self._rates[1]) >= ROUNDS:
                self._choose()
                return
            fitting = [size for size in self._rates if self._is_short(size)]
        self._left = fitting
        self._turn_to(fitting[0])

    def _turn_to(self, size: int) -> None:
        self.now = size
        self._calls = self._texts = self._misfits = 0
        self._seconds = 0.0

    def _is_short(self, size: int) -> bool:
        """Return whether a call of this size takes so little time that it can be made."""
        speeds = [rates[-1] for rates in self._rates.values() if rates]
        return size == 1 or not speeds or size <= MOST_SECONDS * max(speeds)

    def _choose(self) -> None:
        speeds = {size: median(rates) for size, rates in self._rates.items() if rates}
        fastest = max(speeds.values())
        best = min(size for size, speed in speeds.items() if speed >= NEARLY * fastest)
        if speeds[best] >= GAIN * speeds.get(self._found, 0.0):
            self._found = best
        self._left = None
        self._turn_to(self._found)
