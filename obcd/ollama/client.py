"""Asking one question: body out, reply in, judged, and made into the ledger's record of a response."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from obcd.clock import monotonic, wall
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import (
    PATHS,
    JobSettings,
    Kind,
    Outcome,
    Request,
    Signature,
    preload_body,
    request_body,
    request_options,
)
from obcd.ollama.failures import ANSWERED, TEXT_KEYS, judge, judge_loaded
from obcd.ollama.transport import (
    MAX_REPLY_BYTES,
    AbortedError,
    CutError,
    RefusedError,
    Reply,
    TooLargeError,
    Transport,
)

#: Reason given to `Transport.abort` when a limit is over.
TIMED_OUT = "timed out"
#: The same when the server hangs, as another request of it showed.
HUNG = "hung"
NANO = 1e-9
#: What is said of an answer that was never begun; takes num_predict.
CUT_IN_THOUGHT = (
    "the answer was cut off while the model still thought, before its first word: "
    "raise num_predict (now {}), or set think = false"
)
#: Older servers pass `logprobs` over and answer without them.
NO_LOGPROBS = "the server tells no probabilities (logprobs): Ollama does since 0.12.11, with models that it runs itself"

_encoder = json.JSONEncoder(separators=(",", ":"))

CANCELLED = Fault("cancelled", "cancelled", Remedy.HERE, costs_attempt=False)
#: {reason of an abort: what that means}
BROKEN_OFF = {
    TIMED_OUT: Fault("timeout", "no answer within the time limit", Remedy.ELSEWHERE, harm=Harm.STRIKE),
    HUNG: Fault("hung", "the model's process hung while it was at this", Remedy.ELSEWHERE, costs_attempt=False),
}


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A true answer.

    Attributes:
        fields: What the ledger and responses.jsonl keep of it, e.g.
            `{"response": "…", "model": "llama3.2", "done_reason": "stop", "seconds": 1.25, "eval_tokens": 20, …}`.
    """

    fields: dict[str, Any]


def encode_body(document: dict[str, Any]) -> bytes:
    """Return a request body: ASCII, so that a lone surrogate in a prompt travels as it was written."""
    return _encoder.encode(document).encode("ascii")


def ask(transport: Transport, request: Request, settings: JobSettings) -> ModelAnswer | Fault:
    """Ask one request and wait for the answer; limits are kept by whoever may call `transport.abort`."""
    body = request_body(request, settings)
    started = monotonic()
    reply = exchange(transport, encode_body(body), request.kind)
    if isinstance(reply, Fault):
        return reply
    seconds = monotonic() - started
    document = judge(reply, request)
    if isinstance(document, Fault):
        return replace(document, needs=_larger_context(document.needs, request, settings))
    if request.kind is Kind.EMBED:
        return ModelAnswer(_vector_fields(document, seconds))
    fault = _find_lack(document, request, settings, seconds)
    return fault or ModelAnswer(_fields(document, request.kind, seconds))


def _find_lack(document: dict[str, Any], request: Request, settings: JobSettings, seconds: float) -> Fault | None:
    """Return the fault of an answer that is not what was asked for: cut off, or without its probabilities.

    Whether it is the JSON that was asked for is judged by `structured`.
    """
    is_cut = document["done_reason"] == "length"
    if is_cut and (needs := _context_that_was_short(document, request, settings)):
        sentence = f"the answer filled the context before it was complete: num_ctx {settings.num_ctx} was too small"
        return Fault("too_long", sentence, Remedy.NEVER, needs=needs)
    thoughts = (document["message"] if request.kind is Kind.CHAT else document).get("thinking")
    if is_cut and isinstance(thoughts, str) and thoughts and not _text(document, request).strip():
        fields = _fields(document, request.kind, seconds)
        kept = {key: fields[key] for key in ("response", "thinking", "seconds", "prompt_tokens", "eval_tokens")}
        limit = request_options(request, settings)["num_predict"]
        return Fault("cut_in_thought", CUT_IN_THOUGHT.format(limit), Remedy.NEVER, kept=kept)
    if request.logprobs is not None and not isinstance(document.get("logprobs"), list) and _text(document, request):
        return Fault("unsupported", NO_LOGPROBS, Remedy.ELSEWHERE)
    return None


def _text(document: dict[str, Any], request: Request) -> str:
    message = document["message"] if request.kind is Kind.CHAT else document
    return str(message.get(TEXT_KEYS[request.kind], ""))


def _larger_context(prompt_tokens: int, request: Request, settings: JobSettings) -> int:
    """Return the context for such a prompt and its answer, 0 where the request may have no larger one than it had."""
    wanted = request_options(request, settings)
    needs: int = prompt_tokens + wanted["num_predict"]
    most = settings.num_ctx_max or 0
    return needs if prompt_tokens and "num_ctx" not in request.options and settings.num_ctx < most >= needs else 0


def _context_that_was_short(document: dict[str, Any], request: Request, settings: JobSettings) -> int:
    """Return the context with which a cut answer could be whole, 0 where it is as long as it may be.

    It was cut by a context that was planned too small: its tokens are fewer than num_predict.
    """
    if _count(document, "eval", "_count") >= request_options(request, settings)["num_predict"]:
        return 0
    return _larger_context(_count(document, "prompt_eval", "_count"), request, settings)


def preload(transport: Transport, signature: Signature) -> Fault | None:
    """Load a model with the options its requests will carry; returns at once when it is loaded already."""
    reply = exchange(transport, encode_body(preload_body(signature)), signature.kind)
    return reply if isinstance(reply, Fault) else judge_loaded(reply, signature.kind)


def exchange(transport: Transport, body: bytes, kind: Kind = Kind.CHAT) -> Reply | Fault:
    """Post to the path of this kind; everything that can go wrong below HTTP becomes a fault."""
    try:
        return transport.post(PATHS[kind], body)
    except RefusedError as error:
        return Fault("unreachable", f"not reachable: {error}", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN)
    except CutError:
        return Fault("cut", "the connection broke before the answer was complete", Remedy.ELSEWHERE, harm=Harm.STRIKE)
    except TooLargeError:
        return Fault(
            "too_large", f"the reply is larger than {MAX_REPLY_BYTES >> 20} MiB", Remedy.NEVER, harm=Harm.STRIKE
        )
    except AbortedError as error:
        return BROKEN_OFF.get(str(error), CANCELLED)


def response_record(request: Request, ordinal: int, attempt: int, endpoint: str, answer: ModelAnswer) -> dict[str, Any]:
    """Return the ledger's record of a response."""
    return {
        "ordinal": ordinal,
        "line": request.line,
        "outcome": Outcome.RESPONSE,
        "attempts": attempt,
        "endpoint": endpoint,
        **answer.fields,
    }


def _fields(document: dict[str, Any], kind: Kind, seconds: float) -> dict[str, Any]:
    """Pick what is kept of a reply (ollama api/types.go: ChatResponse, GenerateResponse, Metrics; durations are ns)."""
    message = document["message"] if kind is Kind.CHAT else document
    spans = {key: _count(document, key) * NANO for key in ("load", "prompt_eval", "eval")}
    waited = _count(document, "total") * NANO - sum(spans.values())
    kept: dict[str, Any] = {
        "response": message.get(TEXT_KEYS[kind], ""),
        "model": str(document.get("model", "")),
        "done_reason": document["done_reason"] if document["done_reason"] in ANSWERED else "",
        "seconds": round(seconds, 3),
        **{f"{key}_seconds": round(span, 3) for key, span in spans.items()},
        "wait_seconds": round(max(0.0, waited), 3),
        "prompt_tokens": _count(document, "prompt_eval", "_count"),
        "eval_tokens": _count(document, "eval", "_count"),
        "finished": round(wall(), 3),
    }
    if isinstance(message.get("thinking"), str):
        kept["thinking"] = message["thinking"]
    if isinstance(message.get("tool_calls"), list):
        kept["tool_calls"] = message["tool_calls"]
    if isinstance(document.get("logprobs"), list):
        kept["logprobs"] = document["logprobs"]
    return kept


def _vector_fields(document: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Pick what is kept of a reply of /api/embed (ollama api/types.go: EmbedResponse).

    It does not tell waiting and computing apart, so all but the loading counts as computing.
    """
    load = _count(document, "load") * NANO
    return {
        "embeddings": document["embeddings"],
        "model": str(document.get("model", "")),
        "seconds": round(seconds, 3),
        "load_seconds": round(load, 3),
        "prompt_eval_seconds": round(max(0.0, _count(document, "total") * NANO - load), 3),
        "eval_seconds": 0.0,
        "wait_seconds": 0.0,
        "prompt_tokens": _count(document, "prompt_eval", "_count"),
        "eval_tokens": 0,
        "finished": round(wall(), 3),
    }


def _count(document: dict[str, Any], key: str, suffix: str = "_duration") -> int:
    value = document.get(key + suffix, 0)
    return value if isinstance(value, int) and 0 <= value < 2**62 else 0
