"""The messages between coordinator and workers: tuples, because pickling frozen dataclasses takes longer."""

from __future__ import annotations

import copyreg
from typing import NamedTuple

from obcd.core.answer.counts import Counts
from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.faults import Fault
from obcd.ollama.control import Probe
from obcd.secret import Secret


class Ask(NamedTuple):
    """Coordinator → worker: send this request to the server; the worker reads its content from the job's folder.

    Attributes:
        digest: The digest of the weights that have to be used, "" for any.
        signature: The number of its signature among those of its job.
        is_hedged: Whether another endpoint works on the same attempt.
    """

    ticket: int
    job: str
    ordinal: int
    attempt: int
    digest: str = ""
    signature: int = 0
    is_hedged: bool = False


class AskGroup(NamedTuple):
    """Coordinator → worker: send these requests for vectors, of one job and signature, in as few calls as possible."""

    asks: tuple[Ask, ...]


def tickets_of(message: Ask | AskGroup) -> tuple[int, ...]:
    """Return the tickets of a request, or of all requests of a group."""
    return (message.ticket,) if isinstance(message, Ask) else tuple(ask.ticket for ask in message.asks)


class Cancel(NamedTuple):
    """Coordinator → worker: cancel this request if it is still in flight.

    Attributes:
        is_overdue: Whether it took so long that the server may hang.
    """

    ticket: int
    is_overdue: bool = False


class Configure(NamedTuple):
    """Coordinator → worker: from now on use this limit for connections, this token, and this strictness of checks."""

    connect_timeout_seconds: float
    token: Secret | None = None
    require_gpu: bool = False


class ProbeNow(NamedTuple):
    """Coordinator → worker: make a control call and report."""


class LookAround(NamedTuple):
    """Coordinator → worker: report which models the server has in memory; it may be used by others too."""


class LookedAround(NamedTuple):
    """Worker → coordinator: the models in memory; None: the server does not say.

    Attributes:
        ends: `{canonical name: the end of its keep-alive time}`, in seconds on the server's clock.
        seconds: How long the call took.
    """

    ends: dict[str, float] | None
    seconds: float


class Answered(NamedTuple):
    """Worker → coordinator: the record for the ledger, and facts from it that save the coordinator parsing it.

    Attributes:
        span: The time at the endpoint; None for a response from the cache, for which no request was sent.
    """

    ticket: int
    record: bytes
    line: int
    words: int
    counts: Counts
    span: Span | None = UNTOLD


class Faulted(NamedTuple):
    """Worker → coordinator: this attempt failed."""

    ticket: int
    line: int
    fault: Fault


class GroupCall(NamedTuple):
    """What a call of vectors that was answered says about its endpoint.

    Attributes:
        requests, texts: How many it had.
        seconds: How long the endpoint worked on it.
    """

    requests: int
    texts: int
    seconds: float


class Grouped(NamedTuple):
    """Worker → coordinator: the outcomes of all requests of a group, and the calls that were made for them."""

    outcomes: tuple[Answered | Faulted, ...]
    calls: tuple[GroupCall, ...] = ()


class Weighed(NamedTuple):
    """Worker → coordinator: the server has replied to this request; whose fault that was is being examined."""

    ticket: int


class Stepped(NamedTuple):
    """Worker → coordinator: the server does not respond to any request; a sentence says which step is being taken."""

    text: str


class Uncached(NamedTuple):
    """Worker → coordinator: why the cache of answers cannot be used; the work continues without it."""

    reason: str


class Probed(NamedTuple):
    """Worker → coordinator: the findings of a control call."""

    probe: Probe


# The types that are sent for every request have a number: otherwise their modules and names would be sent and looked up
# each time. Both ends import this module; 240 to 255 are for private use (Python's copyreg, PEP 307).
for code, kind in enumerate((Ask, Answered, Counts, Span, AskGroup, Grouped, GroupCall), 240):
    copyreg.add_extension(kind.__module__, kind.__qualname__, code)
