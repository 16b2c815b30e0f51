"""What a body says of the form of an answer and of thinking, by any of its usual parameters. Pure.

    "response_format", vLLM's "guided_json", "guided_choice", "structured_outputs"     -> obcd's `format`
    "reasoning_effort", vLLM's "chat_template_kwargs": {"enable_thinking": …}, …       -> obcd's `think`

A parameter that has no exact equivalent is refused by its name, unless the profile ignores it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from obcd.core.request.keys.dropped_keys import Dropped
from obcd.core.schema.extract import Found, parse_strict
from obcd.core.schema.strict_json import short_key
from obcd.core.schema.wrapping import unwrapped
from obcd.errors import LineError

#: Parameters that `form_of` reads.
FORMS = frozenset(("response_format", "guided_json", "guided_choice", "structured_outputs"))
#: Parameters that `thinking_of` reads.
THINKING = frozenset(("reasoning_effort", "reasoning", "thinking", "think", "enable_thinking", "chat_template_kwargs"))
#: {reasoning_effort: Ollama's `think`}
EFFORTS = {"none": False, "low": "low", "medium": "medium", "high": "high", "max": "max"}

#: Keys of `structured_outputs` that request nothing if they are false (vLLM sampling_params.py).
_FLAGS = frozenset(("disable_fallback", "disable_any_whitespace", "disable_additional_properties"))
#: Arguments of templates that switch thoughts on or off: those of Qwen and GLM, and of DeepSeek and Granite.
_SWITCHES = frozenset(("enable_thinking", "thinking"))


def form_of(body: Mapping[str, object], dropped: Dropped) -> object:
    """Return obcd's `format`: a JSON schema, `"json"`, `""` for any text; None if the body does not say.

    Raises:
        LineError: If a form cannot be honoured, or two parameters say one.
    """
    if FORMS.isdisjoint(body):
        return None
    forms = [form for form in _forms(body, dropped) if form[1] is not None]
    if len(forms) > 1:
        raise LineError(f"both `body.{forms[0][0]}` and `body.{forms[1][0]}`: a line has one form of answers")
    return forms[0][1] if forms else None


def thinking_of(body: Mapping[str, object], dropped: Dropped) -> object:
    """Return obcd's `think`; None if the body does not say.

    Raises:
        LineError: If a parameter has no equivalent, or two parameters contradict each other.
    """
    if THINKING.isdisjoint(body):
        return None
    said = [value for value in _thoughts(body, dropped) if value is not None]
    levels = [value for value in said if not isinstance(value, bool)]
    if (False in said and said.count(False) < len(said)) or any(level != levels[0] for level in levels):
        names = ", ".join(f"`body.{key}`" for key in sorted(THINKING.intersection(body)))
        raise LineError(f"{names} contradict each other about thinking: write one of them")
    return levels[0] if levels else next(iter(said), None)


def _forms(body: Mapping[str, object], dropped: Dropped) -> Iterator[tuple[str, object]]:
    yield "response_format", _response_format(body.get("response_format"), dropped)
    yield "guided_json", _schema(body.get("guided_json"), "guided_json")
    yield "guided_choice", _choice(body.get("guided_choice"), "guided_choice")
    structured = body.get("structured_outputs")
    if structured is None:
        return
    if not isinstance(structured, dict):
        raise LineError('`body.structured_outputs` must be an object, such as {"json": {…}}')
    for key, value in structured.items():
        name = f"structured_outputs.{key}"
        if value is None or (key in _FLAGS and value is False):
            continue
        if key == "json":
            yield name, _schema(value, name)
        elif key == "choice":
            yield name, _choice(value, name)
        elif key == "json_object" and isinstance(value, bool):
            yield name, "json" if value else None
        elif not dropped.excuses("body.structured_outputs", key):
            raise LineError(
                f"`body.structured_outputs.{short_key(key)}` is not supported: Ollama holds an answer to a JSON schema "
                "only, write `json` or `choice`"
            )


def _response_format(wanted: object, dropped: Dropped) -> object:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or kind not in ("text", "json_object", "json_schema"):
        if dropped.excuses("body", "response_format"):
            return None
        raise LineError("`body.response_format` must have a `type`, one of text, json_object, json_schema")
    if kind == "text":
        return ""
    inner = wanted.get("json_schema")
    # Together and Fireworks have the schema beside the type.
    schema = inner.get("schema") if isinstance(inner, dict) else wanted.get("schema")
    if kind == "json_object" and schema is None:
        return "json"
    if not isinstance(schema, dict) or not schema:
        schema, path = unwrapped(wanted)  # other vendors put the schema one step further out
        if path and "schema" not in schema:
            return schema
        place = "json_schema.schema" if kind == "json_schema" else "schema"
        raise LineError(f"`body.response_format.{place}` must be a JSON schema (an object)")
    return schema


def _schema(value: object, name: str) -> object:
    """Return a schema, which vLLM also accepts as a text."""
    if isinstance(value, str):
        found = parse_strict(value)
        value = found.value if isinstance(found, Found) else value
    if value is None or (isinstance(value, dict) and value):
        return value
    raise LineError(f"`body.{name}` must be a JSON schema (an object)")


def _choice(value: object, name: str) -> object:
    """Return the schema of a choice: the answer is one of the texts, as JSON."""
    if value is None:
        return None
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return {"type": "string", "enum": list(dict.fromkeys(value))}
    raise LineError(f"`body.{name}` must be a list of strings")


def _thoughts(body: Mapping[str, object], dropped: Dropped) -> Iterator[object]:
    yield _effort(body.get("reasoning_effort"), "reasoning_effort", dropped)
    for key in ("think", "enable_thinking"):
        value = body.get(key)
        yield value if isinstance(value, bool | None) else _effort(value, key, dropped)
    yield from _reasoning(body.get("reasoning"), dropped)
    yield from _thinking(body.get("thinking"), dropped)
    given = body.get("chat_template_kwargs")
    if given is None:
        return
    if not isinstance(given, dict):
        raise LineError('`body.chat_template_kwargs` must be an object, such as {"enable_thinking": false}')
    for key, value in given.items():
        place = f"chat_template_kwargs.{key}"
        if key in _SWITCHES and isinstance(value, bool | None):
            yield value
        elif key == "reasoning_effort":
            yield _effort(value, place, dropped)
        elif value is not None and not dropped.excuses("body.chat_template_kwargs", key):
            raise LineError(
                f"`body.chat_template_kwargs.{short_key(key)}` is not supported: of the template's arguments only "
                "`enable_thinking` has an equivalent, true or false"
            )


def _reasoning(given: object, dropped: Dropped) -> Iterator[object]:
    """Read OpenRouter's `reasoning`, which Ollama's own /v1 has as well."""
    if given is None:
        return
    if not isinstance(given, dict):
        raise LineError('`body.reasoning` must be an object, such as {"effort": "low"}')
    for key, value in given.items():
        if key == "effort":
            yield _effort(value, "reasoning.effort", dropped)
        elif key == "enabled" and isinstance(value, bool):
            yield value
        elif value not in (None, False) and not dropped.excuses("body.reasoning", key):
            raise LineError(f"`body.reasoning.{short_key(key)}` is not supported: write `effort`, or remove it")


def _thinking(given: object, dropped: Dropped) -> Iterator[object]:
    """Read `thinking` as Anthropic, GLM and DeepSeek have it: `{"type": "enabled"}`."""
    if given is None:
        return
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict) or kind not in ("enabled", "disabled", "adaptive"):
        raise LineError("`body.thinking` must have a `type`, one of enabled, disabled, adaptive")
    for key, value in given.items():
        if key != "type" and value is not None and not dropped.excuses("body.thinking", key):
            raise LineError(
                f"`body.thinking.{short_key(key)}` is not supported: Ollama has no limit for thoughts alone, remove it"
            )
    yield None if kind == "adaptive" else kind == "enabled"


def _effort(effort: object, name: str, dropped: Dropped) -> object:
    if effort is None:
        return None
    if isinstance(effort, str) and effort in EFFORTS:
        return EFFORTS[effort]
    outer, _, key = f"body.{name}".rpartition(".")
    if dropped.excuses(outer, key):
        return None
    raise LineError(f"`body.{name}` must be one of {', '.join(EFFORTS)}: Ollama has no other levels of thinking")
