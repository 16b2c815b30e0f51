"""Lines of responses.jsonl and errors.jsonl in OpenAI's form, made from obcd's and read back.

    {"id": "batch_req_<job>_7", "custom_id": "r-1", "error": null,
     "response": {"status_code": 200, "request_id": "req_<job>_7_1", "body": {…}}}

Values that have no place in OpenAI's form (endpoint, attempts, times) stand under `obcd`, in the body or in the error:
OpenAI's types ignore that key. The line's number is the end of `id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.openai.choices import (
    chat_choice,
    completion_choice,
    read_chat_choice,
    read_completion_choice,
)
from obcd.core.answer.outcomes import Cost, Failure, Response
from obcd.core.request.records import Kind

#: Longest custom_id that is made of an id which is not a string, in characters.
MAX_MADE_ID = 512
_OBJECTS = {Kind.CHAT: "chat.completion", Kind.COMPLETE: "text_completion", Kind.EMBED: "list"}
_PREFIXES = {Kind.CHAT: "chatcmpl", Kind.COMPLETE: "cmpl"}
#: Keys of an obcd line that have their own place in OpenAI's.
_PLACED = frozenset(("id", "line", "prompt", "model", "prompt_tokens", "eval_tokens", "embeddings", "responses"))
_CHOSEN = frozenset(("response", "done_reason", "thinking", "tool_calls", "logprobs"))
#: A failure's line has no place for the unusable answer, nor for its tokens: they stay with the rest.
_FAILED = frozenset(("id", "line", "prompt", "model", "responses", "class", "message"))
#: The same for one of several answers; the model is that of the line.
_TOLD_ONCE = _CHOSEN | {"ordinal", "outcome", "line", "model", "weights"}

#: {class of a failure: status of the HTTP reply it stands for}
STATUSES: Mapping[str, int] = {
    FaultKind.BAD_LINE: 400,
    FaultKind.BAD_REQUEST: 400,
    FaultKind.BAD_SCHEMA: 400,
    FaultKind.TOO_LONG: 400,
    FaultKind.UNSUPPORTED: 400,
    FaultKind.FORBIDDEN: 403,
    FaultKind.MODEL_MISSING: 404,
    FaultKind.BAD_SAMPLE: 500,
    FaultKind.CRASHED: 500,
    FaultKind.INCOMPATIBLE: 500,
    FaultKind.LOAD_FAILED: 500,
    FaultKind.OUT_OF_MEMORY: 500,
    FaultKind.REPETITION: 500,
    FaultKind.SERVER_ERROR: 500,
    FaultKind.BUSY: 503,
}
#: Classes that stand for no reply, like any class that this version does not know.
WITHOUT_REPLY = frozenset(
    (
        FaultKind.ABORTED,
        FaultKind.CANCELLED,
        FaultKind.CONTEXT_LOWERED,
        FaultKind.CUT,
        FaultKind.CUT_IN_THOUGHT,
        FaultKind.CUT_SHORT,
        FaultKind.DOUBTED,
        FaultKind.EMPTY_ANSWER,
        FaultKind.HUNG,
        FaultKind.INVALID_ANSWER,
        FaultKind.INVALID_REPLY,
        FaultKind.OFF_GPU,
        FaultKind.OTHER_WEIGHTS,
        FaultKind.POISON,
        FaultKind.REDIRECT,
        FaultKind.TIMEOUT,
        FaultKind.TOO_LARGE,
        FaultKind.UNREACHABLE,
        FaultKind.UNREADABLE,
        FaultKind.UNSEEN,
        FaultKind.WEIGHTS_MISSING,
        FaultKind.WORKER_FAULT,
        FaultKind.WORKER_LOST,
    )
)
_TYPES = {400: "invalid_request_error", 403: "permission_error", 404: "not_found_error"}
#: {class of a failure: OpenAI's code for it}
CODES: Mapping[str, str] = {FaultKind.CANCELLED: "batch_cancelled", FaultKind.TIMEOUT: "request_timeout"}
_CLASSES = {code: name for name, code in CODES.items()}


def custom_id_of(value: object, line: int) -> str:
    """Return the custom_id of a line: its own, or one made from its value if that is missing or not a string."""
    if isinstance(value, str):
        return value
    return f"line-{line}" if type(value) is int and value == line else json.dumps(value)[:MAX_MADE_ID]


def openai_response_line(response: Response, document: Mapping[str, object], job: str, kind: Kind) -> dict[str, object]:
    """Return OpenAI's line for a response.

    Args:
        document: The line in obcd's responses.jsonl.
    """
    line, answer = response.line, response.answer
    heading = {} if kind is Kind.EMBED else {"id": f"{_PREFIXES[kind]}-{job}-{line}", "created": int(answer.finished)}
    body = {
        "object": _OBJECTS[kind],
        **heading,
        "model": answer.model,
        **_content(response, kind),
        "usage": _usage(answer.cost, kind),
        "obcd": _rest(document, _PLACED | _CHOSEN, _TOLD_ONCE),
    }
    status = {"status_code": 200, "request_id": f"req_{job}_{line}_{response.attempts}", "body": body}
    return _line(line, document["id"], job, response=status)


def openai_failure_line(failure: Failure, document: Mapping[str, object], job: str) -> dict[str, object]:
    """Return OpenAI's line for a failure.

    Args:
        document: The line in obcd's errors.jsonl.
    """
    line, name = failure.line, failure.kind
    rest = _rest(document, _FAILED)
    status = STATUSES.get(name)
    if status is None:
        final = {"code": CODES.get(name, name), "message": failure.message, "obcd": rest}
        return _line(line, document["id"], job, error=final)
    error = {
        "message": failure.message,
        "type": _TYPES.get(status, "api_error"),
        "param": None,
        "code": name,
        "obcd": rest,
    }
    request = f"req_{job}_{line}_{failure.attempts}"
    response = {"status_code": status, "request_id": request, "body": {"error": error}}
    return _line(line, document["id"], job, response=response)


def is_openai_line(document: Mapping[str, object]) -> bool:
    """Return whether a line has the keys of the lines that this module writes."""
    return document.keys() == {"id", "custom_id", "response", "error"}


def to_record(document: Mapping[str, object]) -> dict[str, object]:
    """Return obcd's line for one of OpenAI's, without its prompt; a line of obcd as it is.

    Damaged parts are missing in the result; the reader of the result has to check for them.
    """
    if not is_openai_line(document):
        return dict(document)
    number = str(document["id"]).rpartition("_")[2]
    record: dict[str, object] = {"id": document["custom_id"]}
    if number.isascii() and number.isdecimal() and len(number) < 16:
        record["line"] = int(number)
    response, error = document["response"], document["error"]
    if isinstance(error, dict):
        return record | _failure(error)
    body = response.get("body") if isinstance(response, dict) else None
    if not isinstance(body, dict):
        return record
    if isinstance(body.get("error"), dict):
        return record | _failure(body["error"])
    return record | _response(body)


def _content(response: Response, kind: Kind) -> dict[str, object]:
    if kind is Kind.EMBED:
        vectors = enumerate(response.answer.embeddings or ())
        return {"data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in vectors]}
    make = chat_choice if kind is Kind.CHAT else completion_choice
    answers = [each.answer for each in response.responses or (response,)]
    return {"choices": [make(answer, index, f"{response.line}_{index}") for index, answer in enumerate(answers)]}


def _usage(cost: Cost, kind: Kind) -> dict[str, int]:
    completion = {} if kind is Kind.EMBED else {"completion_tokens": cost.eval_tokens}
    total = cost.prompt_tokens + cost.eval_tokens
    return {"prompt_tokens": cost.prompt_tokens, **completion, "total_tokens": total}


def _rest(
    document: Mapping[str, object], placed: Set[str], placed_of_each: Set[str] = frozenset()
) -> dict[str, object]:
    """Return the values that have no place in OpenAI's line.

    Args:
        placed: The keys that have a place.
        placed_of_each: The same for one of several answers.
    """
    rest = {key: value for key, value in document.items() if key not in placed}
    answers = _list(document.get("responses"))
    if answers:
        rest["responses"] = [
            {key: value for key, value in answer.items() if key not in placed_of_each}
            for answer in answers
            if isinstance(answer, dict)
        ]
    return rest


def _line(line: int, own: object, job: str, *, response: object = None, error: object = None) -> dict[str, object]:
    return {
        "id": f"batch_req_{job}_{line}",
        "custom_id": custom_id_of(own, line),
        "response": response,
        "error": error,
    }


def _failure(error: Mapping[str, object]) -> dict[str, object]:
    code, rest = error.get("code"), error.get("obcd")
    name = _CLASSES.get(code, code) if isinstance(code, str) else code
    return {"class": name, "message": error.get("message"), **(rest if isinstance(rest, dict) else {})}


def _response(body: Mapping[str, object]) -> dict[str, object]:
    usage, rest = body.get("usage"), body.get("obcd")
    usage, rest = usage if isinstance(usage, dict) else {}, dict(rest) if isinstance(rest, dict) else {}
    record = {
        "model": body.get("model"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "eval_tokens": usage.get("completion_tokens", 0),
    }
    if body.get("object") == _OBJECTS[Kind.EMBED]:
        data = body.get("data")
        vectors = [item.get("embedding") if isinstance(item, dict) else None for item in _list(data)]
        return {**record, "embeddings": vectors, **rest}
    is_chat = body.get("object") == _OBJECTS[Kind.CHAT]
    read = read_chat_choice if is_chat else read_completion_choice
    answers = [read(choice) for choice in _list(body.get("choices")) if isinstance(choice, dict)]
    shares = _list(rest.pop("responses", None))
    if not answers:
        return {**record, **rest}
    shown = {key: value for key, value in answers[0].items() if not shares or key != "logprobs"}
    if not shares:
        return {**record, **shown, **rest}
    reasons = [answer["done_reason"] for answer in answers]
    shown["done_reason"] = "length" if "length" in reasons else reasons[0]
    several = [answer | share for answer, share in zip(answers, shares, strict=False) if isinstance(share, dict)]
    return {**record, **shown, **rest, "responses": several}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
