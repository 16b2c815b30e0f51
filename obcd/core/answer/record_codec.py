"""Results as JSON: records of a ledger, answers of the cache, lines of responses.jsonl and errors.jsonl. Pure.

    {"ordinal": 0, "line": 1, "outcome": "response", "attempts": 1, "endpoint": "gpu0", "response": "…", …}
    {"ordinal": 1, "line": 2, "outcome": "failure", "class": "timeout", "message": "…", "attempts": 4, "endpoint": "b"}

Keys that a newer version adds to an answer are kept and published. The order of the keys is part of the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import islice
from typing import Any

from obcd.clock import timestamp
from obcd.core.answer.counts import Counts
from obcd.core.answer.outcomes import NOT_PARSED, Cost, Failure, KeptAnswer, ModelAnswer, Response, Result
from obcd.core.answer.vectors import VectorsJson, parse_with_vectors
from obcd.core.schema.thoughts import is_empty
from obcd.errors import RecordError

#: The beginning of a record; older versions wrote the ordinal elsewhere.
_ORDINAL = re.compile(rb'\{"ordinal":([0-9]{1,18}),')
_encoder = json.JSONEncoder(separators=(",", ":"))


class Outcome(StrEnum):
    """How a request ended."""

    RESPONSE = "response"  # answered
    FAILURE = "failure"  # out of attempts, not retryable, or a bad line


def to_ascii(document: Mapping[str, object]) -> bytes:
    """Return a line's JSON without LF: ASCII, so that lone surrogates of a model's answer stay valid."""
    vectors = document.get("embeddings")
    if isinstance(vectors, VectorsJson):
        place = list(document).index("embeddings")
        before, after = (
            dict(part) for part in (islice(document.items(), place), islice(document.items(), place + 1, None))
        )
        return vectors.json_between(to_ascii(before), to_ascii(after))
    return _encoder.encode(document).encode("ascii")


def encode(result: Result) -> bytes:
    """Return the ledger's record of a result, as JSON."""
    if isinstance(result, Response):
        fields = _response_fields(result)
        if result.weights is not None:
            fields["weights"] = result.weights
        return to_ascii({"ordinal": result.ordinal, "line": result.line, "outcome": Outcome.RESPONSE, **fields})
    return to_ascii(
        {
            "ordinal": result.ordinal,
            "line": result.line,
            "outcome": Outcome.FAILURE,
            "class": result.kind,
            "message": result.message,
            "attempts": result.attempts,
            "endpoint": result.endpoint,
            **_kept_fields(result),
        }
    )


def decode(record: bytes) -> Result:
    """Parse a record that `encode` wrote.

    Raises:
        RecordError: If it is anything else.
    """
    try:
        found: Any = parse_with_vectors(record)
        return _response(found) if found["outcome"] == Outcome.RESPONSE else _failure(found)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _not_a_record() from None


def _not_a_record() -> RecordError:
    return RecordError("a record of a ledger is not valid")


def ordinal_of(record: bytes) -> int:
    """Return the ordinal of a record's request, without parsing the rest of the record.

    Raises:
        RecordError: If it is not a record.
    """
    found = _ORDINAL.match(record)
    return int(found[1]) if found else decode(record).ordinal


def decode_counts(record: bytes) -> tuple[int, Counts, tuple[str, str] | None, str]:
    """Return the ordinal of a result, its part of the counts, its weights, and the class of a failure (else "").

    A ledger of a million records is replayed before any request is sent: decoding each fully takes half as long again.

    Raises:
        RecordError: If it is anything else.
    """
    try:
        found: Any = parse_with_vectors(record)
        has_failed = found["outcome"] == Outcome.FAILURE
        read, cached_tokens = found.get("prompt_tokens", 0), found.get("cached_tokens")
        counts = Counts(
            responses=int(not has_failed),
            failures=int(has_failed),
            cut_short=int(not has_failed and found.get("done_reason") == "length"),
            empty=int(not has_failed and is_record_empty(found)),
            repairs=found.get("repairs", 0),
            cached=int(not has_failed and found.get("cached") is True),
            prompt_tokens=read,
            eval_tokens=found.get("eval_tokens", 0),
            work_seconds=max(0.0, found.get("seconds", 0.0) - found.get("wait_seconds", 0.0)),
            wait_seconds=found.get("wait_seconds", 0.0),
            prompt_eval_seconds=found.get("prompt_eval_seconds", 0.0),
            grouped=int(found.get("group_size", 0) > 1),
        )
        if cached_tokens is not None:
            counts.evaluated_tokens, counts.cached_tokens = read - cached_tokens, cached_tokens
        weights = found.get("weights")
        kind = str(found["class"]) if has_failed else ""
        return found["ordinal"], counts, weights and (weights[0], weights[1]), kind
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _not_a_record() from None


def is_record_empty(record: Mapping[str, object]) -> bool:
    """Return whether the answer of a record, or of a line of responses.jsonl, says nothing; see `ModelAnswer`."""
    text = record.get("response")
    return isinstance(text, str) and not record.get("tool_calls") and is_empty(text)


def encode_answer(answer: ModelAnswer) -> bytes:
    """Return an answer in the form of the cache."""
    return to_ascii(_answer_fields(answer))


def decode_answer(raw: bytes) -> ModelAnswer:
    """Parse an answer that `encode_answer` wrote.

    Raises:
        RecordError: If it is anything else.
    """
    try:
        found: Any = parse_with_vectors(raw)
        return _answer(found)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise RecordError("an answer of the cache is not valid") from None


def response_line(response: Response, own: object, prompt: str | list[str]) -> dict[str, object]:
    """Return a line of responses.jsonl, without the `extra` of its request.

    Args:
        own: The user's id of the line.
        prompt: The prompt that the line repeats.
    """
    document = {"id": own, "line": response.line, "prompt": prompt}
    if response.answer.text is not None:
        document["response"] = response.answer.text  # before the other keys, for people
    return document | _shown(response)


def failure_line(failure: Failure, own: object) -> dict[str, object]:
    """Return a line of errors.jsonl; `own` is the user's id of the line that failed."""
    document: dict[str, object] = {
        "line": failure.line,
        "id": own,
        "class": failure.kind,
        "message": failure.message,
        "attempts": failure.attempts,
    }
    if failure.endpoint:
        document["endpoint"] = failure.endpoint
    document |= _kept_fields(failure)
    if failure.same_as is not None:
        document["same_as"] = failure.same_as
    return _with_responses(document, failure)


def _shown(response: Response) -> dict[str, object]:
    """Return the published keys of a response, or of one of several."""
    document = _response_fields(response)
    if response.same_as is not None:
        document["same_as"] = response.same_as
    document["finished_at"] = timestamp(response.answer.finished)
    del document["finished"]
    return _with_responses(document, response)


def _with_responses(document: dict[str, object], result: Result) -> dict[str, object]:
    return document | {"responses": list(map(_shown, result.responses))} if result.responses else document


def _response_fields(response: Response) -> dict[str, object]:
    fields = {"attempts": response.attempts, "endpoint": response.endpoint, **_answer_fields(response.answer)}
    if response.is_cached:
        fields["cached"] = True
    if response.seed is not None:
        fields["seed"] = response.seed
    if response.is_hedged:
        fields["hedged"] = True
    return fields


def _answer_fields(answer: ModelAnswer) -> dict[str, object]:
    fields: dict[str, object]
    fields = {"embeddings": answer.embeddings} if answer.text is None else {"response": answer.text}
    fields["model"] = answer.model
    if answer.done_reason is not None:
        fields["done_reason"] = answer.done_reason
    fields |= _cost_fields(answer.cost)
    fields["finished"] = answer.finished
    if answer.group_size > 1:
        fields["group_size"] = answer.group_size
    if answer.thinking is not None and not answer.thought_aloud:
        fields["thinking"] = answer.thinking
    if answer.tool_calls is not None:
        fields["tool_calls"] = answer.tool_calls
    if answer.logprobs is not None:
        fields["logprobs"] = answer.logprobs
    fields |= _form_fields(answer)
    if answer.unknown:
        fields |= answer.unknown
    return fields


def _form_fields(answer: ModelAnswer) -> dict[str, object]:
    """Return the fields of an answer of which a form was required."""
    fields: dict[str, object] = {}
    if answer.parsed is not NOT_PARSED:
        fields["parsed"] = answer.parsed
    if answer.thinking is not None and answer.thought_aloud:
        fields["thinking"] = answer.thinking
    if answer.is_mended:
        fields["mended"] = True
    if answer.raw is not None:
        fields["raw"] = answer.raw
    if answer.repairs:
        fields["repairs"] = answer.repairs
    return fields


def _cost_fields(cost: Cost) -> dict[str, object]:
    tokens = {"prompt_tokens": cost.prompt_tokens, "eval_tokens": cost.eval_tokens}
    if cost.cached_tokens is not None:
        tokens["cached_tokens"] = cost.cached_tokens
    if not cost.is_divided:
        return {"seconds": cost.seconds, **tokens}
    return {
        "seconds": cost.seconds,
        "load_seconds": cost.load_seconds,
        "prompt_eval_seconds": cost.prompt_eval_seconds,
        "eval_seconds": cost.eval_seconds,
        "wait_seconds": cost.wait_seconds,
        **tokens,
    }


def _kept_fields(failure: Failure) -> dict[str, object]:
    fields: dict[str, object] = {"reply": failure.reply} if failure.reply else {}
    kept = failure.kept
    if kept is None:
        return fields
    fields["response"] = kept.text
    if kept.tool_calls is not None:
        fields["tool_calls"] = kept.tool_calls
    if kept.thinking is not None:
        fields["thinking"] = kept.thinking
    if kept.repairs:
        fields["repairs"] = kept.repairs
    fields |= _cost_fields(kept.cost._replace(is_divided=False))
    return fields | {"wait_seconds": kept.cost.wait_seconds} if kept.cost.wait_seconds else fields


def _response(record: dict[str, Any]) -> Response:
    """Consume a record key by key; the keys that remain are unknown ones."""
    take = record.pop
    del record["outcome"]
    weights, is_cached = take("weights", None), take("cached", False)
    seed, is_hedged = take("seed", None), take("hedged", False)
    head = take("ordinal"), take("line"), take("attempts"), take("endpoint")
    return Response(*head, _answer(record), is_cached, seed, is_hedged, weights and (weights[0], weights[1]))


def _answer(record: dict[str, Any]) -> ModelAnswer:
    take = record.pop
    text, model, reason, cost = take("response", None), take("model", ""), take("done_reason", None), _cost(record)
    answer = ModelAnswer(text, model, reason, cost, take("finished"))
    return answer if not record else _with_rest(answer, record)


def _with_rest(answer: ModelAnswer, record: dict[str, Any]) -> ModelAnswer:
    """Add the fields that only some answers have."""
    take = record.pop
    thought_aloud = "parsed" in record and "thinking" in record and _is_behind("thinking", "parsed", record)
    return answer._replace(
        embeddings=take("embeddings", None),
        thinking=take("thinking", None),
        thought_aloud=thought_aloud,
        tool_calls=take("tool_calls", None),
        logprobs=take("logprobs", None),
        parsed=take("parsed", NOT_PARSED),
        is_mended=take("mended", False),
        raw=take("raw", None),
        repairs=take("repairs", 0),
        group_size=take("group_size", 0),
        unknown=record or None,
    )


def _cost(record: dict[str, Any]) -> Cost:
    take = record.pop
    is_divided = "load_seconds" in record
    return Cost(
        take("seconds", 0.0),
        take("load_seconds", 0.0),
        take("prompt_eval_seconds", 0.0),
        take("eval_seconds", 0.0),
        take("wait_seconds", 0.0),
        take("prompt_tokens", 0),
        take("eval_tokens", 0),
        is_divided,
        take("cached_tokens", None),
    )


def _is_behind(key: str, other: str, record: Mapping[str, object]) -> bool:
    keys = list(record)
    return keys.index(key) > keys.index(other)


def _failure(record: dict[str, Any]) -> Failure:
    """Parse the record of a failure; unknown keys are ignored."""
    kept = None
    if "response" in record:
        kept = KeptAnswer(
            text=record["response"],
            cost=_cost(record),
            tool_calls=record.get("tool_calls"),
            thinking=record.get("thinking"),
            repairs=record.get("repairs", 0),
        )
    return Failure(
        ordinal=record["ordinal"],
        line=record["line"],
        kind=record["class"],
        message=record["message"],
        attempts=record["attempts"],
        endpoint=record.get("endpoint", ""),
        reply=record.get("reply", ""),
        kept=kept,
    )
