"""Several answers to one prompt (`n`), put together into the one result that its line has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from obcd.core.request.records import Outcome

#: Counters of a reply that add up: over the answers of a line, and over all that was asked for one answer.
SUMMED = (
    "seconds",
    "load_seconds",
    "prompt_eval_seconds",
    "eval_seconds",
    "wait_seconds",
    "prompt_tokens",
    "eval_tokens",
)
#: What is told of a line only where it is so of each of its answers.
_OF_ALL = ("cached", "hedged", "same_as")


def join(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the result of a line from those of its answers, in their order; of one answer it is that one.

    All answered: the first answer's record, its counters those of all, and `responses`: all of them. One failed: that
    failure, and `responses`: what was answered, if anything was.
    """
    if len(records) == 1:
        return dict(records[0])
    answered = [record for record in records if record["outcome"] == Outcome.RESPONSE]
    attempts = max(record["attempts"] for record in records)
    if len(answered) < len(records):
        first = next(record for record in records if record["outcome"] != Outcome.RESPONSE)
        told = f"{len(records) - len(answered)} of {len(records)} answers failed, the first since {first['message']}"
        joined = {**_shared(first, records), "message": told, "attempts": attempts}
        return {**joined, "responses": answered} if answered else joined
    reasons = [record["done_reason"] for record in answered]
    return {
        **{key: value for key, value in _shared(answered[0], records).items() if key not in ("seed", "logprobs")},
        **{key: _sum(answered, key) for key in (*SUMMED, "repairs") if any(key in answer for answer in answered)},
        "attempts": attempts,
        "done_reason": "length" if "length" in reasons else reasons[0],
        "finished": max(record["finished"] for record in answered),
        "responses": answered,
    }


def _shared(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what of a record can be said of all."""
    return {key: record[key] for key in record if key not in _OF_ALL or all(key in other for other in records)}


def _sum(records: Sequence[Mapping[str, Any]], key: str) -> float:
    total: float = sum(record.get(key, 0) for record in records)
    return round(total, 3)
