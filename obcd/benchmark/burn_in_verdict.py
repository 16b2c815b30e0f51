"""Compare endpoints that got the same requests for a while: which one is odd, and by which evidence. Pure.

No card has to answer bit for bit like another: the other requests in a batch change the order of the sums, and now and
then a word. So no single answer is evidence; **rates** are: how often an endpoint differs from the answer of most
endpoints, and how often from its own usual answer, compared with the same rates of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from obcd.benchmark.outliers import FEWEST, find_majority, find_outliers, is_rate_high, most_frequent
from obcd.benchmark.samples import Sample, spread_tokens

#: A run is divided into so many parts of equal time; the first ones, in which the load builds up, do not count.
PARTS, WARM_PARTS = 60, 6
#: Late speed as a share of the early one, below which an endpoint slows down.
STEADY = 0.85
#: Least number of answers for an endpoint's speed over time, in rounds of all its slots.
LEAST_ROUNDS = 6


class Evidence(StrEnum):
    """The evidence against an endpoint."""

    MODEL = "model"  # it has other weights under the model's name
    ERRORS = "errors"  # requests failed there, and not at the others
    ANSWERS = "answers"  # it differs from the majority more often than the others do
    UNSTEADY = "unsteady"  # it differs from itself more often than the others do
    SPEED = "speed"  # it is slower, or faster, than the others
    SLOWING = "slowing"  # it became slower
    SPLIT = "split"  # two endpoints, and they answer differently


@dataclass(frozen=True, slots=True)
class Oddity:
    """One reason to examine an endpoint."""

    endpoint: str
    evidence: Evidence
    sentence: str


class BurnInTally:
    """The counts of one endpoint; their size does not grow with time.

    Args:
        slots: Number of requests that are kept in flight.
        prompts: Number of different prompts.
        started: When the run began, in monotonic seconds.
        seconds: The intended duration.
    """

    def __init__(self, slots: int, prompts: int, started: float, seconds: float) -> None:
        self.slots = slots
        self.answered = self.failed = 0
        #: {prompt: {digest of an answer: how often}}
        self.answers: defaultdict[int, Counter[int]] = defaultdict(Counter)
        #: {kind of a fault: how often}
        self.faults: Counter[str] = Counter()
        #: {kind of a fault: its sentence}
        self.messages: dict[str, str] = {}
        self._prompts, self._started, self._width = prompts, started, seconds / PARTS
        self._tokens = [0.0] * PARTS
        self._longest = 0.0  # seconds

    def take(self, sample: Sample) -> bool:
        """Count a sample; return True, which lets the run continue."""
        if sample.fault:
            self.failed += 1
            self.faults[sample.fault] += 1
            self.messages[sample.fault] = sample.message
            return True
        self.answered += 1
        self._longest = max(self._longest, sample.seconds)
        self.answers[sample.prompt % self._prompts][sample.digest] += 1
        for part, tokens in spread_tokens(sample, self._started, self._width, PARTS):
            self._tokens[part] += tokens
        return True

    def end(self, now: float) -> None:
        """Record that the run was interrupted: the time after `now` does not count as silence.

        Nor does the time shortly before, in which the tokens of answers in flight are missing.
        """
        self._tokens = self._tokens[: max(1, int((now - self._longest - self._started) / self._width))]

    @property
    def tokens_per_second(self) -> float:
        """The speed without the start."""
        return self._speed(self._tokens[WARM_PARTS:] or self._tokens)

    @property
    def late_share(self) -> float | None:
        """The speed of the last third as a share of the first third's; None if the run was too short."""
        counted = self._tokens[WARM_PARTS:]
        third = len(counted) // 3
        if self.answered < LEAST_ROUNDS * self.slots or not third:
            return None
        early = self._speed(counted[:third])
        return self._speed(counted[-third:]) / early if early else None

    def count_other(self, usual: Mapping[int, int]) -> tuple[int, int]:
        """Return how many answers differ from the usual ones, and how many belong to prompts with a usual one."""
        asked = {prompt: counts for prompt, counts in self.answers.items() if prompt in usual}
        total = sum(counts.total() for counts in asked.values())
        return total - sum(counts[usual[prompt]] for prompt, counts in asked.items()), total

    def usual(self) -> dict[int, int]:
        """Return `{prompt: digest of its most frequent answer here}`."""
        return {prompt: most_frequent(counts) for prompt, counts in self.answers.items()}

    def _speed(self, parts: Sequence[float]) -> float:
        return sum(parts) / (len(parts) * self._width)


def find_usual(tallies: Mapping[str, BurnInTally]) -> dict[int, int]:
    """Return `{prompt: digest}` of the usual answer of more than half of the endpoints; each has one vote a prompt."""
    votes: defaultdict[int, list[int]] = defaultdict(list)
    for tally in tallies.values():
        for prompt, digest in tally.usual().items():
            votes[prompt].append(digest)
    found = {prompt: find_majority(cast) for prompt, cast in votes.items()}
    return {prompt: digest for prompt, digest in found.items() if digest is not None}


def find_oddities(tallies: Mapping[str, BurnInTally], weights: Mapping[str, str]) -> list[Oddity]:
    """Return every reason to examine an endpoint, ordered by endpoint.

    Args:
        weights: `{endpoint: digest of its model}`.
    """
    usual = find_usual(tallies)
    found = [
        *_other_weights(weights),
        *_errors(tallies),
        *_answers(tallies, usual),
        *_speeds(tallies),
        *_slowing(tallies),
    ]
    if len(tallies) == 2 and not any(oddity.evidence is Evidence.UNSTEADY for oddity in found):
        found += _split(tallies, usual)
    order = list(tallies)
    return sorted(found, key=lambda oddity: order.index(oddity.endpoint))


def _other_weights(weights: Mapping[str, str]) -> list[Oddity]:
    most = find_majority(list(weights.values()))
    if most is None:
        sentence = "the endpoints have different weights under the model's name, and no version has a majority"
        return [Oddity(name, Evidence.MODEL, sentence) for name in weights]
    sentence = "it has other weights under the model's name than most: pull the model there again"
    return [Oddity(name, Evidence.MODEL, sentence) for name, digest in weights.items() if digest != most]


def _errors(tallies: Mapping[str, BurnInTally]) -> list[Oddity]:
    """Name endpoints where requests failed: a single failure counts if most endpoints have no failure."""
    counts = {name: (tally.failed, tally.failed + tally.answered) for name, tally in tallies.items()}
    found = []
    for name, (failed, total) in counts.items():
        others = [count for other, count in counts.items() if other != name]
        are_spared = 2 * sum(not count for count, _ in others) >= len(others)
        if failed and (are_spared or is_rate_high(failed, total, others)):
            kind = most_frequent(tallies[name].faults)
            sentence = f"{failed} of {total} requests failed, most often: {tallies[name].messages[kind]}"
            found.append(Oddity(name, Evidence.ERRORS, sentence))
    return found


def _answers(tallies: Mapping[str, BurnInTally], usual: Mapping[int, int]) -> list[Oddity]:
    """Name endpoints that differ from the majority, if three or more exist, and those that differ from their own."""
    apart = {name: tally.count_other(usual) for name, tally in tallies.items()} if len(tallies) >= FEWEST else {}
    unsteady = {name: tally.count_other(tally.usual()) for name, tally in tallies.items()}
    restless = _high(unsteady)
    found = []
    for name in _high(apart):
        how = "" if name in restless else ", each time in the same way: another kind of card, driver or version?"
        rates = f"{_percent(apart[name])} of its answers differ from the majority's, {_others(apart, name)} elsewhere"
        found.append(Oddity(name, Evidence.ANSWERS, rates + how))
    for name in restless:
        rates = f"{_percent(unsteady[name])} of its answers differ from its own usual ones"
        elsewhere = f"{_others(unsteady, name)} elsewhere: it makes errors in computation or memory now and then"
        found.append(Oddity(name, Evidence.UNSTEADY, f"{rates}, {elsewhere}"))
    return found


def _speeds(tallies: Mapping[str, BurnInTally]) -> list[Oddity]:
    found = find_outliers({name: tally.tokens_per_second for name, tally in tallies.items()})
    return [Oddity(name, Evidence.SPEED, f"it runs at {share:.0%} of the usual speed") for name, share in found.items()]


def _slowing(tallies: Mapping[str, BurnInTally]) -> list[Oddity]:
    shares = {name: tally.late_share for name, tally in tallies.items()}
    return [
        Oddity(name, Evidence.SLOWING, f"it slowed down to {share:.0%} of its early speed: heat, power or memory")
        for name, share in shares.items()
        if share is not None and share < STEADY
    ]


def _split(tallies: Mapping[str, BurnInTally], usual: Mapping[int, int]) -> list[Oddity]:
    both = set.intersection(*(set(tally.answers) for tally in tallies.values()))
    apart = len(both - set(usual))
    sentence = f"the two usually answer {apart} of {len(both)} prompts differently; which one is right is not known"
    return [Oddity(name, Evidence.SPLIT, sentence) for name in tallies if apart]


def _high(counts: Mapping[str, tuple[int, int]]) -> list[str]:
    return [
        name
        for name, (cases, total) in counts.items()
        if is_rate_high(cases, total, [count for other, count in counts.items() if other != name])
    ]


def _others(counts: Mapping[str, tuple[int, int]], name: str) -> str:
    others = [count for other, count in counts.items() if other != name]
    return _percent((sum(cases for cases, _ in others), sum(total for _, total in others)))


def _percent(count: tuple[int, int]) -> str:
    return f"{100 * count[0] / max(1, count[1]):.2g} %"
