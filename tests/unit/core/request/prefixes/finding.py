"""Small helpers: requests from texts, and the lanes that are found in them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from obcd.core.request.prefixes.lane_choice import FoundLanes, choose_lanes
from obcd.core.request.prefixes.prefix_finder import PrefixFinder
from obcd.core.request.records import Request

DRAW = random.Random(7)


def words(length: int) -> str:
    """Return a text that shares nothing with another one."""
    return "".join(DRAW.choices("abcdefgh ", k=length))


def prompt(text: str) -> Request:
    return Request(line=1, id=1, prompt=text, messages=[{"role": "user", "content": text}])


def found(requests: Iterable[Request], answers: int = 1, signatures: Sequence[int] = ()) -> FoundLanes | None:
    """Return the lanes of some requests, each with so many answers."""
    finder, ordinal = PrefixFinder(), 0
    for place, request in enumerate(requests):
        finder.take(request, signatures[place] if signatures else 0, ordinal, answers)
        ordinal += answers
    return choose_lanes(finder.finish(), ordinal)


def groups(lanes: FoundLanes | None) -> list[list[int]]:
    """Return the ordinals of each lane."""
    members = defaultdict(list)
    for ordinal, number in enumerate(lanes.numbers if lanes is not None else ()):
        if number:
            members[number].append(ordinal)
    return [members[number] for number in sorted(members)]
