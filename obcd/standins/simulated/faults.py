"""Simulated faults: by a marker inside a prompt, or at a rate over all prompts.

    [[simulate:crash]]   [[simulate:status=503]]   [[simulate:crash*2]]   only the first 2 times that the prompt is sent

A rate uses a hash of prompt, attempt and kind, so that two runs over the same prompts see the same faults.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from obcd.errors import UsageError
from obcd.standins.wire.engine import EngineError, EngineReply, WorkOutcome

#: {kind: what happens}; those with `=` take a value
KINDS: Mapping[str, str] = {
    "hang": "accepts the request and never answers",
    "stuck": "as hang, and so do all later requests until the model is unloaded",
    "drip": "answers one byte per second, without end",
    "crash": "the runner dies: 500 for all its requests, then the model is loaded again",
    "crash-load": "as crash, and the load after it fails",
    "kill-server": "the whole server ends: all its connections are cut; it listens again after this many seconds",
    "status": "answers with this status, e.g. status=503; 500 has a text that no version of Ollama has",
    "eof": "500 as from a model's process that ended",
    "cut": "drops the connection in the middle of the reply",
    "done-false": "200 with done:false and no metrics",
    "repeat": "as done-false, and the answer ends with the same word forty times",
    "empty-thinking": "200 with thinking, no content, done_reason length",
    "blank": "200 with an answer of white space",
    "length": "200 with the answer cut short, done_reason length",
    "redirect": "307 to another address",
    "huge": "200 with an answer of this many bytes, e.g. huge=100000000",
    "garbled": "200 with some words of the answer spelt backwards",
    "garbage": "200 with a body that is not JSON",
    "seconds": "takes this many seconds instead, e.g. seconds=0.2",
    "short": "one vector less than there are texts (/api/embed)",
    "empty": "vectors without numbers (/api/embed)",
    "zeros": "vectors of zeros (/api/embed)",
    "nan": "a vector with NaN in it (/api/embed)",
    "tokens": "counts this many more tokens in the prompt, e.g. tokens=5000",
}

#: kinds that need a value
VALUED = {"kill-server", "status", "huge", "seconds", "tokens"}

#: kinds that only change the prompt's length, the answer or its time; all others replace the answer
MILD = {"seconds", "tokens", "garbled"}

#: kinds that apply only to vectors
VECTOR_KINDS = {"short", "empty", "zeros", "nan"}

MARK = "[[simulate:"
_MARKER = re.compile(r"\[\[simulate:([a-z-]+)(?:=([0-9.]+))?(?:\*(\d+))?\]\]")

#: {status: Ollama's message with it}
STATUS_TEXTS = {
    400: "invalid request",
    404: "model not found",
    429: "too many requests",
    499: "request canceled",
    500: "simulated status 500",
    503: "server busy, please try again.  maximum pending requests exceeded",
}

#: Ollama's message for a failed load
LOAD_TEXT = "llama-server process has terminated: exit status 2"
CRASH_TEXT = "an error was encountered while running the model: unexpected EOF"
#: Ollama's message of an embedding whose process ended (ollama #6094)
EOF_TEXT = 'do embedding request: Post "http://127.0.0.1:40001/embedding": EOF'
#: what `repeat` appends; Ollama ends a generation after some thirty equal tokens
REPEATED = " no" * 40

#: bytes that `huge` writes at a time
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class SimulatedFault:
    """One fault of one request."""

    kind: str
    value: float = 0.0
    times: int | None = None  # only this many first attempts of a prompt; None = every attempt


@dataclass(frozen=True, slots=True)
class FaultRate:
    """A fault that hits a share of all requests."""

    fault: SimulatedFault
    rate: float  # 0 to 1


def parse_rate(text: str) -> FaultRate:
    """Read `KIND=RATE` or `KIND=VALUE=RATE`, e.g. `crash=0.01`, `status=503=0.1`."""
    name, _, rate_text = text.rpartition("=")
    kind, _, value_text = name.partition("=")
    try:
        fault, rate = check_fault(kind, value_text or None, None), float(rate_text)
    except (EngineError, ValueError) as error:
        raise UsageError(
            f"--fault {text}: write KIND=RATE or KIND=VALUE=RATE, e.g. crash=0.01 or status=503=0.1, "
            f"with a kind of {', '.join(KINDS)}."
        ) from error
    if not 0.0 <= rate <= 1.0:
        raise UsageError(f"--fault {text}: the rate {rate_text} is not between 0 and 1.")
    return FaultRate(fault, rate)


def check_fault(kind: str, value: str | None, times: str | None) -> SimulatedFault:
    """Return a fault, or raise 400 for an unknown kind or a missing value."""
    if kind not in KINDS or (kind in VALUED) != (value is not None):
        raise EngineError(400, f"obcd simulate knows no fault '{kind}' like this; it knows {', '.join(KINDS)}")
    try:
        number = float(value or 0)
    except ValueError as error:
        raise EngineError(400, f"obcd simulate: '{value}' is not a number for the fault '{kind}'") from error
    return SimulatedFault(kind, number, None if times is None else int(times))


def marked_faults(prompt: str, attempt: int) -> list[SimulatedFault]:
    """Return the faults that a prompt requests at this attempt, counted from 1."""
    if MARK not in prompt:
        return []
    faults = [check_fault(*match.groups()) for match in _MARKER.finditer(prompt)]
    return [fault for fault in faults if fault.times is None or attempt <= fault.times]


def drawn_faults(rates: Sequence[FaultRate], prompt: str, attempt: int) -> list[SimulatedFault]:
    """Return the faults drawn for this attempt; the same for the same prompt, attempt and kind."""
    return [rate.fault for rate in rates if draw(f"{rate.fault.kind}\0{attempt}\0{prompt}") < rate.rate]


def draw(text: str) -> float:
    """Return a number in [0, 1) that depends only on the text."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7]) / (1 << 56)


def garble(text: str) -> str:
    """Return a text with every fourth word reversed, like an answer of a card that computes wrongly."""
    return " ".join(word[::-1] if number % 4 == 3 else word for number, word in enumerate(text.split(" ")))


async def play(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> WorkOutcome | None:
    """Apply a fault to a finished answer; return None if the reply was written here.

    Raises:
        EngineError: the fault is an error reply.
    """
    _refuse(fault)
    changed: Mapping[str, WorkOutcome] = {
        "done-false": replace(outcome, done_reason=None),
        "repeat": replace(outcome, text=outcome.text + REPEATED, done_reason=None),
        "empty-thinking": replace(outcome, text="", thinking=outcome.text, done_reason="length"),
        "blank": replace(outcome, text="\n \n"),
        "length": replace(outcome, text=outcome.text[: len(outcome.text) // 2], done_reason="length"),
        **dict.fromkeys(VECTOR_KINDS, outcome),
    }
    if fault.kind in changed:
        return changed[fault.kind]
    await _REPLIES[fault.kind](fault, outcome, reply)
    return None


async def spoil(fault: SimulatedFault, vectors: list[list[float]]) -> list[list[float]]:
    """Apply a fault to finished vectors; faults that only a generation can have change nothing.

    Raises:
        EngineError: the fault is an error reply.
    """
    _refuse(fault)
    if fault.kind == "hang":
        await asyncio.Event().wait()
    if fault.kind == "short":
        return vectors[1:]
    spoilt: Mapping[str, list[float]] = {"empty": [], "zeros": [0.0] * len(vectors[0]), "nan": [math.nan, 1.0]}
    return [spoilt.get(fault.kind, vector) for vector in vectors]


def _refuse(fault: SimulatedFault) -> None:
    if fault.kind == "eof":
        raise EngineError(500, EOF_TEXT)
    if fault.kind == "status":
        status = int(fault.value)
        raise EngineError(status, STATUS_TEXTS.get(status, f"simulated status {status}"))


async def _hang(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> None:
    await asyncio.Event().wait()


async def _drip(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> None:
    """Send a byte every second, so that a limit on the silence between two reads never ends it."""
    if not reply.stream:
        reply.exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
    while True:
        await asyncio.sleep(1.0)
        if reply.stream:
            await reply.send_piece(".")
        else:
            reply.exchange.write(b" ")


async def _cut(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> None:
    body = reply.body_of(outcome)
    half = body[: max(1, len(body) // 2)]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reply.exchange.write(half if reply.exchange.started else head.encode() + half)
    reply.exchange.abort()


async def _kill_server(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> None:
    reply.exchange.end_server(fault.value)
    await asyncio.Event().wait()  # its connection is cut, which cancels this


async def _redirect(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> None:
    reply.exchange.send(307, b"", extra="Location: http://127.0.0.1:9/api/chat\r\n")


async def _send_garbage(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> None:
    reply.exchange.send(200, b"<html><body>It works!</body></html>\n")


async def _send_huge(fault: SimulatedFault, outcome: WorkOutcome, reply: EngineReply) -> None:
    """Send a well-formed reply with a content of this many bytes, without holding it in memory."""
    size = int(fault.value)
    mark = "\x7fhuge\x7f"
    before, _, after = reply.body_of(replace(outcome, text=mark)).partition(mark.encode())
    exchange = reply.exchange
    exchange.start_stream("application/json")
    await exchange.send_chunk(before)
    for start in range(0, size, _BLOCK):
        await exchange.send_chunk(b"x" * min(_BLOCK, size - start))
    await exchange.send_chunk(after)
    exchange.end_stream()


#: {kind: function that writes the reply itself}
_REPLIES: Mapping[str, Callable[[SimulatedFault, WorkOutcome, EngineReply], Awaitable[None]]] = {
    "hang": _hang,
    "drip": _drip,
    "cut": _cut,
    "kill-server": _kill_server,
    "redirect": _redirect,
    "garbage": _send_garbage,
    "huge": _send_huge,
}
