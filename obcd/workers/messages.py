"""What coordinator and workers say to each other: tuples, since frozen dataclasses take their time to be pickled."""

from __future__ import annotations

import copyreg
from typing import NamedTuple

from obcd.core.answer.counts import Counts
from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.faults import Fault
from obcd.ollama.control import Probe
from obcd.secret import Secret


class Ask(NamedTuple):
    """Coordinator → worker: ask this request; what it says, the worker reads from the job's folder.

    Attributes:
        digest: Of the weights that have to answer, "" for any.
        signature: Number of what it needs loaded, among those of its job.
        is_hedged: Whether another endpoint is at the same attempt.
    """

    ticket: int
    job: str
    ordinal: int
    attempt: int
    digest: str = ""
    signature: int = 0
    is_hedged: bool = False


class Cancel(NamedTuple):
    """Coordinator → worker: break this request off, if it is still in flight.

    Attributes:
        is_overdue: Whether it took so long that the server may hang.
    """

    ticket: int
    is_overdue: bool = False


class Configure(NamedTuple):
    """Coordinator → worker: wait so long for a connection from now on, send this token, look so closely."""

    connect_timeout_seconds: float
    token: Secret | None = None
    require_gpu: bool = False


class ProbeNow(NamedTuple):
    """Coordinator → worker: make a control call and report."""


class Answered(NamedTuple):
    """Worker → coordinator: the ledger's record, and what the coordinator needs of it without reading it.

    Attributes:
        span: What it took at the endpoint; None of an answer from the cache, for which nobody was asked.
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


class Stepped(NamedTuple):
    """Worker → coordinator: the server answers nobody, and this is being done about it, in a sentence for people."""

    text: str


class Uncached(NamedTuple):
    """Worker → coordinator: the cache of answers cannot be used, and why; the work goes on without it."""

    reason: str


class Probed(NamedTuple):
    """Worker → coordinator: what a control call found."""

    probe: Probe


# Those that go with every request are known by a number: else their modules and names would be sent and looked up each
# time. Both ends import this module; 240 to 255 are for private use (Python's copyreg, PEP 307).
for code, kind in enumerate((Ask, Answered, Counts, Span), 240):
    copyreg.add_extension(kind.__module__, kind.__qualname__, code)
