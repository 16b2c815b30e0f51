"""One answer as a choice of OpenAI's bodies, and back: text, thoughts, calls of tools, probabilities."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import TypedDict

from obcd.core.answer.outcomes import ModelAnswer
from obcd.core.answer.vectors import is_finite


class _Token(TypedDict):
    """The probability of a token."""

    token: str
    logprob: float
    bytes: list[int] | None


class _Place(_Token):
    """The token at a place, and the likeliest tokens there."""

    top_logprobs: list[_Token]


def chat_choice(answer: ModelAnswer, index: int, number: str) -> dict[str, object]:
    """Return a choice of a chat.completion.

    Args:
        number: Unique in the job: it makes the ids of calls to which the server gave none.
    """
    made = (_call(call, f"{number}_{place}") for place, call in enumerate(answer.tool_calls or ()))
    calls = [call for call in made if call is not None]
    content = None if calls and not answer.text else answer.text
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    if answer.thinking is not None:
        message["reasoning"] = answer.thinking
    if calls:
        message["tool_calls"] = calls
    reason = _reason(answer)
    probabilities = _probabilities(answer.logprobs)
    return {
        "index": index,
        "message": message,
        "logprobs": None if probabilities is None else {"content": probabilities, "refusal": None},
        "finish_reason": "tool_calls" if calls and reason == "stop" else reason,
    }


def completion_choice(answer: ModelAnswer, index: int, number: str) -> dict[str, object]:
    """Return a choice of a text_completion; the arguments are those of `chat_choice`."""
    probabilities = _probabilities(answer.logprobs)
    choice: dict[str, object] = {
        "index": index,
        "text": answer.text,
        "logprobs": None if probabilities is None else _in_columns(probabilities),
        "finish_reason": _reason(answer),
    }
    return choice if answer.thinking is None else {**choice, "reasoning": answer.thinking}


def read_chat_choice(choice: Mapping[str, object]) -> dict[str, object]:
    """Return the answer from which `chat_choice` made a choice; damaged parts are missing."""
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    calls = [_read_call(call, place) for place, call in enumerate(_list(message.get("tool_calls")))]
    content = message.get("content")
    answer: dict[str, object] = {} if content is None and not calls else {"response": content or ""}
    answer["done_reason"] = "length" if choice.get("finish_reason") == "length" else "stop"
    if "reasoning" in message:
        answer["thinking"] = message["reasoning"]
    if calls:
        answer["tool_calls"] = calls
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        places = _list(logprobs.get("content"))
        answer["logprobs"] = [_read_probability(each) for each in places if isinstance(each, dict)]
    return answer


def read_completion_choice(choice: Mapping[str, object]) -> dict[str, object]:
    """Return the answer from which `completion_choice` made a choice; damaged parts are missing."""
    answer = {"response": choice["text"]} if "text" in choice else {}
    answer["done_reason"] = "length" if choice.get("finish_reason") == "length" else "stop"
    if "reasoning" in choice:
        answer["thinking"] = choice["reasoning"]
    columns = choice.get("logprobs")
    if isinstance(columns, dict):
        answer["logprobs"] = _in_rows(columns)
    return answer


def _reason(answer: ModelAnswer) -> str:
    return "length" if answer.done_reason == "length" else "stop"


def _call(call: object, number: str) -> dict[str, object] | None:
    """Return OpenAI's form of a call: its arguments are a string there (ollama api/types.go: ToolCall)."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    given = call.get("id")
    arguments = function.get("arguments", {})
    return {
        "id": given if isinstance(given, str) and given else f"call_{number}",
        "type": "function",
        "function": {
            "name": function["name"],
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
        },
    }


def _read_call(call: object, place: int) -> dict[str, object]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return {}
    arguments = function.get("arguments")
    with contextlib.suppress(ValueError, RecursionError):
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {
        "id": call.get("id"),
        "function": {"index": place, "name": function.get("name"), "arguments": arguments},
    }


def _probabilities(logprobs: object) -> list[_Place] | None:
    """Return OpenAI's form of Ollama's `logprobs`; None if there are none, or none that can be read."""
    if not isinstance(logprobs, list):
        return None
    found = []
    for each in logprobs:
        one = _probability(each)
        if one is None:
            return None
        tops = [_probability(top) for top in _list(each.get("top_logprobs"))]
        found.append(_Place(**one, top_logprobs=[top for top in tops if top is not None]))
    return found


def _probability(entry: object) -> _Token | None:
    token, number = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
    if not isinstance(entry, dict) or not isinstance(token, str) or not isinstance(number, int | float):
        return None
    if not is_finite(number):
        return None
    octets = entry.get("bytes")
    is_octets = isinstance(octets, list) and all(type(octet) is int for octet in octets)
    return {"token": token, "logprob": float(number), "bytes": octets if is_octets else None}


def _read_probability(entry: Mapping[str, object]) -> dict[str, object]:
    read = {key: value for key, value in entry.items() if key != "top_logprobs" and value is not None}
    tops = [_read_probability(top) for top in _list(entry.get("top_logprobs")) if isinstance(top, dict)]
    return {**read, "top_logprobs": tops} if tops else read


def _in_columns(rows: list[_Place]) -> dict[str, object]:
    """Return the form of the older endpoint: a list each of tokens, probabilities, likeliest others, and offsets."""
    offsets, offset = [], 0
    for row in rows:
        offsets.append(offset)
        offset += len(row["token"])
    return {
        "tokens": [row["token"] for row in rows],
        "token_logprobs": [row["logprob"] for row in rows],
        "top_logprobs": [{top["token"]: top["logprob"] for top in row["top_logprobs"]} for row in rows],
        "text_offset": offsets,
    }


def _in_rows(columns: Mapping[str, object]) -> list[dict[str, object]]:
    places = zip(*(_list(columns.get(key)) for key in ("tokens", "token_logprobs", "top_logprobs")), strict=False)
    rows = []
    for token, number, tops in places:
        others = tops.items() if isinstance(tops, dict) else ()
        row: dict[str, object] = {"token": token, "logprob": number}
        if others:
            row["top_logprobs"] = [{"token": other, "logprob": likely} for other, likely in others]
        rows.append(row)
    return rows


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
