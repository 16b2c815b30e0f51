"""Requests for vectors that go out in one call: put together, sent, and taken apart again.

A call fails as a whole, whichever of its texts is at fault. Where the server survives that (a text too long, a vector
of NaN), the group is halved until the text stands alone, so that the others get their vectors at once. Where it may not
have survived (no reply in time, a cut connection, a crash), all go back to the coordinator, which sends each alone: to
halve them would cost another time limit, or another crash, for each half.

    send ──► vectors ───────────────────► each request gets its own
     ▲ └───► refused ── two halves ──┐
     └───────────────────────────────┘    a single one ─► its fault, as if it had been sent alone
       └───► no reply, cut, crashed ─────► all come back, at no cost
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import NO_COST, ModelAnswer
from obcd.core.answer.vectors import VectorsJson
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.group_size import MOST_BYTES, MOST_TEXTS
from obcd.workers.messages import Ask
from obcd.workers.slots.job_requests import Asked

#: Faults of a reply that came: the server goes on, and the same texts in smaller groups show which of them it was.
REPLIES = frozenset(
    (FaultKind.SERVER_ERROR, FaultKind.BAD_SAMPLE, FaultKind.INVALID_REPLY, FaultKind.TOO_LARGE, FaultKind.ABORTED)
)
#: Faults that one text may have caused for all, and that each try may cause again: the texts are sent one by one.
FATAL = frozenset(
    (FaultKind.TIMEOUT, FaultKind.CUT, FaultKind.CRASHED, FaultKind.HUNG, FaultKind.OUT_OF_MEMORY)
)  # fmt: skip


class Member(NamedTuple):
    """One request of a group.

    Attributes:
        key: Its key in the cache of answers, None if it has none.
    """

    ask: Ask
    asked: Asked
    key: bytes | None = None


#: The outcome of one request.
Outcome = tuple[Member, ModelAnswer | Fault]


def is_divisible(fault: Fault) -> bool:
    """Return whether a group with this fault is sent again in halves."""
    return fault.remedy is Remedy.NEVER or fault.kind in REPLIES


def send(members: Sequence[Member], call: Callable[[Sequence[Member]], ModelAnswer | Fault]) -> Iterator[Outcome]:
    """Send requests in as few calls as possible; yield an outcome for each.

    Args:
        call: Sends one or more requests in one call; returns all their vectors, or the fault as it counts if there is
            only one request.
    """
    waiting = parts_of(members)[::-1]
    while waiting:
        part = waiting.pop()
        result = call(part)
        if isinstance(result, ModelAnswer):
            yield from zip(part, shares_of(result, part), strict=True)
        elif len(part) > 1 and is_divisible(result):
            middle = len(part) // 2
            waiting += part[middle:], part[:middle]
        else:
            yield from zip(part, _faults_of(result, len(part)), strict=True)
            if result.harm is not Harm.NONE or not is_divisible(result):  # the endpoint is in trouble
                unsent = replace(
                    result, costs_attempt=False, harm=Harm.NONE, reached_model=False, remedy=Remedy.ELSEWHERE, reply=""
                )
                yield from ((member, unsent) for part in waiting[::-1] for member in part)
                return


def parts_of(members: Sequence[Member]) -> list[list[Member]]:
    """Return the calls in which requests are sent first: each for one model, with the same options and dimensions."""
    parts: list[tuple[object, int, int, list[Member]]] = []
    for member in members:
        request = member.asked.request
        like = request.model, request.dimensions, request.options
        texts, size = len(request.inputs), size_of(request.inputs)
        for place, (others, count, total, part) in enumerate(parts):
            if others == like and count + texts <= MOST_TEXTS and total + size <= MOST_BYTES:
                part.append(member)
                parts[place] = others, count + texts, total + size, part
                break
        else:
            parts.append((like, texts, size, [member]))
    return [part for *_, part in parts]


def merged(part: Sequence[Member]) -> Asked:
    """Return the one request that is sent for several."""
    first = part[0].asked
    if len(part) == 1:
        return first
    inputs = tuple(text for member in part for text in member.asked.request.inputs)
    return first._replace(request=replace(first.request, inputs=inputs))


def shares_of(answer: ModelAnswer, part: Sequence[Member]) -> Iterator[ModelAnswer]:
    """Yield each request's part of the reply; the first one has the tokens and the times of all."""
    if len(part) == 1:
        yield answer
        return
    vectors, start = answer.embeddings or [], 0
    for number, member in enumerate(part):
        end = start + len(member.asked.request.inputs)
        cost = NO_COST if number else answer.cost
        own = vectors.part(start, end) if isinstance(vectors, VectorsJson) else vectors[start:end]
        yield answer._replace(embeddings=own, cost=cost, group_size=len(part))
        start = end


def kept_share(answer: ModelAnswer) -> ModelAnswer:
    """Return an answer as the cache keeps it: without the tokens of a whole call."""
    return answer._replace(cost=NO_COST) if answer.group_size > 1 else answer


def size_of(texts: Sequence[str]) -> int:
    """Return the size of texts, in bytes."""
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _faults_of(fault: Fault, count: int) -> Iterator[Fault]:
    """Yield the fault of each request of a call; a group charges no request, and its endpoint once."""
    if count == 1:
        yield fault
        return
    shared = replace(fault, costs_attempt=False, is_shared=fault.kind in FATAL, reply="")
    yield shared
    for _ in range(count - 1):
        yield replace(shared, harm=Harm.NONE)
