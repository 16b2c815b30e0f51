"""The common part of the bodies of OpenAI's endpoints: parameters that obcd has too, and parameters that are refused.

A parameter is used, has no effect on the answer, or is refused by its name: no parameter is lost silently. What a
profile ignores is dropped instead of refused, and recorded. The parameters beside OpenAI's own are those of vLLM,
Together, Fireworks, Groq and Mistral.
"""

from __future__ import annotations

from collections.abc import Mapping

from obcd.core.request.keys.dropped_keys import Dropped, why_misspelt
from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError

#: {parameter: option of Ollama}; the last three are of vLLM and others.
NUMBERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
}
WHOLES = {"seed": "seed", "top_k": "top_k"}
#: {parameter: the same one by its usual name}: Mistral's, Hugging Face's.
_SAME = {"random_seed": "seed", "max_new_tokens": "max_tokens", "output_dimension": "dimensions"}
#: Parameters that /v1/chat/completions and /v1/completions share.
SHARED = frozenset((*NUMBERS, *WHOLES, "model", "stop", "n", "max_tokens"))

#: Parameters that change neither an answer nor its shape: labels, prices, caches, and how a server gets to the answer.
PASSED_OVER = frozenset(
    (
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prediction", "speculation"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prompt_cache_isolation_key"),
        *("guided_decoding_backend", "request_id", "cache_salt", "priority"),
    )
)
#: {parameter: the values that request nothing}; null is such a value for each
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "stream": (False,),
    "stream_options": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "logit_bias": ({}, []),
    "verbosity": ("medium",),
    "echo": (False,),
    "best_of": (1,),
    "encoding_format": ("float",),
    "output_dtype": ("float",),
    "normalize": (True,),
    # vLLM: sampling, and how a prompt is made
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "early_stopping": (False,),
    "length_penalty": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "continue_final_message": (False,),
    "documents": ([],),
    "mm_processor_kwargs": ({},),
    "vllm_xargs": ({},),
    "logits_processors": ([],),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "include_reasoning": (True,),
    # Groq, Mistral, Together, Fireworks
    "reasoning_format": ("parsed",),
    "safe_prompt": (False,),
    "context_length_exceeded_behavior": ("error",),
    "raw_output": (False,),
    "perf_metrics_in_response": (False,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
}
#: {parameter: why it is refused, and what to write instead}
REASONS = {
    "stream": "a batch is never streamed: remove it",
    "stream_options": "a batch is never streamed: remove it",
    "audio": "Ollama produces no audio: remove it",
    "modalities": 'Ollama writes only text: remove it, or write ["text"]',
    "moderation": "nothing is moderated here: remove it",
    "safe_prompt": "nothing is added to a prompt here: write it into the system message",
    "parallel_tool_calls": "Ollama cannot be limited to one call at a time: remove it",
    "logit_bias": "Ollama has no bias for tokens: remove it",
    "verbosity": "Ollama does not have it: say in the prompt how long the answer should be",
    "web_search_options": "nothing is searched here: remove it",
    "echo": "the prompt is not repeated in the answer: remove it, your own line has the prompt",
    "best_of": "answers are not ranked: write `n` for several",
    "use_beam_search": "Ollama has no beam search: remove it",
    "ignore_eos": "Ollama stops where the model ends its answer: remove it",
    "min_tokens": "Ollama has no least length: say in the prompt how long the answer should be",
    "encoding_format": 'vectors are written as numbers: remove it, or write "float"',
    "options": "that is Ollama's: OpenAI's parameters belong into the body itself, and `num_ctx` into the profile",
    "num_ctx": "set it in the profile, or in [requests] of the configuration",
    "keep_alive": "a line cannot set how long a model stays loaded: remove it",
    "guided_regex": "Ollama holds an answer to a JSON schema only: write `response_format` instead",
    "guided_grammar": "Ollama holds an answer to a JSON schema only: write `response_format` instead",
    "instructions": "that belongs to /v1/responses: write a message of the role system",
    "max_output_tokens": "that belongs to /v1/responses: write `max_completion_tokens`",
    "truncate_prompt_tokens": "no prompt is cut here: remove it",
    "context_length_exceeded_behavior": 'no prompt is cut here: remove it, or write "error"',
    "input": "that belongs to /v1/responses and /v1/embeddings: write `messages`, or another `url`",
    "prompt": "that belongs to /v1/completions: write `messages`, or another `url`",
    "messages": "that belongs to /v1/chat/completions: write another `url`",
}
UNKNOWN = "this endpoint has no such parameter, or Ollama has nothing like it: remove it"


def flatten(body: Mapping[str, object]) -> dict[str, object]:
    """Return a body without null values, with its `extra_body` beside the others, and with usual names.

    Raises:
        LineError: If a parameter is there twice.
    """
    inner = body.get("extra_body")  # a parameter of OpenAI's Python client, which puts its content into the body
    parts: list[Mapping[str, object]] = [body, inner] if isinstance(inner, dict) else [body]
    flat: dict[str, object] = {}
    for part in parts:
        for key, value in part.items():
            if value is None or (value is inner and isinstance(inner, dict)):
                continue
            name = _SAME.get(key, key)
            if flat.setdefault(name, value) is not value and flat[name] != value:
                raise LineError(f"`body.{short_key(name)}` is there twice, with different values: write it once")
    return flat


def refuse_others(body: Mapping[str, object], taken: frozenset[str], dropped: Dropped) -> None:
    """Refuse parameters that are neither used nor without effect.

    Raises:
        LineError: Naming the first such parameter, and what to write instead.
    """
    for key, value in body.items():
        if key in taken or key in PASSED_OVER or value is None or _is_neutral(key, value, body):
            continue
        if dropped.excuses("body", key):
            continue
        reason = why_misspelt(key, taken) or REASONS.get(key, UNKNOWN)
        raise LineError(f"`body.{short_key(key)}` is not supported: {reason}")


def _is_neutral(key: str, value: object, body: Mapping[str, object]) -> bool:
    if key == "best_of" and value == body.get("n"):
        return True
    if key == "parallel_tool_calls" and not body.get("tools"):  # then there is nothing to call
        return True
    return any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in NEUTRAL.get(key, ())
    )


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
