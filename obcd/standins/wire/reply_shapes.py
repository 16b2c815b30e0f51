"""Replies of /api/chat and /api/generate, byte for byte in Ollama's format (contract 1.2).

Pure. Durations are integer nanoseconds; a counter or duration of zero is left out.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from obcd.standins.wire.engine import JsonObject, WorkOutcome
from obcd.standins.wire.http import JSON_TYPE, NDJSON_TYPE

#: the first number of a made-up `context`
FIRST_TOKEN = 100_000

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(value: object) -> bytes:
    """Return a value as compact JSON; lone surrogates, which JSON input may hold, become escapes."""
    text = _encode(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def rfc3339(seconds: float | None = None) -> str:
    """Return Unix seconds, or now, as Go writes a time: `2026-11-22T18:01:05.123456Z`."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a whole request, and of its wait for a loaded model."""

    total: float
    load: float


class ReplyShape(Protocol):
    """How one endpoint writes its replies."""

    stream_type: str
    whole_type: str

    def piece(self, model: str, text: str, thinking: str) -> bytes:
        """Return one piece of a stream."""

    def last(self, model: str, outcome: WorkOutcome, times: Times) -> bytes:
        """Return the end of a stream."""

    def whole(self, model: str, outcome: WorkOutcome, times: Times) -> bytes:
        """Return the body of a reply that is not streamed."""

    def empty(self, model: str, reason: str) -> bytes:
        """Return the reply to a request that only loads or unloads."""

    def error(self, status: int, text: str) -> bytes:
        """Return the body of an error reply."""

    def late_error(self, text: str) -> bytes:
        """Return an error that comes after the first piece of a stream."""


def counters(outcome: WorkOutcome, times: Times) -> JsonObject:
    """Return the metrics of a reply; zeros are left out, except no cached tokens (a pointer in Ollama)."""
    nanoseconds: dict[str, int] = {
        "total_duration": int(times.total * 1e9),
        "load_duration": int(times.load * 1e9),
        "prompt_eval_count": outcome.prompt_tokens,
        "prompt_eval_duration": int(outcome.prompt_seconds * 1e9),
        "eval_count": outcome.eval_tokens,
        "eval_duration": int(outcome.eval_seconds * 1e9),
    }
    found: JsonObject = {key: value for key, value in nanoseconds.items() if value}
    return found | {"prompt_eval_cached_count": outcome.cached_tokens} if outcome.names_cached else found


class _Native(ABC):
    """The common part of /api/chat and /api/generate."""

    stream_type = NDJSON_TYPE
    whole_type = JSON_TYPE

    @abstractmethod
    def text_fields(self, text: str, thinking: str, outcome: WorkOutcome | None) -> JsonObject:
        """Return the fields that carry the answer."""

    def piece(self, model: str, text: str, thinking: str) -> bytes:
        """Return one piece of a stream: a line."""
        return self._line(model, text, thinking, None, {"done": False})

    def last(self, model: str, outcome: WorkOutcome, times: Times) -> bytes:
        """Return the last line of a stream; nothing if the generation was aborted: the stream ends without it."""
        if outcome.done_reason is None:
            return b""
        ending = {"done": True, "done_reason": outcome.done_reason, **counters(outcome, times)}
        return self._line(model, "", "", outcome, ending)

    def whole(self, model: str, outcome: WorkOutcome, times: Times) -> bytes:
        """Return the complete reply; an aborted generation has neither a reason nor metrics (contract 3.2)."""
        ending: dict[str, object] = {"done": False}
        if outcome.done_reason is not None:
            ending = {"done": True, "done_reason": outcome.done_reason, **counters(outcome, times)}
        return self._line(model, outcome.text, outcome.thinking, outcome, ending)[:-1]

    def empty(self, model: str, reason: str) -> bytes:
        """Return the reply to a preload or an unload; `reason` is `load` or `unload`."""
        return self._line(model, "", "", None, {"done": True, "done_reason": reason})[:-1]

    def error(self, status: int, text: str) -> bytes:
        """Return e.g. `{"error":"model 'x' not found"}`."""
        return encode({"error": text})

    def late_error(self, text: str) -> bytes:
        """Return an error as the last line of a stream that began with 200."""
        return encode({"error": text}) + b"\n"

    def _line(self, model: str, text: str, thinking: str, outcome: WorkOutcome | None, ending: JsonObject) -> bytes:
        fields = self.text_fields(text, thinking, outcome)
        if outcome is not None and outcome.logprobs:
            fields["logprobs"] = list(outcome.logprobs)
        return encode({"model": model, "created_at": rfc3339(), **fields, **ending}) + b"\n"


class ChatShape(_Native):
    """Replies of /api/chat."""

    def text_fields(self, text: str, thinking: str, outcome: WorkOutcome | None) -> JsonObject:
        """Return `{"message": {"role": "assistant", "content": …}}`."""
        message: JsonObject = {"role": "assistant", "content": text}
        if thinking:
            message["thinking"] = thinking
        if outcome is not None and outcome.tool_calls:
            message["tool_calls"] = list(outcome.tool_calls)
        return {"message": message}


class GenerateShape(_Native):
    """Replies of /api/generate.

    Args:
        has_context: whether the last line holds the array `context`, one number for each token of prompt and answer, as
            for every request but a raw one. The numbers are made up, as wide as those of a large vocabulary.
    """

    def __init__(self, has_context: bool) -> None:
        self._has_context = has_context

    def text_fields(self, text: str, thinking: str, outcome: WorkOutcome | None) -> JsonObject:
        """Return `{"response": …}`."""
        fields: JsonObject = {"response": text, "thinking": thinking} if thinking else {"response": text}
        if self._has_context and outcome is not None and outcome.done_reason is not None:
            count = outcome.prompt_tokens + outcome.eval_tokens
            fields["context"] = list(range(FIRST_TOKEN, FIRST_TOKEN + count))
        return fields
