"""What coordinator and workers say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from obcd.core.concurrency import UNTOLD, Span
from obcd.core.counts import Counts
from obcd.core.faults import Fault
from obcd.ollama.control import Probe
from obcd.secret import Secret


@dataclass(frozen=True, slots=True)
class Ask:
    """Coordinator → worker: ask this request; what it says, the worker reads from the job's folder."""

    ticket: int
    job: str
    ordinal: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Coordinator → worker: break this request off, if it is still in flight."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Configure:
    """Coordinator → worker: wait so long for a connection from now on, and send this token."""

    connect_timeout_seconds: float
    token: Secret | None = None


@dataclass(frozen=True, slots=True)
class ProbeNow:
    """Coordinator → worker: make a control call and report."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Worker → coordinator: the ledger's record, and what the coordinator needs of it without reading it."""

    ticket: int
    record: bytes
    line: int
    words: int
    counts: Counts
    span: Span = UNTOLD


@dataclass(frozen=True, slots=True)
class Faulted:
    """Worker → coordinator: this attempt failed."""

    ticket: int
    line: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Probed:
    """Worker → coordinator: what a control call found."""

    probe: Probe
