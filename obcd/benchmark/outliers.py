"""Find which of several similar things differs from the others: by value, by rate, by vote. Pure.

The measure is the median and the median deviation from it (MAD), which one outlier, or two of five, cannot move. Three
are needed to decide which one is odd: of two that differ, either may be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from statistics import median
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

#: The fewest among which one can be found odd.
FEWEST = 3
#: Robust standard deviations (1.4826 MAD) beyond which a value is out of line.
FAR = 3.5
#: Least standard deviation that is assumed, as a share of the median: equal cards differ by some percent.
LEAST_DEVIATION = 0.05
#: A rate is out of line from so many standard deviations, times and cases on: differing answers come in bursts.
RATE_FAR, RATE_TIMES, RATE_CASES = 5.0, 1.5, 3


def find_outliers(values: Mapping[str, float]) -> dict[str, float]:
    """Return `{name: value as a share of the median}` of those out of line, in either direction.

    The result is empty if there are fewer than `FEWEST`.
    """
    if len(values) < FEWEST:
        return {}
    middle = median(values.values())
    mad = median(abs(value - middle) for value in values.values())
    bound = FAR * max(1.4826 * mad, LEAST_DEVIATION * middle)
    return {name: value / middle for name, value in values.items() if middle and abs(value - middle) > bound}


def is_rate_high(cases: int, total: int, others: Sequence[tuple[int, int]]) -> bool:
    """Return whether a rate is far above those of the others, beyond chance.

    Args:
        cases: Number of cases out of `total`.
        others: (cases, total) of each of the others; without others no rate is high.
    """
    rates = [found / count for found, count in others if count]
    if not rates or cases < RATE_CASES:
        return False
    usual = max(median(rates), 1 / sum(count for _, count in others))
    deviation = math.sqrt(usual * (1 - usual) / total)
    return cases / total > RATE_TIMES * usual and cases / total - usual > RATE_FAR * deviation


def most_frequent(counts: Mapping[K, int]) -> K:
    """Return the most frequent key; the first one of equals."""
    return max(counts, key=lambda key: counts[key])


def find_majority(votes: Collection[K]) -> K | None:
    """Return the choice of more than half of the votes, None if there is no majority."""
    if not votes:
        return None
    choice, count = Counter(votes).most_common(1)[0]
    return choice if 2 * count > len(votes) else None
