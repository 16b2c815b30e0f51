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
#: How far requests of one size are apart before much is known: the deviation of the logarithm of their seconds, and the
#: number of requests that it counts for.
_USUAL_SPREAD, _SPREAD_WEIGHT = 0.45, 20.0
#: Standard deviations from which the tail of the distribution counts by its limit.
_FAR = 6.0
#: Answers for each request in flight from which those in flight say nothing more.
_FEW = 20
#: Turns in which what the requests in flight will take and what all of them take settle.
_TURNS = 4
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
class _Samples:
    """What requests of a job took, by the sizes of their lines.

    Attributes:
        usual: The mean length of the job's lines, in bytes.
        seen: `{size: [requests, their seconds]}`.
        sums: Of all of them: count, seconds, seconds².
    """

    usual: float
    seen: dict[int, list[float]] = field(default_factory=dict)
    sums: list[float] = field(default_factory=lambda: [0.0] * 3)
    #: Sums for the line: weight, and weight times length, seconds, length², length · seconds, seconds².
    _fit: list[float] = field(default_factory=lambda: [0.0] * 6)
    #: The line, and the number of requests after which it is fitted again.
    _line: tuple[float, float] | None = None
    _fit_again: float = 0.0

    def copy(self) -> _Samples:
        seen = {size: list(own) for size, own in self.seen.items()}
        return _Samples(self.usual, seen, list(self.sums), list(self._fit), self._line, self._fit_again)

    def note(self, size: int, seconds: float) -> None:
        """Take a request."""
        own = self.seen.setdefault(size, [0.0, 0.0])
        own[0] += 1
        own[1] += seconds
        self.add(1.0, _length(size), seconds)

    def add(self, times: float, length: float, seconds: float) -> None:
        """Take some requests whose sizes are not known one by one."""
        sums, fit = self.sums, self._fit  # written out: this is called for every answer
        sums[0] += times
        sums[1] += times * seconds
        sums[2] += times * seconds * seconds
        weight = times / (length + self.usual) ** 2  # the longer, the noisier
        fit[0] += weight
        fit[1] += weight * length
        fit[2] += weight * seconds
        fit[3] += weight * length * length
        fit[4] += weight * length * seconds
        fit[5] += weight * seconds * seconds
        if sums[0] >= self._fit_again:
            self._line, self._fit_again = None, 1.02 * sums[0]

    @property
    def mean(self) -> float:
        return self.sums[1] / self.sums[0] if self.sums[0] else 0.0

    def expected(self, size: int) -> float:
        """Return what a request of a size takes, in seconds: by those of its size, and by the line."""
        base, slope = self._find_line()
        usual = max(0.1 * self.mean, base + slope * _length(size))
        count, seconds = self.seen.get(size, (0.0, 0.0))
        return (seconds + _OWN_MEAN * usual) / (count + _OWN_MEAN)

    def variance(self) -> float:
        """Return how far requests are from what is expected, squared, as a share of that."""
        explained = sum(self.expected(size) ** 2 * count for size, (count, _) in self.seen.items())
        return max(0.0, self.sums[2] - explained) / max(explained, 1e-9)

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
            ridge = weight / self.sums[0] * noise / (mean / centre) ** 2 if mean > 0 else 0.0
            slope = shared / (across + ridge) if across + ridge > 0 else 0.0
            steepest = mean / centre  # through 0: no request takes less than nothing
            slope = max(-steepest, min(steepest, slope))
            self._line = mean - slope * centre, slope
        return self._line


def _expected_after(mean: float, age: float, spread: float) -> float:
    """Return what a request takes that has lasted for a while: the mean of the rest of a log-normal distribution.

    Args:
        mean: What such requests take, in seconds.
        age: How long it has lasted, in seconds.
        spread: The standard deviation of the logarithm.
    """
    if age <= 0 or mean <= 0:
        return max(mean, 0.0)
    place = math.log(age / mean) / spread + spread / 2
    if place > _FAR:
        return age * (1 + spread / place)
    return mean * math.erfc((place - spread) / math.sqrt(2)) / math.erfc(place / math.sqrt(2))


@dataclass(slots=True)
class WorkLeft:
    """What requests of a job take, by the size of their lines, in seconds of a slot.

    Attributes:
        left: `{size: requests without a result}`; one size where lengths are not known.
    """

    left: Counter[int]
    #: The requests that were answered.
    _answered: _Samples = field(init=False)
    #: Those, and the ones in flight with what they are expected to take.
    _all: _Samples = field(init=False)
    #: Seconds that recent requests took, and that they were expected to take.
    _recent: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _lost: float = 0.0

    def __post_init__(self) -> None:
        whole = self.left.total()
        usual = sum(_length(size) * count for size, count in self.left.items()) / whole if whole else 1.0
        self._answered = self._all = _Samples(usual)

    @property
    def requests(self) -> int:
        """How many requests have no result."""
        return self.left.total()

    @property
    def seen(self) -> int:
        """How many requests it has learned from."""
        return round(self._answered.sums[0])

    @property
    def mean(self) -> float | None:
        """The mean seconds of the requests seen; None before the first one."""
        return self._answered.mean if self._answered.sums[0] else None

    def note(self, size: int, seconds: float) -> None:
        """Learn from a request that was answered.

        Args:
            size: That of its line.
            seconds: How long it held its slot.
        """
        answered = self._all = self._answered  # it may be one of those that were in flight
        if answered.sums[0] >= _RECENT / 10:  # before that there is nothing to compare with
            expected = answered.expected(size)
            recent = self._recent
            recent[0] += seconds - recent[0] / _RECENT
            recent[1] += expected - recent[1] / _RECENT
        answered.note(size, seconds)

    def end(self, size: int) -> None:
        """Record that a request has its result."""
        self.left[size] -= 1

    def note_lost(self, seconds: float) -> None:
        """Learn from an attempt that failed: it held a slot too."""
        self._lost += seconds

    def look_at(self, in_flight: Iterable[tuple[int, float]]) -> None:
        """Learn from requests that are not answered yet: at first only the quick ones are, which says too little.

        A request in flight counts with what it takes if it lasts longer than it has, which depends on what all take:
        both settle in a few turns (an expectation maximization for censored samples).

        Args:
            in_flight: `[(size of the line, seconds since it was sent), …]`.
        """
        answered, flying = self._answered, list(in_flight)
        self._all = answered
        count = answered.sums[0]
        if not count or len(flying) * _FEW < count:
            return
        for _ in range(_TURNS):
            known = math.log1p(self._all.variance()) if count > 1 else 0.0
            spread = math.sqrt((known * count + _SPREAD_WEIGHT * _USUAL_SPREAD**2) / (count + _SPREAD_WEIGHT))
            found = [(size, _expected_after(self._all.expected(size), age, spread)) for size, age in flying]
            self._all = answered.copy()
            for size, seconds in found:
                self._all.note(size, seconds)

    def note_earlier(self, requests: int, seconds: float) -> None:
        """Start from what an earlier coordinator measured: the sum over this many requests."""
        if requests > 0 and seconds > 0:
            self._answered.add(min(float(requests), _EARLIER), self._answered.usual, seconds / requests)

    @property
    def seconds(self) -> float:
        """The work that is left, in seconds of a slot; 0 before the first answer."""
        return sum(count * self._all.expected(size) for size, count in self.left.items() if count) * self._level

    def spread(self, *, is_longest_first: bool = False) -> float:
        """Return how far the requests that are left are from their mean, in seconds (standard deviation).

        Args:
            is_longest_first: Whether the short ones come last, so that their lengths do not matter at the end.
        """
        if self._answered.sums[0] < 2 or not self.requests:
            return self.mean or 0.0
        expected, within = self._all.expected, self._answered.variance()
        left = {size: number for size, number in self.left.items() if number}
        if is_longest_first:
            return math.sqrt(within) * expected(min(left))
        mean = sum(number * expected(size) for size, number in left.items()) / self.requests
        between = sum(number * (expected(size) - mean) ** 2 for size, number in left.items()) / self.requests
        return math.sqrt(within * mean * mean + between * (1 + within))

    @property
    def _level(self) -> float:
        """What has changed recently, as a factor; a few requests say little about that."""
        actual, expected = self._recent
        weight = min(1.0, max(0.0, self.seen - _RECENT / 10) / _RECENT)
        level = 1.0 + weight * (actual / expected - 1.0) if expected > 0 else 1.0
        seconds = self._answered.sums[1]
        return level * (1.0 + self._lost / seconds if seconds > 0 else 1.0)


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
