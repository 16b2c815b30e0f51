"""Convert a line of an OpenAI Batch file to the obcd line with the same request.

    {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": […]}}
    -> {"id": "r-1", "model": "m", "messages": […]}

Requests go to Ollama's own API, not to its /v1, which would lose num_ctx, `truncate` and the text of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from obcd.core.request.openai.messages import to_messages, to_tools
from obcd.core.request.openai.parts import SHARED, refuse_others, sampling_options, whole
from obcd.core.schema.strict_json import short_key
from obcd.core.schema.wrapping import unwrapped
from obcd.errors import LineError

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
#: Longest custom_id, in characters; other services accept 64.
MAX_CUSTOM_ID = 400
#: Keys of such a line; others are echoed.
LINE_KEYS = frozenset(("custom_id", "method", "url", "body"))

_CHAT_KEYS = SHARED | {
    "messages",
    "max_completion_tokens",
    "response_format",
    "tools",
    "tool_choice",
    "reasoning_effort",
    "logprobs",
    "top_logprobs",
}
_COMPLETION_KEYS = SHARED | {"prompt", "suffix", "logprobs"}
_EMBEDDING_KEYS = frozenset(("model", "input", "dimensions"))

#: {reasoning_effort: Ollama's `think`}
EFFORTS = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}
#: {end of a url: why it is not supported}
_REFUSED_URLS = {
    "/responses": "write the line for /v1/chat/completions, with `messages` in the place of `input`",
    "/score": "Ollama does not score texts (vLLM does): embed them by /v1/embeddings and compare the vectors",
    "/rerank": "Ollama does not rank texts (vLLM does): embed them by /v1/embeddings and compare the vectors",
    "/moderations": "nothing is moderated here",
    "/generations": "Ollama makes no pictures in a batch",
    "/edits": "Ollama makes no pictures in a batch",
    "/videos": "Ollama makes no videos",
    "/messages": "that is Anthropic's: write the line for /v1/chat/completions",
}


def is_asked(document: Mapping[str, object]) -> bool:
    """Return whether a line has the keys of an OpenAI Batch file's."""
    return "custom_id" in document and ("body" in document or ("method" in document and "url" in document))


def endpoint_of(document: Mapping[str, object]) -> str:
    """Return the OpenAI endpoint that a line names, if it does; "" for a line of another shape."""
    if not is_asked(document):
        return ""
    url = document.get("url")
    return _whole_url(url) if isinstance(url, str) and 0 < len(url) < 100 and url.isprintable() else CHAT


def to_ours(document: Mapping[str, object]) -> dict[str, object]:
    """Return the obcd line with the same request as one of OpenAI's; keys that neither knows are kept.

    Raises:
        LineError: With one sentence, naming the part that Ollama cannot receive.
    """
    number, method, url, body = (document.get(key) for key in ("custom_id", "method", "url", "body"))
    if not isinstance(number, str) or not number:
        raise LineError("`custom_id` must be a string, by which you find the answer")
    if len(number) > MAX_CUSTOM_ID:
        raise LineError(f"`custom_id` is longer than {MAX_CUSTOM_ID} characters")
    if method != "POST":
        raise LineError('`method` must be "POST"')
    if not isinstance(url, str):
        raise LineError(f"`url` must be one of {', '.join(_SHAPES)}")
    if not isinstance(body, dict):
        raise LineError("`body` must be an object: what the endpoint takes, with `model` in it")
    shape = _SHAPES.get(_whole_url(url))
    if shape is None:
        raise LineError(_why_not(url))
    extra = {key: value for key, value in document.items() if key not in LINE_KEYS}
    clash = sorted(_OURS.intersection(extra))
    if clash:
        raise LineError(f"`{clash[0]}` is beside the `body`: move it into the body, or remove it")
    ours = {"id": number, "model": body.get("model"), **shape(body)}
    return {**extra, **{key: value for key, value in ours.items() if value is not None}}


def _whole_url(url: str) -> str:
    """Return the path with its /v1, which older versions of Azure leave out."""
    return url if url.startswith("/v1/") or f"/v1{url}" not in _SHAPES else f"/v1{url}"


def _why_not(url: str) -> str:
    if url.startswith(("http://", "https://")):
        return f"`url` must be a path such as {CHAT}, not an address: a line cannot choose its server"
    why = next((why for end, why in _REFUSED_URLS.items() if url.endswith(end)), f"only {', '.join(_SHAPES)} are")
    return f"`url` {short_key(url)} is not supported: {why}"


def _chat(body: Mapping[str, object]) -> dict[str, object]:
    refuse_others(body, _CHAT_KEYS)
    return {
        "messages": to_messages(body.get("messages")),
        "options": sampling_options(body) or None,
        "format": _format(body.get("response_format")),
        "think": _think(body.get("reasoning_effort")),
        "tools": to_tools(body.get("tools"), body.get("tool_choice")),
        "n": _count(body),
        "logprobs": body.get("logprobs"),
        "top_logprobs": body.get("top_logprobs"),
    }


def _completion(body: Mapping[str, object]) -> dict[str, object]:
    """Return the request to continue a text: without the model's template, except if a gap is to be filled."""
    refuse_others(body, _COMPLETION_KEYS)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise LineError("`body.prompt` must be one text: neither tokens nor several texts, which need a line each")
    if not prompt.strip():
        raise LineError("`body.prompt` is empty")
    suffix, most = body.get("suffix"), body.get("logprobs")
    if most is not None and not 0 <= whole(most, "logprobs") <= 20:
        raise LineError("`body.logprobs` must be from 0 to 20")
    return {
        "complete": prompt,
        "suffix": suffix or None,
        "raw": None if suffix else True,
        "options": sampling_options(body) or None,
        "n": _count(body),
        "logprobs": None if most is None else True,
        "top_logprobs": most,
    }


def _embedding(body: Mapping[str, object]) -> dict[str, object]:
    refuse_others(body, _EMBEDDING_KEYS)
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise LineError("`body.input` must be a text or a list of texts: Ollama cannot receive tokens")
    if not all(str(text).strip() for text in texts):
        raise LineError("`body.input` has an empty text in it")
    return {"embed": given, "dimensions": body.get("dimensions")}


def _format(wanted: object) -> object:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or kind not in ("text", "json_object", "json_schema"):
        raise LineError("`body.response_format` must have a `type`, one of text, json_object, json_schema")
    if kind != "json_schema":
        return "json" if kind == "json_object" else ""
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if isinstance(schema, dict) and schema:
        return schema
    schema, path = unwrapped(wanted)  # other vendors put the schema one step further out
    if not path or "schema" in schema:
        raise LineError("`body.response_format.json_schema.schema` must be a JSON schema (an object)")
    return schema


def _think(effort: object) -> object:
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in EFFORTS:
        raise LineError(
            f"`body.reasoning_effort` must be one of {', '.join(EFFORTS)}: Ollama has no other levels of thinking"
        )
    return EFFORTS[effort]


def _count(body: Mapping[str, object]) -> int | None:
    return None if body.get("n") is None else whole(body["n"], "n")


_SHAPES: Mapping[str, Callable[[Mapping[str, object]], dict[str, object]]] = {
    CHAT: _chat,
    COMPLETIONS: _completion,
    EMBEDDINGS: _embedding,
}
#: Keys that would be read as obcd's beside the body.
_OURS = frozenset(
    ("id", "model", "messages", "prompt", "images", "system", "options", "format", "think", "tools", "n", "logprobs")
) | {"top_logprobs", "complete", "suffix", "raw", "embed", "dimensions"}
