"""Convert a line of an OpenAI Batch file to the obcd line with the same request.

    {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": […]}}
    -> {"id": "r-1", "model": "m", "messages": […]}

Together, Fireworks and Mistral have no `method` and `url` in a line: the body shows what it requests.

Requests go to Ollama's own API, not to its /v1, which would lose num_ctx, `truncate` and the text of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from obcd.core.request.conversation.messages import read_messages
from obcd.core.request.keys.dropped_keys import Dropped, why_misspelt
from obcd.core.request.openai.constraints import FORMS, THINKING, form_of, thinking_of
from obcd.core.request.openai.parts import SHARED, flatten, refuse_others, sampling_options, whole
from obcd.core.request.openai.tools import TOOLS, tools_of
from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
#: Longest custom_id, in characters; other services accept 64.
MAX_CUSTOM_ID = 400
#: Keys of such a line; others are echoed.
LINE_KEYS = frozenset(("custom_id", "method", "url", "body"))

_CHAT_KEYS = SHARED | FORMS | THINKING | TOOLS | {"messages", "max_completion_tokens", "logprobs", "top_logprobs"}
_COMPLETION_KEYS = SHARED | FORMS | {"prompt", "suffix", "logprobs"}
_EMBEDDING_KEYS = frozenset(("model", "input", "dimensions"))
#: {key that only the body of one endpoint has: that endpoint}
_DOORS = {"messages": CHAT, "prompt": COMPLETIONS, "input": EMBEDDINGS}
#: Mistral's endpoint for a gap to fill.
_FIM = "/v1/fim/completions"

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
    """Return the OpenAI endpoint that a line names or requests; "" for a line of another shape."""
    if not is_asked(document):
        return ""
    url = document.get("url")
    if isinstance(url, str) and 0 < len(url) < 100 and url.isprintable():
        return _whole_url(url)
    return _endpoint_in(document.get("body")) or CHAT


def to_ours(document: Mapping[str, object], dropped: Dropped) -> dict[str, object]:
    """Return the obcd line with the same request as one of OpenAI's; keys that neither knows are kept.

    Raises:
        LineError: With one sentence, naming the part that Ollama cannot receive.
    """
    number, method, url, body = (document.get(key) for key in ("custom_id", "method", "url", "body"))
    if not isinstance(number, str) or not number:
        raise LineError("`custom_id` must be a string, by which you find the answer")
    if len(number) > MAX_CUSTOM_ID:
        raise LineError(f"`custom_id` is longer than {MAX_CUSTOM_ID} characters")
    extra = {key: value for key, value in document.items() if key not in LINE_KEYS}
    _refuse_beside(extra)
    if method is not None and (not isinstance(method, str) or method.strip().upper() != "POST"):
        raise LineError('`method` must be "POST"')
    if not isinstance(body, dict):
        raise LineError("`body` must be an object: what the endpoint takes, with `model` in it")
    if url is None:
        url = _endpoint_in(body)
    if not isinstance(url, str):
        raise LineError(
            f"`url` must be one of {', '.join(_NAMED)}; without it the body must have `messages`, `prompt` or `input`"
        )
    shape = _SHAPES.get(_whole_url(url))
    if shape is None:
        raise LineError(_why_not(url))
    ours = {"id": number, "model": body.get("model"), **shape(flatten(body), dropped)}
    return {**extra, **{key: value for key, value in ours.items() if value is not None}}


def _refuse_beside(extra: Mapping[str, object]) -> None:
    """Refuse keys beside the body that would have an effect in obcd's line, or are meant to be another key."""
    for key in extra:
        if misspelt := why_misspelt(key, LINE_KEYS):
            raise LineError(f"the key `{short_key(key)}`: {misspelt}")
    if clash := sorted(_OURS.intersection(extra)):
        raise LineError(f"`{clash[0]}` is beside the `body`: move it into the body, or remove it")


def _endpoint_in(body: object) -> str | None:
    """Return the endpoint whose body it is; None if that cannot be seen."""
    if not isinstance(body, dict):
        return None
    return next((url for key, url in _DOORS.items() if body.get(key) is not None), None)


def _whole_url(url: str) -> str:
    """Return the path with its /v1, which older versions of Azure leave out, and without what Groq has before it."""
    path = url.strip().rstrip("/")
    if "://" in path:
        return path
    path = path if path.startswith("/") else f"/{path}"
    known = (each for each in _SHAPES if path == each.removeprefix("/v1") or path.endswith(each))
    return next(known, path)


def _why_not(url: str) -> str:
    if url.startswith(("http://", "https://")):
        return f"`url` must be a path such as {CHAT}, not an address: a line cannot choose its server"
    why = next((why for end, why in _REFUSED_URLS.items() if url.endswith(end)), f"only {', '.join(_NAMED)} are")
    return f"`url` {short_key(url)} is not supported: {why}"


def _chat(body: Mapping[str, object], dropped: Dropped) -> dict[str, object]:
    refuse_others(body, _CHAT_KEYS, dropped)
    conversation = read_messages(body.get("messages"), "body.messages", dropped, needs_calls=True)
    logprobs, most = body.get("logprobs"), body.get("top_logprobs")
    if most is None and isinstance(logprobs, int) and not isinstance(logprobs, bool) and logprobs > 0:
        logprobs, most = True, logprobs  # as Together has it
    return {
        "messages": conversation.messages,
        "system": "" if conversation.has_no_system else None,
        "options": sampling_options(body) or None,
        "format": form_of(body, dropped),
        "think": thinking_of(body, dropped),
        "tools": tools_of(body, dropped),
        "n": _count(body),
        "logprobs": logprobs,
        "top_logprobs": most,
    }


def _completion(body: Mapping[str, object], dropped: Dropped) -> dict[str, object]:
    """Return the request to continue a text: without the model's template, except if a gap is to be filled."""
    refuse_others(body, _COMPLETION_KEYS, dropped)
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
        "format": form_of(body, dropped),
        "n": _count(body),
        "logprobs": None if most is None else True,
        "top_logprobs": most,
    }


def _embedding(body: Mapping[str, object], dropped: Dropped) -> dict[str, object]:
    refuse_others(body, _EMBEDDING_KEYS, dropped)
    given = body.get("input")
    texts = given if isinstance(given, list) else [given]
    if any(isinstance(text, dict) for text in texts):
        raise LineError("`body.input` holds messages, which belongs to /v1/responses: write `messages` instead")
    if not texts or not all(isinstance(text, str) for text in texts):
        raise LineError("`body.input` must be a text or a list of texts: Ollama cannot receive tokens")
    if not all(str(text).strip() for text in texts):
        raise LineError("`body.input` has an empty text in it")
    return {"embed": given, "dimensions": body.get("dimensions")}


def _count(body: Mapping[str, object]) -> int | None:
    return None if body.get("n") is None else whole(body["n"], "n")


_SHAPES: Mapping[str, Callable[[Mapping[str, object], Dropped], dict[str, object]]] = {
    CHAT: _chat,
    COMPLETIONS: _completion,
    EMBEDDINGS: _embedding,
    _FIM: _completion,
}
_NAMED = (CHAT, COMPLETIONS, EMBEDDINGS)
#: Keys that would be read as obcd's beside the body.
_OURS = frozenset(
    ("id", "model", "messages", "prompt", "images", "system", "options", "format", "think", "tools", "n", "logprobs")
) | {"top_logprobs", "complete", "suffix", "raw", "embed", "dimensions"}
