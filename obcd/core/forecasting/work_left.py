"""How much work is left in a job, found from what its own requests took so far. Pure.

The first answers of a job are not typical: a file may be sorted, and long lines are sent first once they proved to take
long (`longest_first`). So each request counts for the lines of its size, and sizes that were not seen yet follow from a
line through those that were.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: Sizes of lines for each doubling of their length: lines of one size differ by less than a fifth.
_PER_OCTAVE = 4.0
#: Requests of one size whose mean counts as much as what the other sizes say about it.
_OWN_MEAN = 8.0
#: Requests over which the level follows servers that became faster or slower.
_RECENT = 300.0
#: Requests of which an earlier coordinator's sum counts at most, beside those seen since.
_EARLIER = 20.0


def size_of(length: int) -> int:
    """Return the size of a line of so many bytes: 0 to 112, four for each doubling."""
    return round(_PER_OCTAVE * math.log2(length + 1))


def sizes_of(lengths: Iterable[int]) -> bytes:
    """Return the size of each line, one byte each."""
    known: dict[int, int] = {}
    return bytes(known[length] if length in known else known.setdefault(length, size_of(length)) for length in lengths)


def _length(size: int) -> float:
    return float(2.0 ** (size / _PER_OCTAVE))


@dataclass(slots=True)
class WorkLeft:
    """What requests of a job take, by the size of their lines, in seconds of a slot.

    Attributes:
        left: `{size: requests without a result}`; one size where lengths are not known.
    """

    left: Counter[int]
    #: {size: [requests seen, their seconds]}
    _seen: dict[int, list[float]] = field(default_factory=dict)
    #: Sums of the requests seen: count, seconds, seconds².
    _sums: list[float] = field(default_factory=lambda: [0.0] * 3)
    #: Sums for the line: weight, and weight times length, seconds, length², length · seconds, seconds².
    _fit: list[float] = field(default_factory=lambda: [0.0] * 6)
    #: Seconds that recent requests took, and that they were expected to take.
    _recent: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _lost: float = 0.0
    _usual: float = field(init=False)
    #: The line, and the number of requests after which it is fitted again.
    _line: tuple[float, float] | None = None
    _fit_again: float = 0.0

    def __post_init__(self) -> None:
        whole = self.left.total()
        self._usual = sum(_length(size) * count for size, count in self.left.items()) / whole if whole else 1.0

    @property
    def requests(self) -> int:
        """How many requests have no result."""
        return self.left.total()

    @property
    def seen(self) -> int:
        """How many requests it has learned from."""
        return round(self._sums[0])

    @property
    def mean(self) -> float | None:
        """The mean seconds of the requests seen; None before the first one."""
        return self._sums[1] / self._sums[0] if self._sums[0] else None

    def note(self, size: int, seconds: float) -> None:
        """Learn from a request that was answered.

        Args:
            size: That of its line.
            seconds: How long it held its slot.
        """
        if self._sums[0] >= _RECENT / 10:  # before that there is nothing to compare with
            expected = self._expected(size)
            recent = self._recent
            recent[0] += seconds - recent[0] / _RECENT
            recent[1] += expected - recent[1] / _RECENT
        own = self._seen.setdefault(size, [0.0, 0.0])
        own[0] += 1
        own[1] += seconds
        self._add(1.0, _length(size), seconds)

    def end(self, size: int) -> None:
        """Record that a request has its result."""
        self.left[size] -= 1

    def note_lost(self, seconds: float) -> None:
        """Learn from an attempt that failed: it held a slot too."""
        self._lost += seconds

    def note_earlier(self, requests: int, seconds: float) -> None:
        """Start from what an earlier coordinator measured: the sum over this many requests."""
        if requests > 0 and seconds > 0:
            self._add(min(float(requests), _EARLIER), self._usual, seconds / requests)

    def _add(self, times: float, length: float, seconds: float) -> None:
        sums, fit = self._sums, self._fit  # written out: this is called for every answer
        sums[0] += times
        sums[1] += times * seconds
        sums[2] += times * seconds * seconds
        weight = times / (length + self._usual) ** 2  # the longer, the noisier
        fit[0] += weight
        fit[1] += weight * length
        fit[2] += weight * seconds
        fit[3] += weight * length * length
        fit[4] += weight * length * seconds
        fit[5] += weight * seconds * seconds
        if sums[0] >= self._fit_again:
            self._line, self._fit_again = None, 1.02 * sums[0]

    @property
    def seconds(self) -> float:
        """The work that is left, in seconds of a slot; 0 before the first answer."""
        return sum(count * self._expected(size) for size, count in self.left.items() if count) * self._level

    def spread(self, *, is_longest_first: bool = False) -> float:
        """Return how far the requests that are left are from their mean, in seconds (standard deviation).

        Args:
            is_longest_first: Whether the short ones come last, so that their lengths do not matter at the end.
        """
        count, _, squares = self._sums
        if count < 2 or not self.requests:
            return self.mean or 0.0
        fit = [(self._expected(size), seen) for size, (seen, _) in self._seen.items()]
        explained = sum(expected * expected * seen for expected, seen in fit)
        within = max(0.0, squares - explained) / max(explained, 1e-9)  # as a share of the mean, squared
        left = {size: number for size, number in self.left.items() if number}
        if is_longest_first:
            size = min(left)
            return math.sqrt(within) * self._expected(size)
        mean = sum(number * self._expected(size) for size, number in left.items()) / self.requests
        between = sum(number * (self._expected(size) - mean) ** 2 for size, number in left.items()) / self.requests
        return math.sqrt(within * mean * mean + between * (1 + within))

    @property
    def _level(self) -> float:
        """What has changed recently, as a factor; a few requests say little about that."""
        actual, expected = self._recent
        weight = min(1.0, max(0.0, self.seen - _RECENT / 10) / _RECENT)
        level = 1.0 + weight * (actual / expected - 1.0) if expected > 0 else 1.0
        return level * (1.0 + self._lost / self._sums[1] if self._sums[1] > 0 else 1.0)

    def _expected(self, size: int) -> float:
        base, slope = self._find_line()
        usual = max(0.1 * (self.mean or 0.0), base + slope * _length(size))
        seen, seconds = self._seen.get(size, (0.0, 0.0))
        return (seconds + _OWN_MEAN * usual) / (seen + _OWN_MEAN)

    def _find_line(self) -> tuple[float, float]:
        """Return the line of seconds over length: its value at 0 and its slope, which few requests keep small.

        The slope is an estimate of least squares with weights, and with a ridge as wide as the noise of the requests.
        """
        if self._line is None:
            weight, length, seconds, lengths, both, squares = self._fit
            if not weight:
                return 0.0, 0.0
            centre, mean = length / weight, seconds / weight
            across, shared = lengths - weight * centre**2, both - weight * centre * mean
            noise = max(0.0, squares / weight - mean**2)
            ridge = weight / self._sums[0] * noise / (mean / centre) ** 2 if mean > 0 else 0.0
            slope = shared / (across + ridge) if across + ridge > 0 else 0.0
            steepest = mean / centre  # through 0: no request takes less than nothing
            slope = max(-steepest, min(steepest, slope))
            self._line = mean - slope * centre, slope
        return self._line


def estimate_work(samples: Iterable[tuple[int, float]], lengths: Sequence[int]) -> WorkLeft:
    """Return the work in the lines of a file, from a few of them that were tried; `forecast` makes an end of it.

    Args:
        samples: `[(length of the line in bytes, seconds that its request held a slot), …]`.
        lengths: The lengths of the lines that are to be done.
    """
    work = WorkLeft(Counter(sizes_of(lengths)))
    for length, seconds in samples:
        work.note(size_of(length), seconds)
    return work


def choose_sample(lengths: Sequence[int], most: int) -> list[int]:
    """Return the places of lines that stand for all: those in the middle of equal parts of the lengths, in file order.

    A few lines chosen like this say more about the mean than as many from the beginning of the file.
    """
    ascending = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    count = min(most, len(ascending))
    return sorted(ascending[(2 * part + 1) * len(ascending) // (2 * count)] for part in range(count))
