"""Send one request and turn the judged reply into an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from obcd.clock import monotonic, wall
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import Cost, KeptAnswer, ModelAnswer
from obcd.core.endpoint.faults import Fault, Harm, Remedy, attempt_cancelled
from obcd.core.request.records import (
    PATHS,
    JobSettings,
    Kind,
    Request,
    RequestBody,
    Signature,
    num_predict_of,
    preload_body,
    request_body,
)
from obcd.core.schema.server_schema import server_schema
from obcd.ollama.failures import TEXT_KEYS, judge, judge_loaded
from obcd.ollama.transport import (
    MAX_REPLY_BYTES,
    AbortedError,
    CutError,
    RefusedError,
    Reply,
    TooLargeError,
    Transport,
)

#: Reason given to `Transport.abort` when a time limit is over.
TIMED_OUT = "timed out"
#: The same when the server hangs, as another request at it has shown.
HUNG = "hung"
NANO = 1e-9
#: The sentence for an answer that never began; takes num_predict.
CUT_IN_THOUGHT = (
    "the answer was cut off while the model was still thinking, before its first word: "
    "raise num_predict (now {}), or set think = false"
)
#: Older servers ignore `logprobs` and reply without them.
NO_LOGPROBS = "the server returns no logprobs: use Ollama 0.12.11 or later, with a model that the server runs itself"

_encoder = json.JSONEncoder(separators=(",", ":"))

#: {reason of an abort: its fault}
BROKEN_OFF = {
    TIMED_OUT: Fault(FaultKind.TIMEOUT, "no answer within the time limit", Remedy.ELSEWHERE, harm=Harm.STRIKE),
    HUNG: Fault(FaultKind.HUNG, "the model's process hung during this request", Remedy.ELSEWHERE, costs_attempt=False),
}


def encode_body(document: Mapping[str, object]) -> bytes:
    """Return a request body: ASCII, so that a lone surrogate in a prompt is sent as it was written."""
    return _encoder.encode(document).encode("ascii")


def ask(transport: Transport, request: Request, settings: JobSettings) -> ModelAnswer | Fault:
    """Send one request and wait for the answer; the caller of `transport.abort` enforces the time limits."""
    body = body_for_server(request_body(request, settings))
    started = monotonic()
    reply = exchange(transport, encode_body(body), request.kind)
    if isinstance(reply, Fault):
        return reply
    seconds = monotonic() - started
    document = judge(reply, request)
    if isinstance(document, Fault):
        kept = document.kept and replace(document.kept, cost=Cost(round(seconds, 3)))
        return replace(document, needs=_larger_context(document.needs, request, settings), kept=kept)
    if request.kind is Kind.EMBED:
        return _vectors_of(document, seconds)
    answer = _answer_of(document, request.kind, seconds)
    return _find_lack(document, answer, request, settings) or answer


def body_for_server(body: RequestBody) -> RequestBody:
    """Return a body whose schema is one that the server can make a grammar of, and that never ends the server."""
    form = body.get("format")
    if not isinstance(form, Mapping):
        return body
    sent = server_schema(form).document
    if sent is not None:
        return {**body, "format": sent}
    del body["format"]
    return body


def _find_lack(
    document: Mapping[str, Any], answer: ModelAnswer, request: Request, settings: JobSettings
) -> Fault | None:
    """Return the fault of an incomplete answer: cut off, or without its probabilities.

    `structured` judges whether it is the requested JSON.
    """
    text, limit = answer.text or "", num_predict_of(request, settings)
    is_cut = answer.done_reason == "length"
    if is_cut and (needs := _context_that_was_short(answer.cost, limit, request, settings)):
        sentence = f"the answer filled the context before it was complete: num_ctx {settings.num_ctx} is too small"
        return Fault(FaultKind.TOO_LONG, sentence, Remedy.NEVER, needs=needs)
    if is_cut and answer.thinking and not text.strip():
        kept = KeptAnswer(text=text, cost=answer.cost, thinking=answer.thinking)
        return Fault(FaultKind.CUT_IN_THOUGHT, CUT_IN_THOUGHT.format(limit), Remedy.NEVER, kept=kept)
    if request.logprobs is not None and answer.logprobs is None and text:
        return Fault(FaultKind.UNSUPPORTED, NO_LOGPROBS, Remedy.ELSEWHERE)
    return None


def _larger_context(prompt_tokens: int, request: Request, settings: JobSettings) -> int:
    """Return the context for such a prompt and its answer, 0 if the request may not have a larger one than it had."""
    needs = prompt_tokens + num_predict_of(request, settings)
    most = settings.num_ctx_max or 0
    return needs if prompt_tokens and "num_ctx" not in request.options and settings.num_ctx < most >= needs else 0


def _context_that_was_short(cost: Cost, limit: int, request: Request, settings: JobSettings) -> int:
    """Return the context with which a cut answer could be complete, 0 if it is as long as it may be.

    A context that was planned too small cut it: its tokens are fewer than num_predict.
    """
    return 0 if cost.eval_tokens >= limit else _larger_context(cost.prompt_tokens, request, settings)


def preload(transport: Transport, signature: Signature) -> Fault | None:
    """Load a model with the options of its requests; return at once if it is already loaded."""
    reply = exchange(transport, encode_body(preload_body(signature)), signature.kind)
    return reply if isinstance(reply, Fault) else judge_loaded(reply, signature.kind)


def exchange(transport: Transport, body: bytes, kind: Kind = Kind.CHAT) -> Reply | Fault:
    """Post to the path of this kind; every error below HTTP becomes a fault."""
    try:
        return transport.post(PATHS[kind], body)
    except RefusedError as error:
        return Fault(
            FaultKind.UNREACHABLE, f"not reachable: {error}", Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN
        )
    except CutError:
        return Fault(
            FaultKind.CUT, "the connection broke before the answer was complete", Remedy.ELSEWHERE, harm=Harm.STRIKE
        )
    except TooLargeError:
        return Fault(
            FaultKind.TOO_LARGE, f"the reply is larger than {MAX_REPLY_BYTES >> 20} MiB", Remedy.NEVER, harm=Harm.STRIKE
        )
    except AbortedError as error:
        return BROKEN_OFF.get(str(error)) or attempt_cancelled()


def _answer_of(document: Mapping[str, Any], kind: Kind, seconds: float) -> ModelAnswer:
    """Return what is kept of a reply (ollama api/types.go: ChatResponse, GenerateResponse, Metrics; times in ns)."""
    message = document["message"] if kind is Kind.CHAT else document
    load, read, written = _seconds(document, "load"), _seconds(document, "prompt_eval"), _seconds(document, "eval")
    waited = _seconds(document, "total") - (load + read + written)
    thinking, calls, logprobs = message.get("thinking"), message.get("tool_calls"), document.get("logprobs")
    return ModelAnswer(
        text=message.get(TEXT_KEYS[kind], ""),
        model=str(document.get("model", "")),
        done_reason=document["done_reason"],
        cost=Cost(
            round(seconds, 3),
            round(load, 3),
            round(read, 3),
            round(written, 3),
            round(max(0.0, waited), 3),
            prompt_tokens := _whole(document.get("prompt_eval_count")),
            _whole(document.get("eval_count")),
            cached_tokens=_cached_tokens(document, prompt_tokens),
        ),
        finished=round(wall(), 3),
        thinking=thinking if isinstance(thinking, str) else None,
        tool_calls=calls if isinstance(calls, list) else None,
        logprobs=logprobs if isinstance(logprobs, list) else None,
    )


def _vectors_of(document: Mapping[str, Any], seconds: float) -> ModelAnswer:
    """Return the fields of a reply of /api/embed that are kept (ollama api/types.go: EmbedResponse).

    The reply does not separate waiting from computing, so everything except the loading counts as computing.
    """
    load = _seconds(document, "load")
    computing = max(0.0, _seconds(document, "total") - load)
    tokens = _whole(document.get("prompt_eval_count"))
    return ModelAnswer(
        embeddings=document["embeddings"],
        model=str(document.get("model", "")),
        cost=Cost(round(seconds, 3), round(load, 3), round(computing, 3), prompt_tokens=tokens),
        finished=round(wall(), 3),
    )


def _seconds(document: Mapping[str, Any], what: str) -> float:
    return _whole(document.get(f"{what}_duration")) * NANO


def _whole(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**62 else 0


def _cached_tokens(document: Mapping[str, Any], prompt_tokens: int) -> int | None:
    """Return how many tokens of a prompt came from the prefix cache; None if the reply does not say.

    `prompt_eval_cached_count` is new in v0.33.3 (ollama #17943), 0 is written, and `prompt_eval_count` includes it. No
    earlier version tells: v0.24 does not count them, v0.33.0 adds llama-server's `cache_n` to `prompt_n`
    (llm/llama_server.go: promptEvalCount). Nor do durations: a batch that evaluates several requests counts whole for
    each of them (v0.24 runner/llamarunner/runner.go: processingDuration).
    """
    value = document.get("prompt_eval_cached_count")
    return value if type(value) is int and 0 <= value <= prompt_tokens else None
