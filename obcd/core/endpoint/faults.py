"""What can go wrong with one attempt, and what that means for the request and for the endpoint.

`obcd.ollama.failures` classifies replies; this module is the vocabulary that scheduler and workers share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import Failure, KeptAnswer
from obcd.core.request.model_names import how_to_get, is_cloud, is_name, is_of_service
from obcd.errors import LineError, TooLongError


class Remedy(StrEnum):
    """Where another attempt of the same request makes sense."""

    HERE = "here"  # the same endpoint is as good as any, after a pause
    ELSEWHERE = "elsewhere"  # another endpoint first; this one only if there is no other
    NEVER = "never"  # the same request would fail again


class Harm(StrEnum):
    """What a fault says about the endpoint."""

    NONE = "none"  # nothing: the request caused it, or the endpoint is only busy
    STRIKE = "strike"  # suspicious: several in a row put the endpoint aside
    DOWN = "down"  # it does not serve: put aside at once
    UNFIT = "unfit"  # it does not serve this signature as it should: left out for this signature, not for others


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt.

    Attributes:
        kind: The `class` of a line of errors.jsonl.
        message: One sentence for people; it never quotes a prompt or an answer.
        remedy: Where to try again.
        costs_attempt: Whether it counts against the request's `attempts`.
        harm: What it says about the endpoint.
        retry_after: Seconds that the server requested to wait, 0 if it did not say.
        needs: The context length with which the same request is likely to succeed, in tokens; 0: none would help.
        reached_model: Whether the model may have worked on the request. One that waited for a slot or for the load
            cannot have caused a crash.
        is_refusal: Whether the endpoint refuses this request with an error that obcd does not know, and computed a
            token for another one: then the request is at fault.
        kept: The unusable answer, and what it cost. Never logged.
        reply: The server's error text where obcd does not know it, at most 500 characters. It may quote the prompt: it
            is recorded, and never logged.
    """

    kind: FaultKind
    message: str
    remedy: Remedy
    costs_attempt: bool = True
    harm: Harm = Harm.NONE
    retry_after: float = 0.0
    needs: int = 0
    reached_model: bool = True
    is_refusal: bool = False
    kept: KeptAnswer | None = field(default=None, repr=False)
    reply: str = field(default="", repr=False)

    def failure(self, ordinal: int, line: int, attempts: int = 0, endpoint: str = "") -> Failure:
        """Return the failure of a request that ends with this fault; the arguments are those of `Failure`."""
        return Failure(
            ordinal=ordinal,
            line=line,
            kind=self.kind,
            message=self.message,
            attempts=attempts,
            endpoint=endpoint,
            kept=self.kept,
            reply=self.reply,
        )


def bad_line(error: LineError) -> Fault:
    """Return the fault of a line that cannot become a request."""
    kind = FaultKind.TOO_LONG if isinstance(error, TooLongError) else FaultKind.BAD_LINE
    return Fault(kind, str(error), Remedy.NEVER)


def job_cancelled() -> Fault:
    """Return the fault of a line whose job was cancelled before the line had a result."""
    return Fault(FaultKind.CANCELLED, "the job was cancelled before this line was answered", Remedy.NEVER)


def attempt_cancelled() -> Fault:
    """Return the fault of an attempt that was aborted because the coordinator no longer needs it; its job may go on."""
    return Fault(FaultKind.CANCELLED, "cancelled", Remedy.HERE, costs_attempt=False)


def job_unreadable(error: Exception) -> Fault:
    """Return the fault of a request that cannot be read from its job's folder."""
    return Fault(FaultKind.UNREADABLE, f"the job's folder cannot be read ({type(error).__name__})", Remedy.HERE)


def server_ended() -> Fault:
    """Return the fault of a request in flight at a server that ended, with everything else in flight there."""
    return Fault(
        FaultKind.CUT,
        "the server ended during this request, or was restarted",
        Remedy.ELSEWHERE,
        costs_attempt=False,
        harm=Harm.STRIKE,
    )


def worker_lost() -> Fault:
    """Return the fault of a request whose worker process ended or froze while it was in flight."""
    return Fault(
        FaultKind.WORKER_LOST, "the worker process ended during this request", Remedy.ELSEWHERE, harm=Harm.NONE
    )


def host_gone() -> Fault:
    """Return the fault of a request in flight at an endpoint whose host has ended or is silent: it costs nothing."""
    return Fault(
        FaultKind.UNREACHABLE,
        "the host of this endpoint is gone from the hosts folder",
        Remedy.ELSEWHERE,
        costs_attempt=False,
    )


def worker_fault(place: str) -> Fault:
    """Return the fault of a request during which obcd's own code failed.

    Args:
        place: Where and how, as returned by `obcd.logs.setup.fault_text`.
    """
    return Fault(FaultKind.WORKER_FAULT, f"the worker failed during this request ({place})", Remedy.ELSEWHERE)


def weights_missing(model: str, digest: str) -> Fault:
    """Return the fault of a request whose job started with weights that no endpoint has any more."""
    return Fault(
        FaultKind.WEIGHTS_MISSING,
        f"no endpoint has the weights of '{model}' any more with which this job started (digest {digest}): "
        "drop retry.jsonl to have the other lines answered by the weights that are there",
        Remedy.NEVER,
    )


def model_missing(model: str, endpoints: int, url: str = "") -> Fault:
    """Return the fault of a request whose model no endpoint has; `url` is that of one that could have it."""
    advice = how_to_get(model, url)
    if is_of_service(model):
        advice += ", then drop retry.jsonl"
    elif is_name(model) and not is_cloud(model):
        advice = f"pull it ({advice}), then drop retry.jsonl"
    where = "the endpoint does not have" if endpoints == 1 else f"none of the {endpoints} endpoints has"
    return Fault(
        FaultKind.MODEL_MISSING,
        f"{where} the model '{model}': {advice}",
        Remedy.NEVER,
    )
