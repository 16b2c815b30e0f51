"""Which requests of a job will take long: those with long lines, if its own answers confirm that. Pure.

Requests that take long should not begin last: slots are idle at the end of a job while they are computed. But the
length of a line says much about a translation and nothing about a question. So a job begins in the order of its lines,
and changes to the longest first only once the time of its answers has proved to go with the length of their lines.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

#: Sizes are eighths of a job's lines.
SIZES = 8
#: Above this number of requests the end of a job is too small a part of it to matter.
MOST_REQUESTS = 100_000
#: Answers after which the correlation is checked; and again each time there are twice as many.
KNOWN = 64
#: Least correlation of size and the logarithm of the time. Below it the order helps little, and if short lines take
#: long it harms as much (`tests/bench/longest.py` has the figures).
LEAST_CORRELATION = 0.5


def sort_sizes(lengths: Sequence[int]) -> bytes:
    """Return the size of each line, 0 for the shortest eighth to 7 for the longest; b"" if it is of no use."""
    if len(lengths) > MOST_REQUESTS or len(lengths) <= KNOWN:
        return b""
    ascending = sorted(lengths)
    bounds = [ascending[len(lengths) * place // SIZES] for place in range(1, SIZES)]
    return bytes(bisect_right(bounds, length) for length in lengths) if ascending[0] < bounds[-1] else b""


class LongestFirst:
    """Whether size predicts time in one job, found from its answers."""

    def __init__(self) -> None:
        self._look_at = KNOWN
        self._count = 0
        self._sums = [0.0] * 5

    def note(self, size: int, seconds: float) -> None:
        """Learn from an answer: the size of its line, and how long it was computed."""
        if seconds <= 0:  # its server does not report it
            return
        log = math.log(seconds)
        self._count += 1
        for place, term in enumerate((size, log, size * size, log * log, size * log)):
            self._sums[place] += term

    def take_look(self) -> bool:
        """Return whether a check is due and size predicts time."""
        if self._count < self._look_at:
            return False
        self._look_at *= 2
        return self.correlation >= LEAST_CORRELATION

    @property
    def correlation(self) -> float:
        """The correlation of size and the logarithm of time: from -1 to 1, 0 if nothing varies."""
        count, (size, log, size2, log2, both) = self._count, self._sums
        spread = (count * size2 - size * size) * (count * log2 - log * log)
        return (count * both - size * log) / math.sqrt(spread) if spread > 1e-9 else 0.0
