"""What the bodies of OpenAI's endpoints have in common: parameters of ours behind their names, and what is refused.

A parameter is taken, means nothing for the answer, or is refused by its name: none is lost silently.
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

#: What changes neither an answer nor its shape: labels, prices and caches of OpenAI's own.
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
#: {parameter: value with which it asks for nothing}; null is one for each.
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
    "stream": "a batch is never streamed: take it out",
    "stream_options": "a batch is never streamed: take it out",
    "audio": "Ollama speaks no audio: take it out",
    "modalities": 'Ollama writes text alone: take it out, or write ["text"]',
    "moderation": "nothing is moderated here: take it out",
    "parallel_tool_calls": "Ollama cannot be held to one call at a time: take it out",
    "logit_bias": "Ollama has no bias for tokens: take it out",
    "verbosity": "Ollama does not know it: say in the prompt how long the answer should be",
    "web_search_options": "nothing is searched here: take it out",
    "functions": "write `tools` instead",
    "function_call": "write `tool_choice` instead",
    "echo": "the prompt is not repeated in the answer: take it out, it stands in your own line",
    "best_of": "answers are not ranked: write `n` for several",
    "encoding_format": 'vectors are written as numbers: take it out, or write "float"',
    "options": "that is Ollama's: OpenAI's parameters stand in the body itself, and `num_ctx` in the profile",
    "num_ctx": "set it in the profile, or in [requests] of the configuration",
    "keep_alive": "how long a model stays loaded is not a line's to say: take it out",
    "chat_template_kwargs": 'the template cannot be told: write `reasoning_effort`: "none" for no thinking',
    "guided_json": "write `response_format` with a json_schema instead",
    "structured_outputs": "write `response_format` with a json_schema instead",
    "max_output_tokens": "that is of /v1/responses: write `max_completion_tokens`",
    "input": "that is of /v1/responses and /v1/embeddings: write `messages`, or another `url`",
    "prompt": "that is of /v1/completions: write `messages`, or another `url`",
    "messages": "that is of /v1/chat/completions: write another `url`",
}
UNKNOWN = "no parameter of this endpoint that could be honoured here: take it out"


def refuse_others(body: Mapping[str, object], taken: frozenset[str]) -> None:
    """Refuse what is neither taken nor without meaning.

    Raises:
        LineError: Naming the first such parameter, and what to write instead.
    """
    for key, value in body.items():
        if key in taken or key in PASSED_OVER or value is None:
            continue
        if key in NEUTRAL and type(value) is type(NEUTRAL[key]) and value == NEUTRAL[key]:
            continue
        raise LineError(f"`body.{short_key(key)}` is not taken: {REASONS.get(key, UNKNOWN)}")


def sampling_options(body: Mapping[str, object]) -> dict[str, object]:
    """Return the options of Ollama for the parameters of `SHARED`.

    Raises:
        LineError: Naming a parameter of a wrong type.
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
