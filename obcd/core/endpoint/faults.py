"""What can go wrong with one attempt, and what that means: for the request, and for the endpoint.

The classification of replies is `obcd.ollama.failures`; this module is the vocabulary that scheduler and workers share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from obcd.core.request.model_names import how_to_get, is_cloud, is_name
from obcd.errors import LineError, TooLongError


class Remedy(StrEnum):
    """Where the same request is worth another attempt."""

    HERE = "here"  # the same endpoint is as good as any, after a pause
    ELSEWHERE = "elsewhere"  # another endpoint first; this one only when there is no other
    NEVER = "never"  # the same request would fail again


class Harm(StrEnum):
    """What a fault says about the endpoint."""

    NONE = "none"  # nothing: the request was at fault, or the endpoint is only busy
    STRIKE = "strike"  # suspicious: some of these in a row put the endpoint aside
    DOWN = "down"  # it does not serve: put aside at once
    UNFIT = "unfit"  # it does not serve this signature as it should: left out for it, others it may serve


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt.

    Attributes:
        kind: Stable word for machines, e.g. `timeout`; the `class` of a line of errors.jsonl.
        message: One sentence for people; it never quotes a prompt or an answer.
        remedy: Where to try again.
        costs_attempt: Whether it counts against the request's `attempts`.
        harm: What it says about the endpoint.
        retry_after: Seconds the server asked us to wait, 0 when it did not say.
        needs: The context length with which the same request may well succeed, in tokens; 0: none would help.
        kept: What the failure's record keeps beside that: the answer that would not do, and what it cost, e.g.
            `{"response": "…", "repairs": 2, "seconds": 3.1, "prompt_tokens": 310, "eval_tokens": 120}`. Never logged.
    """

    kind: str
    message: str
    remedy: Remedy
    costs_attempt: bool = True
    harm: Harm = Harm.NONE
    retry_after: float = 0.0
    needs: int = 0
    kept: Mapping[str, Any] = field(default_factory=dict, repr=False)


def bad_line(error: LineError) -> Fault:
    """Return the fault of a line that cannot become a request."""
    return Fault("too_long" if isinstance(error, TooLongError) else "bad_line", str(error), Remedy.NEVER)


def worker_lost() -> Fault:
    """Return the fault of a request whose worker process ended or froze while it was in flight."""
    return Fault("worker_lost", "the worker process ended while it asked this", Remedy.ELSEWHERE, harm=Harm.NONE)


def worker_fault(place: str) -> Fault:
    """Return the fault of a request at which our own code failed; `place` is see `logs.setup.fault_text`."""
    return Fault("worker_fault", f"the worker failed while it asked this ({place})", Remedy.ELSEWHERE)


def weights_missing(model: str, digest: str) -> Fault:
    """Return the fault of a request whose job was begun with weights that no endpoint has any more."""
    return Fault(
        "weights_missing",
        f"no endpoint has the '{model}' any more that this job was begun with (digest {digest}): "
        "drop retry.jsonl to have the rest answered by the one that is there",
        Remedy.NEVER,
    )


def model_missing(model: str, endpoints: int, url: str = "") -> Fault:
    """Return the fault of a request whose model none of some endpoints has; `url` is of one that could."""
    advice = how_to_get(model, url)
    if is_name(model) and not is_cloud(model):
        advice = f"pull it ({advice}), then drop retry.jsonl"
    where = "the endpoint does not have" if endpoints == 1 else f"none of the {endpoints} endpoints has"
    return Fault(
        "model_missing",
        f"{where} the model '{model}': {advice}",
        Remedy.NEVER,
    )
