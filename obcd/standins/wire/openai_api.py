"""/v1/chat/completions, based on the same generations (contract 1.3).

Pure. It cannot set num_ctx, keep_alive, truncate or shift, `n` is ignored, and absent temperature and top_p are 1.0.
"""

from __future__ import annotations

import time

from obcd.standins.wire.engine import EngineError, JsonObject, WorkOutcome
from obcd.standins.wire.http import OPENAI_TYPE, SSE_TYPE
from obcd.standins.wire.reply_shapes import Times, encode
from obcd.standins.wire.request_values import GenerationRequest, check_message, parse_think, typed

#: {field of OpenAI: option of Ollama}
OPTIONS = {
    "max_tokens": "num_predict",
    "seed": "seed",
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}

#: {HTTP status: type in the error body}; every other status is an `api_error`
ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}


def parse_completion(body: JsonObject) -> GenerationRequest:
    """Read the body of POST /v1/chat/completions."""
    messages = typed(body, "messages", list, "ChatCompletionRequest.messages of type []openai.Message", [])
    if not messages:
        raise EngineError(400, "[] is too short - 'messages'")
    return GenerationRequest(
        model=typed(body, "model", str, "ChatCompletionRequest.model of type string", ""),
        messages=[_message(message) for message in messages],
        stream=typed(body, "stream", bool, "ChatCompletionRequest.stream of type bool", False),
        format=_format(body.get("response_format")),
        options=_options(body),
        keep_alive=None,
        think=parse_think(_think(body.get("reasoning_effort"))),
        truncate=True,
        shift=True,
        tools=typed(body, "tools", list, "ChatCompletionRequest.tools of type []api.Tool", []),
    )


def wants_usage(body: JsonObject) -> bool:
    """Return whether a stream must end with a chunk of usage."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _message(message: object) -> JsonObject:
    """Return a message with its text parts joined; image parts become base64 images."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return check_message(message)
    content = message["content"]
    parts = [part for part in content if isinstance(part, dict)]
    text = "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    urls = [part["image_url"] for part in parts if part.get("type") == "image_url" and "image_url" in part]
    images = [str(url.get("url") if isinstance(url, dict) else url).partition("base64,")[2] for url in urls]
    return {**message, "content": text, **({"images": images} if images else {})}


def _format(value: object) -> str | JsonObject | None:
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    if kind == "json_object":
        return "json"
    if kind == "json_schema":
        schema = value.get("json_schema")
        return schema.get("schema") if isinstance(schema, dict) else None
    return None


def _options(body: JsonObject) -> JsonObject:
    options: JsonObject = {"temperature": 1.0, "top_p": 1.0}
    options |= {name: body[key] for key, name in OPTIONS.items() if body.get(key) is not None}
    stop = body.get("stop")
    if stop is not None:
        options["stop"] = [stop] if isinstance(stop, str) else stop
    return options


def _think(effort: object) -> object:
    return False if effort == "none" else effort


class CompletionShape:
    """Replies of /v1/chat/completions, for one request."""

    stream_type = SSE_TYPE
    whole_type = OPENAI_TYPE

    def __init__(self, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._created = int(time.time())
        self._id = f"chatcmpl-{time.monotonic_ns() % 1000}"

    def piece(self, model: str, text: str, thinking: str) -> bytes:
        """Return one event."""
        delta: JsonObject = {"role": "assistant", "content": text}
        if thinking:
            delta["reasoning"] = thinking
        return self._event(model, {"index": 0, "delta": delta, "finish_reason": None})

    def last(self, model: str, outcome: WorkOutcome, times: Times) -> bytes:
        """Return the last events; an aborted generation ends without `[DONE]`."""
        del times
        if outcome.done_reason is None:
            return b""
        delta: JsonObject = {"role": "assistant", "content": ""}
        if outcome.tool_calls:
            delta["tool_calls"] = _tool_calls(outcome)
        events = self._event(model, {"index": 0, "delta": delta, "finish_reason": _finish(outcome)})
        if self._include_usage:
            usage = {**self._head(model, "chat.completion.chunk"), "choices": [], "usage": _usage(outcome)}
            events += b"data: " + encode(usage) + b"\n\n"
        return events + b"data: [DONE]\n\n"

    def whole(self, model: str, outcome: WorkOutcome, times: Times) -> bytes:
        """Return the complete reply."""
        del times
        message: JsonObject = {"role": "assistant", "content": outcome.text}
        if outcome.thinking:
            message["reasoning"] = outcome.thinking
        if outcome.tool_calls:
            message["tool_calls"] = _tool_calls(outcome)
        choice = {"index": 0, "message": message, "finish_reason": _finish(outcome)}
        return encode({**self._head(model, "chat.completion"), "choices": [choice], "usage": _usage(outcome)})

    def empty(self, model: str, reason: str) -> bytes:
        """Return an empty completion; never used, because empty messages are refused."""
        return self.whole(model, WorkOutcome(text="", done_reason=reason), Times(0.0, 0.0))

    def error(self, status: int, text: str) -> bytes:
        """Return OpenAI's error body."""
        kind = ERROR_TYPES.get(status, "api_error")
        return encode({"error": {"message": text, "type": kind, "param": None, "code": None}})

    def late_error(self, text: str) -> bytes:
        """Return an empty delta: Ollama loses an error that comes in the middle of a stream."""
        del text
        return self.piece("", "", "")

    def _event(self, model: str, choice: JsonObject) -> bytes:
        return b"data: " + encode({**self._head(model, "chat.completion.chunk"), "choices": [choice]}) + b"\n\n"

    def _head(self, model: str, kind: str) -> JsonObject:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": model,
            "system_fingerprint": "fp_ollama",
        }


def _finish(outcome: WorkOutcome) -> str | None:
    return "tool_calls" if outcome.tool_calls else outcome.done_reason


def _usage(outcome: WorkOutcome) -> JsonObject:
    total = outcome.prompt_tokens + outcome.eval_tokens
    return {"prompt_tokens": outcome.prompt_tokens, "completion_tokens": outcome.eval_tokens, "total_tokens": total}


def _tool_calls(outcome: WorkOutcome) -> list[JsonObject]:
    """Return tool calls in OpenAI's shape: the arguments are a string of JSON."""
    return [
        {
            "id": call.get("id", f"call_{index}"),
            "index": index,
            "type": "function",
            "function": {
                "name": function["name"],
                "arguments": encode(function.get("arguments", {})).decode(),
            },
        }
        for index, call in enumerate(outcome.tool_calls)
        if isinstance(function := call["function"], dict)
    ]
