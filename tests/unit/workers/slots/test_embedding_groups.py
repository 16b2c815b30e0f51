"""Requests for vectors in one call: put together, halved for the one that is at fault, and taken apart."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import NO_COST, Cost, ModelAnswer
from obcd.core.answer.vectors import read_vectors
from obcd.core.endpoint.faults import Fault, Harm, Remedy, attempt_cancelled
from obcd.core.endpoint.group_size import MOST_BYTES, MOST_TEXTS
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, signature_of
from obcd.workers.messages import Ask
from obcd.workers.slots.embedding_groups import Member, merged, parts_of, send
from obcd.workers.slots.job_requests import Asked

SETTINGS = JobSettings(model="nomic-embed-text")
COST = Cost(0.5, 0.01, 0.4, wait_seconds=0.09, prompt_tokens=640)
LONG = Fault(FaultKind.TOO_LONG, "too long", Remedy.NEVER)
TIMEOUT = Fault(FaultKind.TIMEOUT, "no answer", Remedy.ELSEWHERE, harm=Harm.STRIKE)


def member(number: int, embed: str | list[str] = "", **fields: object) -> Member:
    document = {"embed": embed or f"text {number}", **fields}
    request = parse_line(json.dumps(document).encode(), number + 1)
    return Member(Ask(number, "j", number, 1), Asked(request, SETTINGS, signature_of(request, SETTINGS)))


def members(count: int) -> list[Member]:
    return [member(number) for number in range(count)]


def answer_of(part: Sequence[Member], *, raw: bool = False) -> ModelAnswer:
    """Return the reply to a call: for each text a vector with the text's length in it."""
    found = [[float(len(text)), 1.0] for text in merged(part).request.inputs]
    if raw:
        document = read_vectors(json.dumps({"embeddings": found}, separators=(",", ":")).encode())
        return ModelAnswer(embeddings=document["embeddings"], model="m", cost=COST)  # type: ignore[arg-type]
    return ModelAnswer(embeddings=found, model="m", cost=COST)


class Server:
    """Answers calls, except those with texts that are at fault.

    Attributes:
        calls: The tickets of each call.
    """

    def __init__(self, fault_of: Callable[[Sequence[Member]], Fault | None]) -> None:
        self.calls: list[list[int]] = []
        self._fault_of = fault_of

    def call(self, part: Sequence[Member]) -> ModelAnswer | Fault:
        self.calls.append([item.ask.ticket for item in part])
        return self._fault_of(part) or answer_of(part)


def guilty(*tickets: int, fault: Fault = LONG) -> Server:
    return Server(lambda part: fault if {item.ask.ticket for item in part} & set(tickets) else None)


@pytest.mark.parametrize("raw", [False, True])
def test_each_request_gets_its_vectors_and_the_first_the_cost_of_the_call(raw: bool) -> None:
    group = [member(0, "one"), member(1, ["three", "seven"]), member(2, "x")]

    found = list(send(group, lambda part: answer_of(part, raw=raw)))

    answers = [answer for _, answer in found if isinstance(answer, ModelAnswer)]
    assert [answer.embeddings for answer in answers] == [[[3.0, 1.0]], [[5.0, 1.0], [5.0, 1.0]], [[1.0, 1.0]]]
    assert [answer.cost for answer in answers] == [COST, NO_COST, NO_COST]
    assert {answer.group_size for answer in answers} == {3}


def test_single_request_is_as_if_it_had_been_sent_alone() -> None:
    ((_, answer),) = send([member(0)], answer_of)

    assert answer == answer_of([member(0)])
    assert isinstance(answer, ModelAnswer)
    assert answer.group_size == 0


@pytest.mark.parametrize(
    "fault",
    [
        LONG,
        Fault(FaultKind.BAD_SAMPLE, "NaN", Remedy.ELSEWHERE),
        Fault(FaultKind.SERVER_ERROR, "?", Remedy.ELSEWHERE, is_refusal=True),
    ],
    ids=lambda fault: str(fault.kind),
)
def test_text_that_is_refused_stands_alone_and_the_others_get_their_vectors(fault: Fault) -> None:
    server = guilty(37, fault=fault)

    found = dict((item.ask.ticket, result) for item, result in send(members(64), server.call))

    assert found.pop(37) is fault  # as it counts for a single request
    assert len(found) == 63
    assert all(isinstance(result, ModelAnswer) for result in found.values())
    assert len(server.calls) == 1 + 2 * 6


@pytest.mark.parametrize("kind", [FaultKind.TIMEOUT, FaultKind.CUT, FaultKind.CRASHED, FaultKind.HUNG], ids=str)
def test_group_that_may_have_harmed_its_server_comes_back_at_once_and_charges_nobody(kind: FaultKind) -> None:
    server = guilty(5, fault=Fault(kind, "…", Remedy.ELSEWHERE, harm=Harm.STRIKE, reply="text 5"))

    found = [result for _, result in send(members(8), server.call)]

    assert len(server.calls) == 1
    assert all(isinstance(result, Fault) for result in found)
    faults = [result for result in found if isinstance(result, Fault)]
    assert len(faults) == 8
    assert {(fault.kind, fault.costs_attempt, fault.is_shared, fault.reply) for fault in faults} == {
        (kind, False, True, "")
    }
    assert [fault.harm for fault in faults] == [Harm.STRIKE] + [Harm.NONE] * 7  # one call is one strike


def test_trouble_in_the_middle_keeps_the_vectors_so_far_and_blames_no_text_that_was_not_sent() -> None:
    # given a group whose first text is too long and whose sixth cuts the connection
    def fault_of(part: Sequence[Member]) -> Fault | None:
        tickets = {item.ask.ticket for item in part}
        return LONG if 0 in tickets else TIMEOUT if 5 in tickets else None

    server = Server(fault_of)

    found = dict((item.ask.ticket, result) for item, result in send(members(8), server.call))

    assert server.calls[-1] == [4, 5, 6, 7]
    assert [ticket for ticket, result in found.items() if isinstance(result, ModelAnswer)] == [1, 2, 3]
    assert found[0] is LONG
    assert all(isinstance(found[ticket], Fault) for ticket in (4, 5, 6, 7))


def test_cancelled_group_ends() -> None:
    server = guilty(0, fault=attempt_cancelled())
    others = [member(number, dimensions=64) for number in (8, 9)]

    found = [result for _, result in send([*members(2), *others], server.call)]

    assert server.calls == [[0, 1]]
    assert {(fault.kind, fault.reached_model) for fault in found[2:] if isinstance(fault, Fault)} == {
        (FaultKind.CANCELLED, False)
    }


def test_single_one_that_harms_the_endpoint_ends_the_group_and_is_charged_alone() -> None:
    strike = Fault(FaultKind.INVALID_REPLY, "no vectors", Remedy.ELSEWHERE, harm=Harm.STRIKE)
    server = Server(lambda _: strike)

    found = [result for _, result in send(members(64), server.call)]

    assert [len(call) for call in server.calls] == [64, 32, 16, 8, 4, 2, 1]
    assert [result.costs_attempt for result in found if isinstance(result, Fault)] == [True] + [False] * 63


def test_calls_hold_what_has_the_same_model_options_and_dimensions_within_their_bounds() -> None:
    group = [
        member(0),
        member(1, dimensions=64),
        member(2, options={"num_batch": 8}),
        member(3),
        member(4, dimensions=64),
        member(5, ["y"] * MOST_TEXTS),
        member(6, "z" * (MOST_BYTES - 10)),
        member(7, model="other"),
        member(8, options={"num_batch": 8}),
    ]

    parts = [[item.ask.ticket for item in part] for part in parts_of(group)]

    assert parts == [[0, 3], [1, 4], [2, 8], [5], [6], [7]]


def test_any_mixture_gives_each_request_one_outcome() -> None:
    drawn = random.Random(3)
    for _ in range(100):
        count = drawn.randint(1, 64)
        bad = {number: drawn.choice([LONG, TIMEOUT]) for number in drawn.sample(range(count), min(count, 3))}

        def fault_of(part: Sequence[Member], bad: dict[int, Fault] = bad) -> Fault | None:
            return next((bad[item.ask.ticket] for item in part if item.ask.ticket in bad), None)

        found = [(item.ask.ticket, result) for item, result in send(members(count), Server(fault_of).call)]

        assert sorted(ticket for ticket, _ in found) == list(range(count))
        charged = {ticket for ticket, result in found if isinstance(result, Fault) and result.costs_attempt}
        assert charged <= bad.keys()
