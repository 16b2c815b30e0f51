"""The common part of the bodies of OpenAI's endpoints: parameters that obcd has too, and parameters that are refused.

A parameter is used, has no effect on the answer, or is refused by its name: no parameter is lost silently.
"""

from __future__ import annotations

from collections.abc import Mapping

from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError

#: {parameter: option of Ollama}; the last three are vLLM's.
NUMBERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
WHOLES = {"seed": "seed", "top_k": "top_k"}
#: Parameters that /v1/chat/completions and /v1/completions share.
SHARED = frozenset((*NUMBERS, *WHOLES, "model", "stop", "n", "max_tokens"))

#: Parameters that change neither an answer nor its shape: OpenAI's own labels, prices and caches.
PASSED_OVER = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "prediction",
    )
)
#: {parameter: the value that requests nothing}; null is such a value for each
NEUTRAL: Mapping[str, object] = {
    "stream": False,
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "logit_bias": {},
    "verbosity": "medium",
    "echo": False,
    "best_of": 1,
    "encoding_format": "float",
    "functions": [],
    "function_call": "none",
}
#: {parameter: why it is refused, and what to write instead}
REASONS = {
    "stream": "a batch is never streamed: remove it",
    "stream_options": "a batch is never streamed: remove it",
    "audio": "Ollama produces no audio: remove it",
    "modalities": 'Ollama writes only text: remove it, or write ["text"]',
    "moderation": "nothing is moderated here: remove it",
    "parallel_tool_calls": "Ollama cannot be limited to one call at a time: remove it",
    "logit_bias": "Ollama has no bias for tokens: remove it",
    "verbosity": "Ollama does not have it: say in the prompt how long the answer should be",
    "web_search_options": "nothing is searched here: remove it",
    "functions": "write `tools` instead",
    "function_call": "write `tool_choice` instead",
    "echo": "the prompt is not repeated in the answer: remove it, your own line has the prompt",
    "best_of": "answers are not ranked: write `n` for several",
    "encoding_format": 'vectors are written as numbers: remove it, or write "float"',
    "options": "that is Ollama's: OpenAI's parameters belong into the body itself, and `num_ctx` into the profile",
    "num_ctx": "set it in the profile, or in [requests] of the configuration",
    "keep_alive": "a line cannot set how long a model stays loaded: remove it",
    "chat_template_kwargs": 'the template accepts no arguments: write `reasoning_effort`: "none" for no thinking',
    "guided_json": "write `response_format` with a json_schema instead",
    "structured_outputs": "write `response_format` with a json_schema instead",
    "max_output_tokens": "that belongs to /v1/responses: write `max_completion_tokens`",
    "input": "that belongs to /v1/responses and /v1/embeddings: write `messages`, or another `url`",
    "prompt": "that belongs to /v1/completions: write `messages`, or another `url`",
    "messages": "that belongs to /v1/chat/completions: write another `url`",
}
UNKNOWN = "this endpoint has no such parameter, or Ollama has nothing like it: remove it"


def refuse_others(body: Mapping[str, object], taken: frozenset[str]) -> None:
    """Refuse parameters that are neither used nor without effect.

    Raises:
        LineError: Naming the first such parameter, and what to write instead.
    """
    for key, value in body.items():
        if key in taken or key in PASSED_OVER or value is None:
            continue
        if key in NEUTRAL and type(value) is type(NEUTRAL[key]) and value == NEUTRAL[key]:
            continue
        raise LineError(f"`body.{short_key(key)}` is not supported: {REASONS.get(key, UNKNOWN)}")


def sampling_options(body: Mapping[str, object]) -> dict[str, object]:
    """Return the options of Ollama for the parameters of `SHARED`.

    Raises:
        LineError: If a parameter has a wrong type; it names the parameter.
    """
    options: dict[str, object] = {}
    for key, option in NUMBERS.items():
        if body.get(key) is not None:
            options[option] = _number(body[key], key)
    for key, option in WHOLES.items():
        if body.get(key) is not None:
            options[option] = whole(body[key], key)
    if body.get("stop") is not None:
        options["stop"] = _stop(body["stop"])
    most = _most_tokens(body)
    return options if most is None else {**options, "num_predict": most}


def whole(value: object, key: str) -> int:
    """Return a parameter that is a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise LineError(f"`body.{key}` must be a whole number")


def _number(value: object, key: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise LineError(f"`body.{key}` must be a number")


def _stop(stop: object) -> list[str]:
    texts = [stop] if isinstance(stop, str) else stop
    if isinstance(texts, list) and all(isinstance(text, str) and text for text in texts):
        return texts
    raise LineError("`body.stop` must be a string or a list of strings, none of them empty")


def _most_tokens(body: Mapping[str, object]) -> int | None:
    """Return the limit of the answer, thoughts included, as OpenAI counts it."""
    limits = {
        key: whole(body[key], key) for key in ("max_completion_tokens", "max_tokens") if body.get(key) is not None
    }
    for key, limit in limits.items():
        if not 1 <= limit <= 2**24:
            raise LineError(f"`body.{key}` must be from 1 to {2**24}")
    if len(set(limits.values())) > 1:
        raise LineError("`body.max_tokens` and `body.max_completion_tokens` differ: a line has one of them")
    return next(iter(limits.values()), None)
