"""Convert between Ollama's values and llama.cpp's JSON: its request, and the chunks of its response. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from obcd.standins.wire.engine import EngineError, JsonObject, Work, WorkOutcome
from obcd.standins.wire.request_values import whole_option

#: {option of Ollama: field of llama.cpp's request}; the others are load options or have the same name
RENAMED = {"num_predict": "n_predict", "num_keep": "n_keep"}

#: Ollama's defaults where llama.cpp's own differ (api/types.go)
DEFAULTS: JsonObject = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "repeat_last_n": 64,
    "n_keep": 4,
}

#: options that llama.cpp takes with each request
SAMPLING = {
    "temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop", "repeat_penalty", "repeat_last_n",
    "presence_penalty", "frequency_penalty", "num_predict", "num_keep",
}  # fmt: skip


def llama_request(work: Work) -> tuple[bytes, bool]:
    """Return the body for llama.cpp, and whether it is for completions (a raw prompt) instead of chat."""
    chosen = {RENAMED.get(key, key): value for key, value in work.options.items() if key in SAMPLING}
    body: JsonObject = {**DEFAULTS, **chosen, "stream": True, "stream_options": {"include_usage": True}}
    body["n_predict"] = predict_limit(whole_option(body, "n_predict", -1), work.signature.num_ctx)
    if whole_option(body, "seed", 0) < 0:
        del body["seed"]  # random, as without a seed
    if work.raw_prompt is not None:
        body["prompt"] = work.raw_prompt
    else:
        body["messages"] = [_message(message) for message in work.messages]
        if work.tools:
            body["tools"] = list(work.tools)
        if work.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": max(1, work.logprobs)}  # llama.cpp reads 0 as no logprobs
        if work.think is not None:
            body["chat_template_kwargs"] = {"enable_thinking": bool(work.think)}
    if work.format == "json":
        body["response_format"] = {"type": "json_object"}
    elif isinstance(work.format, dict):
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": work.format}}
    return json.dumps(body).encode(), work.raw_prompt is not None


def predict_limit(wanted: int, num_ctx: int) -> int:
    """Return the most tokens to generate: Ollama stops at ten contexts (llm/llama_server.go:106)."""
    return wanted if 0 <= wanted <= 10 * num_ctx else 10 * num_ctx


def _message(message: JsonObject) -> JsonObject:
    """Return a message in OpenAI's format: images as parts, arguments of tool calls as text."""
    made: JsonObject = {"role": str(message.get("role") or "user").lower(), "content": message.get("content") or ""}
    images, calls = message.get("images"), message.get("tool_calls")
    if images and isinstance(images, list):
        urls = [f"data:image/png;base64,{image}" for image in images]
        parts: list[JsonObject] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        made["content"] = [{"type": "text", "text": made["content"]}, *parts]
    if calls and isinstance(calls, list):
        made["tool_calls"] = [_asked_call(index, call) for index, call in enumerate(calls)]
    for key in ("tool_call_id", "tool_name"):
        if message.get(key):
            made[{"tool_name": "name"}.get(key, key)] = message[key]
    return made


def _asked_call(index: int, call: dict[str, Any]) -> JsonObject:
    function = call.get("function") or {}
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {
        "id": call.get("id", f"call_{index}"),
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": text},
    }


@dataclass(slots=True)
class _Call:
    """A tool call so far, its arguments as text."""

    id: str = ""
    name: str = ""
    arguments: str = ""


#: so many equal pieces in a row, white space at their ends left out, end an answer as aborted (llm/llama_server.go)
MOST_REPEATS = 30


class ChunkReader:
    """Collects the chunks of one answer; `read` is called on llama.cpp's thread, `outcome` at the end."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, _Call] = {}  #: {index: a tool call so far}
        self._logprobs: list[dict[str, Any]] = []
        self._reason: str | None = None
        self._usage: dict[str, int] = {}
        self._timings: dict[str, float] = {}
        self._error: dict[str, Any] | None = None
        self._last_piece, self._repeats = "", 0
        #: whether the model repeats itself: the answer is to be stopped, and has no reason
        self.is_stuck = False

    def read(self, data: bytes) -> tuple[str, str] | None:
        """Take a chunk and return its text and thinking, or None if it has neither."""
        chunk = json.loads(data)
        if "error" in chunk:
            self._error = chunk
            return None
        self._usage = chunk.get("usage") or self._usage
        self._timings = chunk.get("timings") or self._timings
        if not chunk.get("choices"):
            return None
        choice = chunk["choices"][0]
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta") or {}
        text = delta.get("content") or choice.get("text") or ""
        thinking = delta.get("reasoning_content") or ""
        self._logprobs += (choice.get("logprobs") or {}).get("content") or ()
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        self._text.append(text)
        self._thinking.append(thinking)
        if not (text or thinking):
            return None
        self._count_repeats((text or thinking).strip())
        return text, thinking

    def outcome(self, top_logprobs: int = 0) -> WorkOutcome:
        """Return the outcome of all chunks, with this number of likeliest tokens at each place.

        Raises:
            EngineError: llama.cpp refused or failed; its JSON is the text, as Ollama passes it on.
        """
        if self._error is not None:
            code = self._error["error"].get("code", 500)
            raise EngineError(int(code), json.dumps(self._error, separators=(",", ":"), ensure_ascii=False))
        timings, usage = self._timings, self._usage
        return WorkOutcome(
            text="".join(self._text),
            thinking="".join(self._thinking),
            # OpenAI's `tool_calls` is `stop` in Ollama. Without a reason, the answer was interrupted.
            done_reason=None if self.is_stuck else {"tool_calls": "stop"}.get(self._reason or "", self._reason),
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            prompt_seconds=float(timings.get("prompt_ms", 0.0)) / 1000,
            eval_tokens=int(usage.get("completion_tokens", 0)),
            eval_seconds=float(timings.get("predicted_ms", 0.0)) / 1000,
            tool_calls=tuple(_made_call(index, call) for index, call in sorted(self._calls.items())),
            logprobs=tuple(_logprob(item, top_logprobs) for item in self._logprobs),
        )

    def _count_repeats(self, piece: str) -> None:
        self._repeats = self._repeats + 1 if piece == self._last_piece else 0
        self._last_piece = piece
        self.is_stuck |= self._repeats > MOST_REPEATS

    def _add_call(self, part: dict[str, Any]) -> None:
        call = self._calls.setdefault(int(part.get("index", 0)), _Call())
        function = part.get("function") or {}
        call.id = part.get("id") or call.id
        call.name = function.get("name") or call.name
        call.arguments += function.get("arguments") or ""


def _logprob(item: dict[str, Any], top: int) -> JsonObject:
    """Return a token's probability in Ollama's format (api/types.go: Logprob)."""
    kept: JsonObject = {key: item[key] for key in ("token", "logprob", "bytes") if key in item}
    others = [_logprob(other, 0) for other in (item.get("top_logprobs") or [])[:top]]
    return {**kept, "top_logprobs": others} if others else kept


def _made_call(index: int, call: _Call) -> JsonObject:
    """Return a tool call in Ollama's format: the arguments are an object."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except json.JSONDecodeError as error:
        text = f"llama-server returned invalid tool call arguments for {call.name}"
        raise EngineError(500, text) from error
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}
