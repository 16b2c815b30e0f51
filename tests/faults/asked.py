"""What killed servers saw: who was asked what when, and which kill excuses that it was asked again.

All by the servers' own account (`obcd simulate --account`), which no kill takes from them; all times are monotonic
seconds of the machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

#: Seconds after a kill in which a request that was given out before it may still arrive at its server: it lay in a
#: socket. What came then from the killed one's successor is not excused, for no coordinator starts that fast.
GIVEN_OUT_SECONDS = 0.25
#: The longest way of an answer from its server over worker and coordinator into the ledger that is excused, in seconds;
#: some milliseconds where nothing else runs.
ON_THE_WAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request at one server; `ended` is None when the server was killed before."""

    prompt: str
    server: int  # process id
    arrived: float
    ended: float | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Kill:
    """When, and the process ids of the servers whose requests it touched: asked by who was killed, or killed."""

    at: float
    servers: frozenset[int]


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What was asked again, and why.

    Attributes:
        asked: Requests that arrived at a server.
        again: Of them those whose prompt had been asked before.
        in_flight: Requests at a server at a kill that touched it, or on their way to it.
        at_servers: Asked again since they were in flight.
        ages: Asked again though answered: how long before the kill, in seconds; the answer was not on disk yet.
        copies: Asked on two servers at once, as a straggler is.
        unexcused: Asked again without a kill between.
    """

    asked: int
    again: int
    copies: int
    in_flight: int
    at_servers: int
    ages: tuple[float, ...]
    unexcused: tuple[tuple[Asked, Asked], ...]

    def __str__(self) -> str:
        oldest = f", at most {1000 * max(self.ages):.0f} ms before it" if self.ages else ""
        return (
            f"{self.again} of {self.asked} requests were asked again, {self.in_flight} were in flight at the kills: "
            f"{self.at_servers} at a server, {self.copies} asked on two at once, "
            f"{len(self.ages)} answered and not on disk yet{oldest}, "
            f"{len(self.unexcused)} without a kill"
        )


def read_account(path: Path) -> list[Asked]:
    """Read what all servers wrote, in the order of arrival; a line cut short by a kill would be no JSON."""
    arrived: dict[tuple[int, int, int], tuple[str, float]] = {}
    ended: dict[tuple[int, int, int], tuple[float, str]] = {}
    for line in path.read_bytes().splitlines():
        item = json.loads(line)
        key = (item["pid"], item["server"], item["request"])
        if item["event"] == "arrived":
            arrived[key] = (item["prompt"], item["at"])
        else:
            ended[key] = (item["at"], item["event"])
    found = [Asked(prompt, key[0], at, *ended.get(key, (None, "killed"))) for key, (prompt, at) in arrived.items()]
    return sorted(found, key=lambda item: item.arrived)


def reckon(account: Iterable[Asked], kills: Iterable[Kill], wanted: Mapping[str, int]) -> Reckoning:
    """Find for each request that was asked again the kill that excuses it.

    Args:
        wanted: `{prompt: how often it was dropped}`, where that is not once.
    """
    kills = list(kills)
    by_prompt: dict[str, list[Asked]] = {}
    for item in account:
        by_prompt.setdefault(item.prompt, []).append(item)
    copies, at_servers, ages, unexcused = 0, 0, list[float](), list[tuple[Asked, Asked]]()
    for prompt, asked in by_prompt.items():
        without = []
        for first, again in pairwise(asked):
            age = _age(first, again, kills)
            if age is None and _are_copies(first, again):
                copies += 1
            elif age is None:
                without.append((first, again))
            elif age > 0:
                ages.append(age)
            else:
                at_servers += 1
        unexcused += without[wanted.get(prompt, 1) - 1 :]
    everything = [item for asked in by_prompt.values() for item in asked]
    repeats = sum(len(asked) - wanted.get(prompt, 1) for prompt, asked in by_prompt.items())
    in_flight = sum(_is_in_flight(item, kill) for kill in kills for item in everything)
    return Reckoning(len(everything), repeats, copies, in_flight, at_servers, tuple(ages), tuple(unexcused))


def _age(first: Asked, again: Asked, kills: list[Kill]) -> float | None:
    """Return how long before the kill that excuses `again` the first was answered, 0 if it was not; None: no kill."""
    touched = [kill for kill in kills if _is_touched(first, kill) and kill.at <= again.arrived]
    if any(_is_in_flight(first, kill) for kill in touched):
        return 0.0
    excused = [kill.at - first.ended for kill in touched if first.ended is not None]
    return min((age for age in excused if age <= ON_THE_WAY_SECONDS), default=None)


def _are_copies(first: Asked, again: Asked) -> bool:
    """Tell whether a straggler was asked on an idle server too; the slower of both is broken off, if there is time.

    Its answer may have been on the way while the copy was: then the copy is broken off at once.
    """
    if first.server == again.server:
        return False
    is_withdrawn = again.outcome == "cancelled" and first.ended is not None
    slack = ON_THE_WAY_SECONDS if is_withdrawn else 0.0
    return first.ended is None or again.arrived < first.ended + slack


def _is_touched(item: Asked, kill: Kill) -> bool:
    return item.server in kill.servers and item.arrived <= kill.at + GIVEN_OUT_SECONDS


def _is_in_flight(item: Asked, kill: Kill) -> bool:
    """Tell whether it was at its server at the kill, or on its way there: then it is answered, for nobody, after it."""
    return _is_touched(item, kill) and (item.ended is None or item.ended > kill.at)
